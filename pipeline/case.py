"""One case: a program on a target with a toolchain and flags; its steps in order, one record."""

from __future__ import annotations

import contextlib
import hashlib
import html
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Literal, Protocol

import msgspec

from iree_pilot.pipeline.execution import border, generation, refitting, runtime
from iree_pilot.pipeline.execution.generation import Generation, Wanted
from iree_pilot.pipeline.execution.runtime import Latency
from iree_pilot.pipeline.failures.diagnostics import Failure
from iree_pilot.pipeline.frontends.load import Loaded
from iree_pilot.pipeline.inspect import amdgpu, spirv
from iree_pilot.pipeline.inspect.amdgpu import Kernel
from iree_pilot.pipeline.inspect.executables import Compiling
from iree_pilot.pipeline.inspect.spirv import Checked
from iree_pilot.pipeline.numerics import demoted, numerics
from iree_pilot.pipeline.numerics.numerics import Comparison
from iree_pilot.pipeline.processes import process
from iree_pilot.pipeline.program.program import Function, Parameters, Program, Tensor, scopes_text
from iree_pilot.pipeline.store.store import Store
from iree_pilot.pipeline.targets import targets
from iree_pilot.pipeline.targets.targets import BACKENDS, Device, Plan
from iree_pilot.pipeline.toolchain import compiler
from iree_pilot.pipeline.toolchain.compiler import Compile, CompileResult, Dispatches, Listener
from iree_pilot.pipeline.toolchain.phases import Phase
from iree_pilot.pipeline.toolchain.toolchain import Toolchain

COMPILE_KIND = "compile"
_RESULT = "result.json"
#: What a function returned, beside its files.
_OUTPUTS = "outputs.json"
#: What runs a program in threads of its own, and what in the caller's: nothing is to be waited for.
_TASK, _SYNC = "local-task", "local-sync"
_SIGNALS = (
    "it signals a fence when it is done, and iree-run-module, which is given none, does not wait: "
    "what it returns may be read too early"
)

#: Why a case failed whose compile did.
DOES_NOT_COMPILE = "does not compile"

