"""The public functions, and what they share with the command line: jobs, plans, programs.

A program is traced once and compiled or run for any number of targets:

    trace -> Loaded -> compile, run -> CaseResult -> bisect -> Bisection -> verify

Wrong usage raises `UsageError`, a fault of the machine or of what is installed `EnvironmentFault`
(`iree_pilot.pipeline.errors`); a program that fails is a result whose `failure` says how.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from iree_pilot.arguments import checked
from iree_pilot.pipeline import quantities
from iree_pilot.pipeline.case import Settings, Silent
from iree_pilot.pipeline.case import run as run_case
from iree_pilot.pipeline.case_result import CaseResult
from iree_pilot.pipeline.errors import UsageError
from iree_pilot.pipeline.frontends import outline
from iree_pilot.pipeline.frontends import source as sources
from iree_pilot.pipeline.frontends.job import Job, TraceFailed, operation
from iree_pilot.pipeline.frontends.load import Loaded, load
from iree_pilot.pipeline.frontends.source import Source
from iree_pilot.pipeline.processes import process
from iree_pilot.pipeline.program import archive
from iree_pilot.pipeline.program.program import Program, Tensor, scopes_text
from iree_pilot.pipeline.targets.targets import Plan, parse_list, plan
from iree_pilot.pipeline.toolchain import flags as compile_flags
from iree_pilot.pipeline.toolchain.context import Context
from iree_pilot.pipeline.toolchain.releases import find
from iree_pilot.pipeline.toolchain.toolchain import Toolchain
from iree_pilot.repro.trust import sources as code

if TYPE_CHECKING:
    import torch

    from iree_pilot.pipeline.numerics.numerics import Comparison
    from iree_pilot.repro.reproducer.known.found import Bisection
    from iree_pilot.repro.reproducer.verify import Verification
    from iree_pilot.repro.workarounds.applied import Applied

__all__ = ["TraceFailed", "bisect", "compare", "compile", "run", "trace", "verify"]

T = TypeVar("T")


@checked
def trace(
    source: str | Path | torch.nn.Module,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    dynamic_shapes: Any = None,
    settings: Mapping[str, str] | None = None,
    dtype: str | None = None,
    seed: int = 0,
    weights: Sequence[str | Path] = (),
    inputs: Sequence[str] = (),
    inline_parameters: bool = False,
    function: str = "",
    trust: bool = False,
    leave: Sequence[str] = (),
    seeded: bool = False,
    release: str | None = None,
    time_limit: float | None = None,
    memory_limit: int | None = None,
    fresh: bool = False,
) -> Loaded:
    """Makes a program of a source, or finds it in the cache.

    source: as on the command line (a model of the zoo, a file, `package.module:factory`), or a
    module, which torch.export exports here with `args`, `kwargs` and `dynamic_shapes`; its
    parameters and these inputs go along. settings, dtype: fields of a zoo model's preset. weights,
    inputs: as `--weights` and `--input` take them; none of these four is for a module. trust: a
    file may run code, whoever it comes from. leave: operations (`aten.diff`, or `all`) that PyTorch
    does not decompose though IREE cannot compile them. time_limit in seconds, memory_limit in
    bytes: of one step; 600 s and 90% of what is available.

    Raises TraceFailed, whose `failure` says why, for a source that does not trace.
    """
    context = Context(toolchain=find(release), limits=limits_of(time_limit, memory_limit))
    if isinstance(source, str | Path):
        if len(args) or kwargs or dynamic_shapes is not None:
            raise UsageError(
                f"{source} has example inputs of its own: args, kwargs and dynamic_shapes are for "
                "a torch.nn.Module",
                advice="Give other inputs as files: inputs=[...].",
            )
        job = job_of(
            sources.parse(str(source), dict(settings or {}), dtype),
            seed=seed,
            weights=tuple(map(str, weights)),
            inline=inline_parameters,
            function=function,
            trust=trust,
        )
    else:
        named = {"settings": settings, "dtype": dtype, "weights": weights, "inputs": inputs}
        for option in (name for name, value in named.items() if value):
            raise UsageError(
                f"trace: {option} is for a source by name, and {type(source).__name__} is a module",
                advice="Make the module as it is to be, and give its inputs as args and kwargs.",
            )
        import torch

        from iree_pilot.pipeline.frontends.pytorch import live

        if not isinstance(source, torch.nn.Module):
            raise UsageError(
                f"trace: {source!r:.80} is neither the name of a source nor a torch.nn.Module",
                advice="Give an instance of a module; put a function into the forward() of one.",
            )

        call = live.ExampleCall(tuple(args), kwargs or {}, dynamic_shapes)
        job = live.job_of(source, call, context.store, seed=seed, seeded=seeded)
        job, seeded = msgspec.structs.replace(job, inline=inline_parameters), False
    return program_of(
        traced_as(job, leave=tuple(leave), seeded=seeded),
        context,
        inputs=tuple(inputs),
        function=function,
        fresh=fresh,
    )


@checked
def compile(
    program: Loaded,
    target: str,
    *,
    flags: Sequence[str] = (),
    recipe: str | Path | None = None,
    to: str | None = None,
    release: str | None = None,
    time_limit: float | None = None,
    memory_limit: int | None = None,
    fresh: bool = False,
) -> CaseResult:
    """Compiles a program for a target, phase by phase; `output` of the result is the module.

    flags: for iree-compile, after the target's. recipe: a file of `iree-pilot bringup`, of which
    what it holds for the target is applied. to: the phase to stop after.
    """
    settings = Settings(flags=tuple(flags), to=to, fresh=fresh, run=False)
    context = Context(toolchain=find(release), limits=limits_of(time_limit, memory_limit))
    return _case(program, target, None, settings, context, recipe)


@checked
def run(
    program: Loaded,
    target: str,
    *,
    device: str | None = None,
    flags: Sequence[str] = (),
    recipe: str | Path | None = None,
    release: str | None = None,
    time_limit: float | None = None,
    memory_limit: int | None = None,
    fresh: bool = False,
) -> CaseResult:
    """Compiles a program for a target, runs it where there is a device, and compares.

    `status` of the result is `ok` (each output was compared, and agrees), `ran` (not compared:
    `why`), `compiled` (not run: `why`) or `failed` (`failure`). recipe: as for `compile`.
    """
    settings = Settings(flags=tuple(flags), fresh=fresh)
    context = Context(toolchain=find(release), limits=limits_of(time_limit, memory_limit))
    return _case(program, target, device, settings, context, recipe)


@checked
def compare(program: Loaded, outputs: Sequence[Any], *, function: str = "main") -> Comparison:
    """Judges outputs, wherever they were computed, as `run` judges those of a device.

    outputs: numpy arrays or tensors, in the order in which the function returns them. Raises
    UsageError for a function that the program has not, or that has no reference.
    """
    from iree_pilot.pipeline.case import with_unreturned
    from iree_pilot.pipeline.numerics import numerics

    known = {one.name: one for one in program.program.functions}
    if function not in known or known[function].reference is None:
        why = "has no reference" if function in known else "is not there"
        raise UsageError(
            f"{program.program.source}: nothing to compare with, function {function} {why}",
            advice=f"Its functions: {', '.join(known)}.",
        )
    with tempfile.TemporaryDirectory(prefix="iree-pilot-") as scratch:
        given = tuple(_saved(values, Path(scratch), index) for index, values in enumerate(outputs))
        call = program.call(known[function])
        comparison = numerics.compare(given, call, outputs_directory=Path(scratch))
    return with_unreturned(comparison, known[function])


@checked
def bisect(
    program: Loaded,
    result: CaseResult,
    directory: str | Path,
    *,
    device: str | None = None,
    flags: Sequence[str] | None = None,
    everything: bool = False,
    release: str | None = None,
    time_limit: float | None = None,
    memory_limit: int | None = None,
    fresh: bool = False,
) -> Bisection:
    """Isolates the failure of a result into a minimal reproducer, in the folder `directory`.

    device, flags, release: others than those that the result was made with. everything: all
    failures that keep the program from working, each masked in turn. Raises UsageError for a result
    that did not fail.
    """
    from iree_pilot.pipeline.execution import refitting
    from iree_pilot.repro import failed
    from iree_pilot.repro.options import Options
    from iree_pilot.repro.workarounds import by_itself

    if result.failure is None:
        raise UsageError(
            f"there is nothing to isolate: {result.target} is {result.status}",
            advice="Give the result of a run or a compile that failed.",
        )
    release, own = release or result.release, result.flags if flags is None else tuple(flags)
    context = Context(toolchain=find(release), limits=limits_of(time_limit, memory_limit))
    ((_, planned),) = plans_of(result.target, context.toolchain, device or result.device, own)
    options = Options(place=Path(directory), flags=own, everything=everything, fresh=fresh)

    program = by_itself.apply(program, planned, context)

    def isolate(loaded: Loaded) -> Bisection:
        return failed.isolate(loaded, result, planned, context, options)

    return refitting.settled(program, isolate, context)[1]


@checked
def verify(
    directory: str | Path, *, release: str | None = None, trust: bool = False
) -> Verification:
    """Runs each level of the reproducer in a folder, from a copy, and says whether it still fails.

    trust: code in the folder may be run, whoever wrote it.
    """
    from iree_pilot.repro.reproducer import verify as verification

    return verification.verify(Path(directory), release, trust=trust)


def limits_of(seconds: float | None, memory: float | None) -> process.Limits:
    """The limits of one step; None: 600 s, and 90% of the memory that is available now."""
    return process.Limits(
        seconds=quantities.DEFAULT_SECONDS if seconds is None else seconds,
        memory_bytes=int(memory or 0.9 * process.available_bytes()),
        default=seconds is None,
    )


def plans_of(
    targets: str, toolchain: Toolchain, device: str | None, flags: tuple[str, ...]
) -> list[tuple[str, Plan]]:
    """Plans of the targets on this machine.

    Raises UsageError, also for flags that the compiler does not have, before anything is traced.
    """
    parsed = parse_list(targets)
    if device and len(parsed) > 1:
        raise UsageError(
            f"--device {device} goes with one target, {targets} names {len(parsed)}",
            advice="Run the targets one by one.",
        )
    plans = [(t.spec, plan(t, toolchain, device, user_flags=flags)) for t in parsed]
    for _, one in plans:
        compile_flags.check(toolchain, one.flags, flags)
    return plans


def job_of(
    source: Source, *, seed: int, weights: tuple[str, ...], inline: bool, function: str, trust: bool
) -> Job:
    """The tracing job of a source, with its own example inputs.

    weights: PATH, or of MLIR SCOPE=PATH. Raises UsageError for what is known without running
    the source.
    """
    code.check(source, trust=trust)
    if source.kind == "pt2":
        source = msgspec.structs.replace(source, trusted=trust)
    outline.check_function(source, function)
    general, scoped = _weights(weights, scopes=source.kind == "mlir")
    for file in map(Path, (*general, *(path for _, path in scoped))):
        if not file.is_dir():
            archive.read(file)  # what cannot be read is refused before anything is traced
    return Job(
        source=source,
        seed=seed,
        weights=general,
        scoped=scoped,
        inline=inline,
        function=function if source.kind == "mlir" else "",
    )


def traced_as(job: Job, *, leave: tuple[str, ...], seeded: bool) -> Job:
    """The job without decompositions of these operations; raises UsageError where it has none."""
    if leave and job.source.kind in ("mlir", "onnx"):
        raise UsageError(
            f"{job.source.text}: nothing of it is decomposed by PyTorch",
            advice="Leave --no-decompose out: it is for PyTorch models.",
        )
    if seeded and job.source.kind in ("mlir", "onnx", "pt2"):
        raise UsageError(
            f"{job.source.text} is traced already: what it draws cannot become inputs",
            advice="Leave --seeded out: it is for PyTorch models.",
        )
    try:
        leave = tuple(map(operation, leave))
    except ValueError as fault:
        raise UsageError(
            f"leave: {fault}", advice="Name operations as in `aten.diff`, or give `all`."
        ) from fault
    return msgspec.structs.replace(job, leave=leave, seeded=seeded)


def program_of(
    job: Job,
    context: Context,
    *,
    inputs: tuple[str, ...] = (),
    function: str = "",
    fresh: bool = False,
    on_wait: Callable[[], None] | None = None,
) -> Loaded:
    """Traces or imports a source, or finds its program in the store. Raises TraceFailed.

    inputs: the user's, as `--input` takes them. function: the only one that is wanted.
    """
    from iree_pilot.pipeline.frontends.inputs import examples, fitting

    outline.check_source(job.source, given=bool(inputs))
    # Of inputs that are the examples too, a type says what shape to make one of.
    seed = job.seed if job.source.kind in ("library", "module") else None
    with tempfile.TemporaryDirectory(prefix="iree-pilot-") as scratch:
        if inputs:
            job = msgspec.structs.replace(
                job, inputs=examples.from_files(inputs, Path(scratch), seed)
            )
        loaded = load(job, context, fresh=fresh, on_wait=on_wait)
    mlir = job.source.kind == "mlir"
    if mlir and (job.weights or job.scoped):
        _check_scopes(loaded.program, job.scoped)
    if function and not mlir:
        only = fitting.named(loaded.program.functions, function, job.source.text)
        program = msgspec.structs.replace(loaded.program, functions=(only,))
        loaded = msgspec.structs.replace(loaded, program=program)
    return loaded


def _case(
    program: Loaded,
    target: str,
    device: str | None,
    settings: Settings,
    context: Context,
    recipe: str | Path | None,
) -> CaseResult:
    from iree_pilot.pipeline.execution import refitting
    from iree_pilot.repro.workarounds import by_itself
    from iree_pilot.repro.workarounds.applied import Applied

    (named, planned), *others = plans_of(target, context.toolchain, device, settings.flags)
    if others:
        raise UsageError(f"{target}: one target at a time", advice=f"For example: {named}")

    program = by_itself.apply(program, planned, context)
    made = Applied(loaded=program, plan=planned, flags=settings.flags)
    if recipe is not None:
        made = _applied(Path(recipe), made, device, context)
    settings = msgspec.structs.replace(settings, flags=made.flags)

    def attempt(loaded: Loaded) -> CaseResult:
        return run_case(loaded, made.plan, context, settings, Silent())

    return refitting.settled(made.loaded, attempt, context)[1]


def _applied(recipe: Path, given: Applied, device: str | None, context: Context) -> Applied:
    """A case with what a recipe holds for its target.

    Raises UsageError for what has to be said when the program is traced.
    """
    from iree_pilot.repro.bringup import applying
    from iree_pilot.repro.bringup import recipe as recipes
    from iree_pilot.repro.workarounds.applied import Unchanged

    found = recipes.read(recipe)
    steps = found.of(given.plan.target.backend)
    fields = found.settings | {k: v for one in steps for k, v in one.fields.items()}
    source = given.loaded.program.source
    if fields or any(one.inline is not None for one in steps):
        said = ", ".join(f"{k}={v}" for k, v in fields.items()) or "where the weights are"
        raise UsageError(
            f"{recipe} changes how {source} is traced ({said}), and it is traced already",
            advice="Trace it so, without the recipe; or use `iree-pilot run`, which does both.",
        )
    subject = Unchanged(
        loaded=given.loaded,
        job=Job(source=sources.Source(text=source, kind="mlir")),
        settings={},
        plan=given.plan,
        flags=given.flags,
        device=device,
    )
    return applying.apply(steps, subject, context)


def _saved(values: Any, directory: Path, index: int) -> Tensor:
    """An output in a file of the directory; raises UsageError for what is no array of numbers."""
    import numpy as np

    from iree_pilot.pipeline.program import tensors
    from iree_pilot.pipeline.program.program import NUMPY_ELEMENT_TYPES

    if hasattr(values, "detach"):
        from iree_pilot.pipeline.program import torch_tensors

        return torch_tensors.save(values, directory, f"{index}.bin")
    masked = isinstance(values, np.ma.MaskedArray)
    array = None if masked or values is None else np.asarray(values, order="C")
    if array is None or array.dtype.name not in NUMPY_ELEMENT_TYPES:
        what = type(values).__name__ if array is None else f"an array of {array.dtype.name}"
        raise UsageError(
            f"compare: output {index} is {what}, which is no array of numbers",
            advice="Give numpy arrays or tensors, one for each output.",
        )
    return tensors.save(array, directory, f"{index}.bin")


def _check_scopes(program: Program, scoped: tuple[tuple[str, str], ...]) -> None:
    """Raises UsageError for weights that the program has no use for."""
    scopes = program.parameters.by_scope if program.parameters else {}
    unknown = next((scope for scope, _ in scoped if scope not in scopes), None)
    if not scopes or unknown is not None:
        what = "parameters" if unknown is None else f"parameters of scope {scopes_text([unknown])}"
        raise UsageError(
            f"{program.source} loads no {what}, but weights are given",
            advice=f"Its scopes: {scopes_text(scopes)}." if scopes else "Leave --weights out.",
        )


def _weights(
    given: tuple[str, ...], *, scopes: bool
) -> tuple[tuple[str, ...], tuple[tuple[str, str], ...]]:
    """(paths for any scope, paths for one as (scope, path))."""
    general: list[str] = []
    scoped: list[tuple[str, str]] = []
    for word in given:
        scope, equals, path = word.partition("=")
        if not equals or Path(word).exists():
            general.append(word)
        elif scopes:
            scoped.append((scope, path))
        else:
            raise UsageError(
                f"--weights {word}: only MLIR has scopes of parameters",
                advice=f"Give the path alone: --weights {path}",
            )
    return tuple(general), tuple(scoped)
