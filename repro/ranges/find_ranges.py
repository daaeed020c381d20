"""Finds what leaves the range of its type: in PyTorch's own evaluation, and on a device."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from iree_pilot.pipeline.errors import UsageError
from iree_pilot.pipeline.execution import engine
from iree_pilot.pipeline.execution.engine import Iree, Values
from iree_pilot.pipeline.failures.diagnostics import Failure
from iree_pilot.pipeline.frontends.load import Loaded
from iree_pilot.pipeline.plural import count
from iree_pilot.pipeline.processes import process, task
from iree_pilot.pipeline.program.program import Function, Tensor, TensorType
from iree_pilot.pipeline.targets.targets import Plan
from iree_pilot.pipeline.toolchain.compiler import Compile
from iree_pilot.pipeline.toolchain.context import Context
from iree_pilot.pipeline.torch_dialect import evaluate
from iree_pilot.pipeline.torch_dialect.evaluate import Evaluation
from iree_pilot.repro.ranges import measure, watch
from iree_pilot.repro.ranges.measure import Counts, Scale
from iree_pilot.repro.ranges.watch import Key, Watched, Watching

INSTRUMENTED = (
    "on the device the intermediates are outputs of a copy of the program: what is fused, and so "
    "what is rounded, may differ from the program itself"
)
#: Operations that are not watched, of which so many are named.
_NAMED = 3
Tell = Callable[[str], None]


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """One intermediate that leaves the range of its type.

    op, result: the operation's position in the function's body, the number of its result; name: the
    operation's; location: its line in the program. largest, smallest: magnitudes of the numbers
    that were to be held, the second of those that are not 0, in double precision; limit, normal:
    the type's largest and smallest normal number. reference: in PyTorch's evaluation in the
    program's own dtypes; device: on the device, None where that was not asked. inherited: its
    infinities and NaN come of others, as its own numbers are in range. scale: None where none helps
    or is needed.
    """

    function: str
    op: int
    result: int
    name: str
    location: str
    dtype: str
    shape: tuple[int, ...]
    largest: float
    smallest: float
    limit: float
    normal: float
    reference: Counts
    device: Counts | None
    inherited: bool
    scale: Scale | None

    @property
    def worst(self) -> Counts:
        return self.reference if self.device is None else self.reference.plus(self.device)


class Ranges(msgspec.Struct, frozen=True, kw_only=True):
    """Result for a program. watched: number of intermediates of low precision.
    checked: how many of them PyTorch evaluated. unseen: how many operations of other dialects than
    torch compute in low precision, which nobody watches.

    program: its file. device: the name of that it was run on. notes: what could not be looked at,
    and why.
    """

    source: str
    program: str
    target: str | None
    device: str | None
    watched: int
    found: tuple[Reading, ...]
    notes: tuple[str, ...] = ()
    checked: int = 0
    unseen: int = 0


def find(
    loaded: Loaded,
    context: Context,
    plan: Plan | None = None,
    flags: tuple[str, ...] = (),
    *,
    on_progress: Tell = lambda what: None,
) -> Ranges:
    """Evaluates the program and, with a plan, runs it on that device.

    flags: of iree-compile, after the target's. Raises UsageError for a program whose intermediates
    cannot be known at all.
    """
    program = loaded.program
    if program.parameters is not None and program.parameters.missing:
        raise UsageError(
            f"{program.source} cannot be evaluated: only the names of its weights are known",
            advice="Give their values: --weights FILE.",
        )
    notes: list[str] = []
    with tempfile.TemporaryDirectory(prefix="iree-pilot-ranges-") as scratch:
        place = Path(scratch)
        watching = _watched(loaded, place, context.limits)
        watched = watching.functions
        if watching.unseen:
            notes.append(_unseen(watching.unseen))
        functions = [f for f in program.functions if watched.get(f.name) and f.example is not None]
        on_progress("evaluating with PyTorch")
        evaluations = _evaluated(loaded, functions, watched, place, context.limits)
        for name, found in evaluations.items():
            if found.reference is None:
                notes.append(f"{name} cannot be evaluated: {found.why}")
            elif found.reference.note:
                notes.append(f"{name}: {found.reference.note}")
        functions = [f for f in functions if evaluations[f.name].reference is not None]
        ran: dict[str, dict[Key, Tensor]] = {}
        if plan is not None and functions:
            on_progress("running a copy that returns its intermediates")
            each = [_Watching(f, watched[f.name], evaluations[f.name]) for f in functions]
            ran, why = _device(loaded, each, context.at(place), plan, flags)
            notes += why
        readings = [
            reading
            for function in functions
            for reading in _readings(
                loaded.mlir,
                function.name,
                watched[function.name],
                evaluations[function.name],
                ran.get(function.name),
                place,
            )
        ]
    return Ranges(
        source=program.source,
        program=str(loaded.mlir),
        target=plan.target.spec if plan else None,
        device=plan.device.name if plan and plan.device else None,
        watched=sum(map(len, watched.values())),
        found=tuple(readings),
        notes=tuple(notes),
        checked=sum(len(watched[f.name]) for f in functions),
        unseen=len(watching.unseen),
    )


def _unseen(names: Sequence[str]) -> str:
    """`only the torch dialect is watched: 2 operations (linalg.matmul) compute ...`."""
    once = [*dict.fromkeys(names)]
    shown = ", ".join([*once[:_NAMED], *["..."] * (len(once) > _NAMED)])
    compute = "computes" if len(names) == 1 else "compute"
    return (
        f"only the torch dialect is watched: {count(len(names), 'operation')} of others ({shown}) "
        f"{compute} in 8-bit or 16-bit floats, too"
    )


def _watched(loaded: Loaded, place: Path, limits: process.Limits | None) -> Watching:
    function = f"{watch.__name__}:watching"
    done = task.call(function, str(loaded.mlir), Watching, place, limits=limits)
    if done.reply is None:
        raise UsageError(
            f"the intermediates of {loaded.program.source} are not known: {done.why}",
            advice="The program has to be in the torch dialect, and of this release.",
        )
    return done.reply


def _evaluated(
    loaded: Loaded,
    functions: Sequence[Function],
    watched: Mapping[str, tuple[Watched, ...]],
    place: Path,
    limits: process.Limits | None,
) -> dict[str, Evaluation]:
    works = []
    for function in functions:
        keys = {key for w in watched[function.name] for key in ((w.op, w.result), w.truth)}
        own = place / function.name
        works.append(evaluate.work(loaded.call(function), own, values=tuple(sorted(keys))))
    found = evaluate.evaluate(works, limits=limits)
    return {f.name: one for f, one in zip(functions, found, strict=True)}


class _Watching(NamedTuple):
    """A function, what of it is watched, and what PyTorch computes there."""

    function: Function
    watched: tuple[Watched, ...]
    evaluation: Evaluation


def _device(
    loaded: Loaded, each: Sequence[_Watching], context: Context, plan: Plan, flags: tuple[str, ...]
) -> tuple[dict[str, dict[Key, Tensor]], list[str]]:
    """(each function's intermediates on the device, in files of the context's directory; why there
    are none)."""
    place = context.directory
    if plan.device is None:
        return {}, [f"not run: {plan.why_not_run}"]
    module = engine.compiled(Compile(mlir=place / watch.COPY, flags=(*plan.flags, *flags)), context)
    if isinstance(module, Failure):
        return {}, [f"the copy that returns its intermediates does not compile: {module.message}"]
    found: dict[str, dict[Key, Tensor]] = {}
    notes = [INSTRUMENTED]
    for function, watched, evaluation in each:
        values = {(v.op, v.result): v.own for v in evaluation.values}
        keys = [(w.op, w.result) for w in watched]
        given = evaluation.reference.outputs if evaluation.reference else ()
        outputs = (
            *(
                msgspec.structs.replace(t, shape=own.shape)
                for t, own in zip(function.outputs, given, strict=True)
            ),
            *(_typed(f"{op}.{result}", values[op, result]) for op, result in keys),
        )
        call = loaded.call(msgspec.structs.replace(function, outputs=outputs))
        ran = Iree(module, plan.device.uri, context).run(call, place / f"{function.name}.run")
        if isinstance(ran, Values):
            found[function.name] = dict(zip(keys, ran.outputs[len(given) :], strict=True))
        else:
            why = ran.message if isinstance(ran, Failure) else ran
            notes.append(f"{function.name} cannot be run so: {why}")
    return found, notes


def _typed(name: str, tensor: Tensor) -> TensorType:
    return TensorType(name=name, dtype=tensor.dtype, shape=tensor.shape)


def _readings(
    program: Path,
    function: str,
    watched: Sequence[Watched],
    evaluation: Evaluation,
    ran: Mapping[Key, Tensor] | None,
    place: Path,
) -> list[Reading]:
    """Readings of the values that leave their range."""
    values = {(v.op, v.result): v for v in evaluation.values}
    own = place / function
    lost: set[int] = set()
    readings = []
    for number, one in enumerate(watched):
        held, true = values[one.op, one.result].own, values[one.truth].precise
        if true is None or not math.prod(held.shape):
            continue
        reference = measure.counts(own / held.file, held, own / true.file, true)
        device = None
        if ran is not None:
            got = ran[one.op, one.result]
            device = measure.counts(Path(got.file), got, own / true.file, true)
        every = reference.plus(device) if device else reference
        if every.infinite or every.nan:
            lost.add(number)
        if not every.any:
            continue
        known, seen = measure.limits(one.dtype), measure.truth(own / true.file, true)
        readings.append(
            Reading(
                function=function,
                op=one.op,
                result=one.result,
                name=one.name,
                location=f"{program}:{one.line}",
                dtype=one.dtype,
                shape=held.shape,
                largest=seen.largest,
                smallest=seen.smallest,
                limit=known.largest,
                normal=known.normal,
                reference=reference,
                device=device,
                inherited=number in lost and seen.largest <= known.over and bool(lost & {*one.fed}),
                scale=measure.scale(own / true.file, true, one.dtype),
            )
        )
    return readings