StepName = Literal["trace", "compile", "load", "run", "compare", "generate"]
#: ok: each output was compared, and agrees. ran: something of it could not be compared. compiled:
#: it was not run.
Status = Literal["ok", "ran", "compiled", "failed"]
_SILENT_ON: dict[str, tuple[str, ...]] = {
    "ran": ("compare", "generate"),
    "compiled": ("load", "run", "compare", "generate"),
}
Alone = Callable[[Device], contextlib.AbstractContextManager[object]]


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One step of a case. cached: taken from the store; seconds is then what finding it took.

    status: `compiled` of a step that did not come to be, as the module is not run; `ran` of a
    comparison that is not whole, or not at all. `why` says why.
    """

    name: StepName
    status: Status
    seconds: float = 0.0
    cached: bool = False
    why: str = ""


class Against(msgspec.Struct, frozen=True, kw_only=True):
    """The results compared with those of another target of the same run."""

    target: str
    comparison: Comparison


class FunctionResult(msgspec.Struct, frozen=True, kw_only=True):
    """What running one function gave. commands: to run and to time it again.

    against: other targets of the same run, where there is no reference
    (`pipeline.numerics.between`). unevaluated: why there is none. border: what was given and
    compared in other types than the program's, as the compiler changed them.
    """

    name: str
    commands: tuple[tuple[str, ...], ...]
    peak_bytes: int
    latency: Latency | None
    latency_note: str
    comparison: Comparison | None
    evaluator: str
    failure: Failure | None = None
    against: tuple[Against, ...] = ()
    unevaluated: str = ""
    border: str = ""


class CaseResult(msgspec.Struct, frozen=True, kw_only=True):
    """One case. `why`: what failed, or of `ran` and `compiled` what kept it from being judged.

    target: as the user named it; arch: what it was compiled for. messages: the file with what the
    compiler wrote to stderr, if it wrote anything.

    phases, dispatches, output, output_bytes, compile_seconds and peak_bytes: of the compile (when
    it was done, not when it was taken from the store); output is the module (or the IR
    with --to). kernels: those of a module for AMD GPUs. spirv: what spirv-val says of a module for
    Vulkan, where it is installed. comparison: of the function that is
    farthest from its reference. command: the compile, as it can be typed again; resume: the same
    from the last good phase, when that fails too (phase_confirmed). generation: by the functions
    chained, where that was wanted and each could be run. advice: what to do about the failure,
    where it is for want of an architecture.
    """

    target: str
    release: str
    device: str | None
    arch: str | None
    status: Status
    why: str
    steps: tuple[Step, ...]
    phases: tuple[Phase, ...] = ()
    comparison: Comparison | None = None
    failure: Failure | None = None
    command: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    device_name: str | None = None
    functions: tuple[FunctionResult, ...] = ()
    generation: Generation | None = None
    dispatches: Dispatches | None = None
    output: str | None = None
    output_bytes: int = 0
    messages: str | None = None
    compile_seconds: float = 0.0
    peak_bytes: int = 0
    phase_confirmed: bool | None = None
    resume: tuple[str, ...] | None = None
    advice: str = ""

    def _repr_html_(self) -> str:
        """A table for notebooks: the verdict, and the failure or what each function gave."""
        rows = [("target", self.target), ("release", self.release), ("verdict", self.status)]
        if self.why:
            rows.append(("why", self.why))
        if self.failure is not None:
            failure = self.failure
            where = [("phase", failure.phase), ("operation", failure.op), ("at", failure.location)]
            rows += [(name, value) for name, value in where if value]
            rows.append(("message", failure.message))
        for one in self.functions:
            for output in one.comparison.outputs if one.comparison else ():
                error = f"relative L2 {output.rel_l2:.2e} (tolerance {output.tolerance:.1e})"
                rows.append(
                    (f"{one.name}, {output.name}", f"{output.verdict}: {output.why or error}")
                )
            if one.latency is not None:
                latency = f"{one.latency.median_seconds * 1e3:.3g} ms"
                rows.append((f"{one.name}, latency", latency))
        cells = "".join(
            f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>"
            for name, value in rows
        )
        return f"<table>{cells}</table>"

    kernels: tuple[Kernel, ...] = ()
    spirv: Checked | None = None


def tells(status: str, step: str | None) -> bool:
    """Whether a case of that status says something of a failure in `step` (or phase)."""
    return step not in _SILENT_ON.get(status, ())


class Watcher(Protocol):
    """Hears of a case while it goes on."""

    def planned(self, target: str, arch: str | None, warnings: tuple[str, ...]) -> None: ...
    def began(self, target: str, step: StepName) -> None: ...
    def phase(self, target: str, phase: Phase) -> None: ...
    def compiling(self, target: str, state: Compiling) -> None: ...
    def ended(self, target: str, step: Step) -> None: ...
    def waiting(self, target: str) -> None: ...


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What the user chose for all cases of a command.

    flags: for iree-compile, after the target's. to, resume: phases to stop after and to start
    from. fresh: compile whatever the store holds. run: also load, run and compare. generate: after
    that, chain the functions. confirm: compile a phase that fails once more, alone. keep: a
    directory for what the functions return, to be read by `kept`; "" keeps nothing. hasty: do not
    wait for a compile that does not end, see `Compile`.
    """

    flags: tuple[str, ...] = ()
    to: str | None = None
    resume: str | None = None
    limits: process.Limits = process.Limits()
    fresh: bool = False
    run: bool = True
    generate: Wanted | None = None
    latency_budget: float = runtime.LATENCY_BUDGET
    confirm: bool = True
    keep: str = ""
    hasty: bool = False


def run(
    target: str,
    loaded: Loaded,
    plan: Plan,
    toolchain: Toolchain,
    store: Store,
    settings: Settings,
    watcher: Watcher,
    alone: Alone = lambda device: contextlib.nullcontext(),
) -> CaseResult:
    """Compiles the program for a target, and runs and compares it where that is possible.

    target: the user's word for what `plan` plans. alone: holds a device while something runs on
    it. What fails is in the result. Raises UsageError and EnvironmentFault as the steps do.
    """
    watcher.planned(target, plan.target.arch, plan.warnings)
    trace = Step(name="trace", status="ok", seconds=loaded.seconds, cached=loaded.cached)
    watcher.began(target, "compile")
    begun = time.monotonic()
    compiled, directory, cached = _compile(
        target, loaded, plan, toolchain, store, settings, watcher
    )
    step = Step(
        name="compile",
        status="ok" if compiled.ok else "failed",
        seconds=time.monotonic() - begun,
        cached=cached,
        why="" if compiled.ok else DOES_NOT_COMPILE,
    )
    watcher.ended(target, step)
    result = CaseResult(
        target=target,
        release=toolchain.version,
        device=plan.device.uri if plan.device else None,
        arch=plan.target.arch,
        device_name=plan.device.name if plan.device else None,
        status="compiled" if compiled.ok else "failed",
        why="" if compiled.ok else DOES_NOT_COMPILE,
        steps=(trace, step),
        phases=compiled.phases,
        failure=compiled.failure,
        command=compiled.command,
        warnings=plan.warnings,
        dispatches=compiled.dispatches,
        output=str(directory / compiled.output) if compiled.output else None,
        output_bytes=compiled.output_bytes,
        messages=_messages(directory),
        compile_seconds=compiled.seconds,
        peak_bytes=compiled.peak_bytes,
        phase_confirmed=compiled.phase_confirmed,
        resume=_placed(compiled.resume_command, directory),
        kernels=_kernels(plan, directory, compiled),
        spirv=_spirv(plan, directory, compiled),
        advice=targets.advice(compiled.failure, plan.target, settings.flags, toolchain),
    )
    if not settings.run or not compiled.ok:
        return result
    why = _why_not_run(loaded, plan, toolchain, settings)
    if why:
        return _not_run(result, why)
    result = _run(result, loaded, plan, toolchain, store, settings, watcher, alone)
    ran = any(s.name == "run" and s.status == "ok" for s in result.steps)
    if settings.generate is None or not ran:
        return result
    return _generate(result, loaded, plan, toolchain, store, settings, watcher, alone)


def _not_run(result: CaseResult, why: str) -> CaseResult:
    return msgspec.structs.replace(
        result,
        why=f"compiled, not run: {why}",
        steps=(*result.steps, Step(name="run", status="compiled", why=why)),
    )


def _placed(command: tuple[str, ...] | None, directory: Path) -> tuple[str, ...] | None:
    """A resuming command with its input where it was kept."""
    if command is None or not directory.name:
        return None
    return (command[0], str(directory / command[1]), *command[2:])


def _kernels(plan: Plan, directory: Path, compiled: CompileResult) -> tuple[Kernel, ...]:
    if compiled.output is None or BACKENDS[plan.target.backend].code != "amdgpu":
        return ()
    return amdgpu.kernels(directory / compiled.output)


def _spirv(plan: Plan, directory: Path, compiled: CompileResult) -> Checked | None:
    if compiled.output != compiler.MODULE or BACKENDS[plan.target.backend].code != "spirv":
        return None
    return spirv.check(directory / compiled.output)


def _messages(directory: Path) -> str | None:
    file = directory / compiler.STDERR
    kept = directory.name and file.is_file() and file.stat().st_size
    return str(file) if kept else None


def _why_not_run(loaded: Loaded, plan: Plan, toolchain: Toolchain, settings: Settings) -> str:
    program = loaded.program
    if settings.to not in (None, "end"):
        return f"compiled up to {settings.to} only"
    if not program.functions:
        return _no_function(program)
    if program.parameters is not None and program.parameters.missing:
        return _no_weights(program.parameters)
    if all(f.example is None for f in program.functions):
        unfed = ", ".join(f.name for f in program.functions)
        return f"no example inputs for {unfed} (--input gives them)"
    if plan.device is None:
        return plan.why_not_run
    # A module needs the runtime of its compiler's release, which not every release has.
    return "" if toolchain.runtime else f"there is no IREE runtime of release {toolchain.version}"


def _no_function(program: Program) -> str:
    if not program.others:
        return "the program has no public function that can be called"
    return "; ".join(f"{name}: {why}" for name, why in program.others.items())


def _no_weights(parameters: Parameters) -> str:
    if len(parameters.by_scope) == 1:
        return "no weights (only their names are known; --weights gives an archive)"
    missing = parameters.missing
    return (
        f"no weights for scope {scopes_text(missing)} "
        f"(--weights {missing[0]}=FILE gives an archive)"
    )


#: The modules that make a `CompileResult` of what the compiler wrote.
_READERS = (
    "failures/*.py",
    "inspect/executables.py",
    "toolchain/compiler.py",
    "toolchain/phases.py",
)
#: Failures that may be gone the next time, on the same input.
PASSING = ("timeout", "out-of-memory", "tool-missing")


class _NotKept(Exception):
    """Carries a result that is not worth keeping: it depends on more than its key."""

    def __init__(self, result: CompileResult) -> None:
        super().__init__()
        self.result = result


def _compile(
    target: str,
    loaded: Loaded,
    plan: Plan,
    toolchain: Toolchain,
    store: Store,
    settings: Settings,
    watcher: Watcher,
) -> tuple[CompileResult, Path, bool]:
    """(result, directory of its files, whether the store had it)."""
    job = Compile(
        mlir=loaded.mlir,
        flags=(*plan.flags, *settings.flags),
        to=settings.to,
        resume=settings.resume,
        hasty=settings.hasty,
    )
    compiler.check_phases(toolchain, resume=job.resume, to=job.to)
    compiler.check_flags(job.flags, phases=not settings.run)
    anew = settings.fresh or compiler.writes_elsewhere(settings.flags)
    key = Store.key(
        loaded.program.digest,
        str(job.mlir),
        job.flags,
        job.to,
        job.resume,
        toolchain.version,
        toolchain.revision,
        str(toolchain.compiler),
        files_named(job.flags),
        _host(job.flags, plan),
        _own_code(),
        settings.confirm,
        *([time.time_ns()] if anew else []),
    )
    built = False

    def make(directory: Path) -> None:
        nonlocal built
        built = True
        result = compiler.compile(
            job,
            toolchain,
            directory,
            limits=settings.limits,
            listener=Listener(
                phase=partial(watcher.phase, target), compiling=partial(watcher.compiling, target)
            ),
            confirm=settings.confirm,
        )
        (directory / _RESULT).write_bytes(msgspec.json.encode(result))
        if result.failure is not None and result.failure.kind in PASSING:
            raise _NotKept(result)

    try:
        directory = store.obtain(COMPILE_KIND, key, make, on_wait=lambda: watcher.waiting(target))
    except _NotKept as unkept:
        return unkept.result, Path(), False
    result = msgspec.json.decode((directory / _RESULT).read_bytes(), type=CompileResult)
    if not built:
        for phase in result.phases:
            watcher.phase(target, phase)
    return result, directory, not built


def files_named(flags: tuple[str, ...]) -> list[tuple[str, int, int]]:
    """(path, size, time of change) of the files that flags name: the compiler reads them."""
    named = [Path(part) for flag in flags for part in flag.split("=")[1:]]
    found = [(path.absolute(), path.stat()) for path in named if path.is_file()]
    return [(str(path), stat.st_size, stat.st_mtime_ns) for path, stat in found]


def _host(flags: tuple[str, ...], plan: Plan) -> str:
    """The processor, where the code is made for the one at hand: a cache may be shared by hosts."""
    made_for_it = any(flag.endswith("=host") for flag in flags)
    return plan.device.fingerprint if made_for_it and plan.device else ""


def _own_code() -> str:
    """A digest of the code that reads what the compiler wrote: it may learn to read more."""
    hashed = hashlib.sha256()
    for file in sorted(f for pattern in _READERS for f in Path(__file__).parent.glob(pattern)):
        hashed.update(file.read_bytes())
    return hashed.hexdigest()


def _run(
    result: CaseResult,
    loaded: Loaded,
    plan: Plan,
    toolchain: Toolchain,
    store: Store,
    settings: Settings,
    watcher: Watcher,
    alone: Alone,
) -> CaseResult:
    assert plan.device is not None and result.output is not None
    functions: list[FunctionResult] = []
    load_seconds = run_seconds = compare_seconds = 0.0
    failed: StepName | None = None
    for function in loaded.program.functions:
        if function.example is None:
            continue
        refitting.refuse(loaded.program.source, function)
        watcher.began(result.target, "run")
        module, directory = Path(result.output), Path(loaded.directory)
        compiled = border.of_module(module, function)
        changed = compiled is not function
        job = runtime.Run(
            program=loaded.program,
            directory=directory,
            function=function,
            module=module,
            changed=border.stored(function, compiled, directory, store) if changed else None,
            device=_SYNC if function.signals and plan.device.uri == _TASK else plan.device.uri,
        )
        waited = job.device == _SYNC or not function.signals
        with _workdir(settings.keep, function.name) as workdir:
            with alone(plan.device):
                ran = runtime.run(
                    job,
                    toolchain,
                    workdir,
                    limits=settings.limits,
                    latency_budget=settings.latency_budget,
                )
            if ran.failure is not None:
                if why := border.uncallable(ran.failure, settings.flags):
                    return _not_run(result, why)
                dumps = Path(result.output).parent / compiler.PHASES
                refitting.check(job, ran.failure, toolchain, dumps, settings.limits)
            load_seconds += ran.load_seconds
            run_seconds += ran.run_seconds
            comparison, failure = None, ran.failure
            failed = failed or ran.failed_step
            if settings.keep and ran.ok:
                (workdir / _OUTPUTS).write_bytes(msgspec.json.encode(ran.outputs))
            if ran.ok and function.reference is not None and waited:
                begun = time.monotonic()
                comparison = numerics.compare(
                    ran.outputs,
                    loaded.program,
                    function,
                    directory=Path(loaded.directory),
                    outputs_directory=workdir,
                )
                if comparison.differs and ran.changed is not None:
                    comparison = demoted.judged(
                        comparison, ran, job, toolchain, workdir, settings.limits
                    )
                failure = numerics.to_failure(comparison) if comparison.differs else None
                compare_seconds += time.monotonic() - begun
                failed = failed or ("compare" if comparison.differs else None)
        if failure is not None and len(loaded.program.functions) > 1:
            failure = msgspec.structs.replace(
                failure, message=f"{function.name}: {failure.message}"
            )
        functions.append(_function(function, ran, comparison, failure))
    left = "" if failed else "; ".join(_left(functions, loaded.program))
    steps = tuple(_steps(left, failed, load_seconds, run_seconds, compare_seconds))
    for step in steps:
        watcher.ended(result.target, step)
    first = next((f.failure for f in functions if f.failure), None)
    compared = [f.comparison for f in functions if f.comparison]
    return msgspec.structs.replace(
        result,
        status="failed" if first else "ran" if left else "ok",
        why=_why(failed) if failed else f"ran, not compared: {left}" if left else "",
        steps=(*result.steps, *steps),
        functions=tuple(functions),
        failure=first,
        comparison=max(compared, key=lambda c: (c.differs, not c.ok, c.rel_l2), default=None),
    )


@contextlib.contextmanager
def _workdir(keep: str, function: str) -> Iterator[Path]:
    """Where a function is run: in `keep`, else in a directory that is gone afterwards."""
    if keep:
        place = Path(keep) / function
        place.mkdir(parents=True)
        yield place
        return
    with tempfile.TemporaryDirectory(prefix="iree-pilot-") as scratch:
        yield Path(scratch)


def kept(keep: Path, function: str) -> tuple[Tensor, ...] | None:
    """What a function returned that was run with `Settings.keep`; None where it did not."""
    place = keep / function
    if not (place / _OUTPUTS).is_file():
        return None
    outputs = msgspec.json.decode((place / _OUTPUTS).read_bytes(), type=tuple[Tensor, ...])
    return tuple(msgspec.structs.replace(o, file=str(place / o.file)) for o in outputs)


def _generate(
    result: CaseResult,
    loaded: Loaded,
    plan: Plan,
    toolchain: Toolchain,
    store: Store,
    settings: Settings,
    watcher: Watcher,
    alone: Alone,
) -> CaseResult:
    assert plan.device is not None and result.output is not None and settings.generate is not None
    watcher.began(result.target, "generate")
    begun = time.monotonic()
    generated = generation.run(
        settings.generate,
        loaded,
        Path(result.output),
        plan.device.uri,
        toolchain,
        store,
        settings.limits,
        alone(plan.device),
    )
    left = generated.not_compared
    step = Step(
        name="generate",
        status="failed" if generated.failure else "ran" if left else "ok",
        seconds=time.monotonic() - begun,
        why=left,
    )
    watcher.ended(result.target, step)
    result = msgspec.structs.replace(result, steps=(*result.steps, step), generation=generated)
    if result.failure:
        return result
    if not generated.failure:
        if not left or result.status != "ok":
            return result
        return msgspec.structs.replace(
            result, status="ran", why=f"ran, not compared: generated tokens: {left}"
        )
    differs = generated.failure.kind == "mismatch"
    return msgspec.structs.replace(
        result,
        status="failed",
        why="generates, but differs from the reference" if differs else "does not generate",
        failure=generated.failure,
    )


def _function(
    function: Function,
    ran: runtime.RunResult,
    comparison: Comparison | None,
    failure: Failure | None,
) -> FunctionResult:
    return FunctionResult(
        name=function.name,
        # Outputs went to files that are gone; typed again, the tools print them.
        commands=tuple(
            tuple(a for a in command if not a.startswith("--output=")) for command in ran.commands
        ),
        peak_bytes=ran.peak_bytes,
        latency=ran.latency,
        latency_note=ran.latency_note,
        comparison=comparison,
        evaluator=function.reference.evaluator if function.reference else "",
        failure=failure,
        unevaluated="" if comparison else _SIGNALS if function.signals else function.unevaluated,
        border=border.told(function, ran.changed) if ran.changed else "",
    )


def _steps(
    left: str,
    failed: StepName | None,
    load_seconds: float,
    run_seconds: float,
    compare_seconds: float,
) -> Iterator[Step]:
    order: tuple[tuple[StepName, float], ...] = (
        ("load", load_seconds),
        ("run", run_seconds),
        ("compare", compare_seconds),
    )
    for name, seconds in order:
        if name == failed:
            yield Step(name=name, status="failed", seconds=seconds)
            return
        if name == "compare" and left:
            yield Step(name=name, status="ran", seconds=seconds, why=left)
        else:
            yield Step(name=name, status="ok", seconds=seconds)


def _why(failed: StepName) -> str:
    return {
        "load": "does not load",
        "run": "does not run",
        "compare": "runs, but differs from the reference",
    }.get(failed, failed)


def _left(functions: list[FunctionResult], program: Program) -> Iterator[str]:
    """What was not run or not compared, and why."""
    if why := _not_compared(functions):
        yield why
    for name, why in program.others.items():
        yield f"{name} is not run: {why}"
    for function in program.functions:
        if function.example is None:
            yield f"{function.name} is not run: it has no example inputs"


def _not_compared(functions: list[FunctionResult]) -> str:
    """Why not all of it was compared; empty where each output of each function was."""
    reasons: dict[str, list[str]] = {}
    for function in functions:
        compared = function.comparison
        if compared is None or not compared.ok:
            why = compared.why if compared else _no_reference(function)
            reasons.setdefault(why, []).append(function.name)
    if len(functions) == 1 or all(len(names) == len(functions) for names in reasons.values()):
        return next(iter(reasons), "")
    told = [f"{', '.join(names)}: {why}" for why, names in reasons.items()]
    right = [f.name for f in functions if f.comparison and f.comparison.ok]
    if right:
        told.append(f"{', '.join(right)} {'agree' if right[1:] else 'agrees'}")
    return "; ".join(told)


def _no_reference(function: FunctionResult) -> str:
    if function.unevaluated == _SIGNALS:
        return _SIGNALS
    said = "there is no reference to compare with"
    return f"{said}: {function.unevaluated}" if function.unevaluated else said


class Silent:
    """A watcher that does nothing with what it hears."""

    def planned(self, target: str, arch: str | None, warnings: tuple[str, ...]) -> None: ...
    def began(self, target: str, step: StepName) -> None: ...
    def phase(self, target: str, phase: Phase) -> None: ...
    def compiling(self, target: str, state: Compiling) -> None: ...
    def ended(self, target: str, step: Step) -> None: ...
    def waiting(self, target: str) -> None: ...
