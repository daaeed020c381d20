"""One case: a program on a target with a toolchain and flags; its steps in order, one record."""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import msgspec

from iree_pilot.pipeline.case_result import (
    DOES_NOT_COMPILE,
    CaseResult,
    FunctionResult,
    Step,
    StepName,
    Work,
)
from iree_pilot.pipeline.execution import border, generation, refitting, runtime
from iree_pilot.pipeline.execution.engine import Iree
from iree_pilot.pipeline.execution.generation import Wanted
from iree_pilot.pipeline.failures.diagnostics import Failure
from iree_pilot.pipeline.frontends.load import Loaded
from iree_pilot.pipeline.inspect import amdgpu, spirv
from iree_pilot.pipeline.inspect.amdgpu import Kernel
from iree_pilot.pipeline.inspect.executables import Compiling
from iree_pilot.pipeline.inspect.spirv import Checked
from iree_pilot.pipeline.numerics import demoted, numerics
from iree_pilot.pipeline.numerics.numerics import Comparison
from iree_pilot.pipeline.program.program import (
    Decomposed,
    Function,
    Parameters,
    Program,
    Tensor,
    scopes_text,
)
from iree_pilot.pipeline.store.store import Store
from iree_pilot.pipeline.targets import targets
from iree_pilot.pipeline.targets.targets import BACKENDS, Device, Plan
from iree_pilot.pipeline.toolchain import compiler
from iree_pilot.pipeline.toolchain.compiler import Compile, CompileResult, Listener
from iree_pilot.pipeline.toolchain.context import Context
from iree_pilot.pipeline.toolchain.phases import Phase

COMPILE_KIND = "compile"
_RESULT = "result.json"
#: Description of a function's outputs, beside their files.
_OUTPUTS = "outputs.json"
#: CPU devices that run a program in threads of their own, and synchronously in the caller's.
_TASK, _SYNC = "local-task", "local-sync"
#: The steps of running a module, in order.
_RUNNING: tuple[StepName, ...] = ("load", "run", "compare")
_SIGNALS = (
    "it signals a fence when it is done, and iree-run-module, which is given none, does not wait: "
    "what it returns may be read too early"
)

Alone = Callable[[Device], contextlib.AbstractContextManager[object]]


class CaseWatcher(Protocol):
    """Receives the progress of a case."""

    def planned(
        self, target: str, arch: str | None, warnings: tuple[str, ...], notes: tuple[str, ...]
    ) -> None: ...
    def began(self, target: str, work: Work) -> None: ...
    def phase(self, target: str, phase: Phase) -> None: ...
    def compiling(self, target: str, state: Compiling) -> None: ...
    def ended(self, target: str, step: Step) -> None: ...
    def waiting(self, target: str) -> None: ...


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The user's settings for all cases of a command.

    flags: for iree-compile, after the target's. to, resume: phases to stop after and to start
    from. fresh: compile whatever the store holds. run: also load, run and compare. generate: after
    that, chain the functions. confirm: compile a phase that fails once more, alone. keep: a
    directory for what the functions return, to be read by `kept`; "" keeps nothing. hasty: do not
    wait for a compile that does not end, see `Compile`.
    """

    flags: tuple[str, ...] = ()
    to: str | None = None
    resume: str | None = None
    fresh: bool = False
    run: bool = True
    generate: Wanted | None = None
    latency_budget: float = runtime.LATENCY_BUDGET
    confirm: bool = True
    keep: str = ""
    hasty: bool = False


def run(
    loaded: Loaded,
    plan: Plan,
    context: Context,
    settings: Settings,
    watcher: CaseWatcher,
    alone: Alone = lambda device: contextlib.nullcontext(),
) -> CaseResult:
    """Compiles the program for a target, and runs and compares it where that is possible.

    alone: holds a device while something runs on it. What fails is in the result. Raises
    UsageError and EnvironmentFault as the steps do.
    """
    return _Case(loaded, plan, context, settings, watcher, alone).result()


@dataclass(frozen=True)
class _Case:
    """One case, step by step."""

    loaded: Loaded
    plan: Plan
    context: Context
    settings: Settings
    watcher: CaseWatcher
    alone: Alone

    @property
    def target(self) -> str:
        """The target as the user named it."""
        return self.plan.name

    @property
    def decomposed(self) -> tuple[Decomposed, ...]:
        """What was decomposed for this target."""
        return tuple(one for one in self.loaded.program.decomposed if one.target)

    def result(self) -> CaseResult:
        notes = tuple(one.note for one in self.decomposed)
        self.watcher.planned(self.target, self.plan.target.arch, self.plan.warnings, notes)
        result = self.compiled()
        if not self.settings.run or result.failure is not None:
            return result
        if why := self.why_not_run():
            return _not_run(result, why)
        result = self.ran(result)
        ran = any(s.name == "run" and s.status == "ok" for s in result.steps)
        return self.generated(result) if ran and self.settings.generate is not None else result

    def compiled(self) -> CaseResult:
        """The case after its compile."""
        loaded, plan = self.loaded, self.plan
        trace = Step(name="trace", status="ok", seconds=loaded.seconds, cached=loaded.cached)
        self.watcher.began(self.target, "compile")
        started = time.monotonic()
        compiled, directory, cached = self.compile()
        step = Step(
            name="compile",
            status="ok" if compiled.ok else "failed",
            seconds=time.monotonic() - started if cached else compiled.seconds,
            cached=cached,
            why="" if compiled.ok else DOES_NOT_COMPILE,
        )
        self.watcher.ended(self.target, step)
        return CaseResult(
            target=self.target,
            release=self.context.toolchain.version,
            device=plan.device.uri if plan.device else None,
            arch=plan.target.arch,
            device_name=plan.device.name if plan.device else None,
            status="compiled" if compiled.ok else "failed",
            why="" if compiled.ok else DOES_NOT_COMPILE,
            steps=(trace, step),
            phases=compiled.phases,
            failure=compiled.failure,
            command=compiled.command,
            flags=self.settings.flags,
            warnings=plan.warnings,
            decomposed=self.decomposed,
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
            advice=targets.advice(
                compiled.failure, plan.target, self.settings.flags, self.context.toolchain
            ),
        )

    def why_not_run(self) -> str:
        """Reason that it is only compiled; empty if it can be run."""
        program = self.loaded.program
        if self.settings.to not in (None, "end"):
            return f"compiled up to {self.settings.to} only"
        if not program.functions:
            return _no_function(program)
        if program.parameters is not None and program.parameters.missing:
            return _no_weights(program.parameters)
        if all(f.example is None for f in program.functions):
            unfed = ", ".join(f.name for f in program.functions)
            return f"no example inputs for {unfed} (--input gives them)"
        if self.plan.device is None:
            return self.plan.why_not_run
        # A module needs the runtime of its compiler's release, which not every release has.
        toolchain = self.context.toolchain
        missing = f"there is no IREE runtime of release {toolchain.version}"
        return "" if toolchain.runtime else missing

    def compile(self) -> tuple[CompileResult, Path, bool]:
        """(result, directory of its files, whether the store had it)."""
        settings, toolchain = self.settings, self.context.toolchain
        job = Compile(
            mlir=self.loaded.mlir,
            flags=(*self.plan.flags, *settings.flags),
            to=settings.to,
            resume=settings.resume,
            hasty=settings.hasty,
        )
        compiler.check_phases(toolchain, resume=job.resume, to=job.to)
        compiler.check_flags(job.flags, phases=not settings.run)
        anew = settings.fresh or compiler.writes_elsewhere(settings.flags)
        key = Store.key(
            self.loaded.program.digest,
            str(job.mlir),
            job.flags,
            job.to,
            job.resume,
            toolchain.version,
            toolchain.revision,
            str(toolchain.compiler),
            files_named(job.flags),
            _host(job.flags, self.plan),
            _own_code(),
            settings.confirm,
            *([time.time_ns()] if anew else []),
        )
        built = False
        listener = Listener(
            phase=partial(self.watcher.phase, self.target),
            compiling=partial(self.watcher.compiling, self.target),
            confirming=partial(self.watcher.began, self.target, "confirm"),
        )

        def make(directory: Path) -> None:
            nonlocal built
            built = True
            context = self.context.at(directory)
            result = compiler.compile(job, context, listener=listener, confirm=settings.confirm)
            (directory / _RESULT).write_bytes(msgspec.json.encode(result))
            if result.failure is not None and result.failure.passing:
                raise _NotKept(result)

        on_wait = partial(self.watcher.waiting, self.target)
        try:
            directory = self.context.store.obtain(COMPILE_KIND, key, make, on_wait=on_wait)
        except _NotKept as unkept:
            return unkept.result, Path(), False
        result = msgspec.json.decode((directory / _RESULT).read_bytes(), type=CompileResult)
        if not built:
            for phase in result.phases:
                self.watcher.phase(self.target, phase)
        return result, directory, not built

    def ran(self, result: CaseResult) -> CaseResult:
        """The case after its functions were loaded, run and compared."""
        program = self.loaded.program
        functions: list[FunctionResult] = []
        took = dict.fromkeys(_RUNNING, 0.0)
        failed: StepName | None = None
        for function in program.functions:
            if function.example is None:
                continue
            refitting.refuse(program.source, function)
            self.watcher.began(self.target, "run")
            with _workdir(self.settings.keep, function.name) as workdir:
                job, ran = self.run_function(function, result, self.context.at(workdir))
                if ran.failure and (why := border.uncallable(ran.failure, self.settings.flags)):
                    return _not_run(result, why)
                if ran.failure is not None:
                    dumps = Path(result.output or "").parent / compiler.PHASES
                    by = Iree(job.module, job.device, self.context)
                    refitting.check(job, ran.failure, self.context, by=by, phases=dumps)
                self.watcher.began(self.target, "compare")
                started = time.monotonic()
                comparison = self.compared(job, ran, self.context.at(workdir))
            took["load"] += ran.load_seconds
            took["run"] += ran.run_seconds
            took["compare"] += time.monotonic() - started if comparison else 0.0
            differs = comparison is not None and comparison.differs
            failed = failed or ran.failed_step or ("compare" if differs else None)
            failure = ran.failure
            if comparison is not None and comparison.differs:
                failure = numerics.to_failure(comparison)
            if failure is not None and len(program.functions) > 1:
                message = f"{function.name}: {failure.message}"
                failure = msgspec.structs.replace(failure, message=message)
            functions.append(_function(function, ran, comparison, failure))
        left = "" if failed else "; ".join(_left(functions, program))
        steps = tuple(_steps(left, failed, took))
        for step in steps:
            self.watcher.ended(self.target, step)
        first = next((f.failure for f in functions if f.failure), None)
        compared = [f.comparison for f in functions if f.comparison]
        return msgspec.structs.replace(
            result,
            status="failed" if first else "ran" if left else "ok",
            why=_why(failed, first) if failed else f"ran, not compared: {left}" if left else "",
            steps=(*result.steps, *steps),
            functions=tuple(functions),
            failure=first,
            comparison=max(compared, key=lambda c: (c.differs, not c.ok, c.rel_l2), default=None),
        )

    def run_function(
        self, function: Function, result: CaseResult, context: Context
    ) -> tuple[runtime.Run, runtime.RunResult]:
        """Runs one function of the module; its files go to the context's directory."""
        assert self.plan.device is not None and result.output is not None
        module, directory = Path(result.output), Path(self.loaded.directory)
        uri = self.plan.device.uri
        compiled = border.of_module(module, function)
        changed = compiled is not function
        job = runtime.Run(
            program=self.loaded.program,
            directory=directory,
            function=function,
            module=module,
            changed=border.stored(function, compiled, directory, context.store)
            if changed
            else None,
            device=_SYNC if function.signals and uri == _TASK else uri,
        )
        with self.alone(self.plan.device):
            ran = runtime.run(
                job,
                context,
                latency_budget=self.settings.latency_budget,
                on_benchmark=partial(self.watcher.began, self.target, "benchmark"),
            )
        if self.settings.keep and ran.ok:
            (context.directory / _OUTPUTS).write_bytes(msgspec.json.encode(ran.outputs))
        return job, ran

    def compared(
        self, job: runtime.Run, ran: runtime.RunResult, context: Context
    ) -> Comparison | None:
        """Comparison of a function's outputs; None if there is no reference for them."""
        function = job.function
        waited = job.device == _SYNC or not function.signals
        if not ran.ok or function.reference is None or not waited:
            return None
        comparison = numerics.compare(ran.outputs, job, outputs_directory=context.directory)
        if comparison.differs and ran.changed is not None:
            comparison = demoted.judged(comparison, ran, job, context)
        return with_unreturned(comparison, function)

    def generated(self, result: CaseResult) -> CaseResult:
        """The case after its functions were chained to generate tokens."""
        assert self.plan.device is not None and self.settings.generate is not None
        self.watcher.began(self.target, "generate")
        started = time.monotonic()
        generated = generation.run(
            self.settings.generate,
            self.loaded,
            Path(result.output or ""),
            self.plan.device.uri,
            self.context,
            self.alone(self.plan.device),
        )
        left = generated.not_compared
        step = Step(
            name="generate",
            status="failed" if generated.failure else "ran" if left else "ok",
            seconds=time.monotonic() - started,
            why=left,
        )
        self.watcher.ended(self.target, step)
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


class _NotKept(Exception):
    """Carries a result that is not worth keeping: it depends on more than its key."""

    def __init__(self, result: CompileResult) -> None:
        super().__init__()
        self.result = result


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


@contextlib.contextmanager
def _workdir(keep: str, function: str) -> Iterator[Path]:
    """Directory to run a function in: in `keep`, else a temporary one."""
    if keep:
        place = Path(keep) / function
        place.mkdir(parents=True)
        yield place
        return
    with tempfile.TemporaryDirectory(prefix="iree-pilot-") as scratch:
        yield Path(scratch)


def kept(keep: Path, function: str) -> tuple[Tensor, ...] | None:
    """Outputs of a function that was run with `Settings.keep`; None if it did not return."""
    place = keep / function
    if not (place / _OUTPUTS).is_file():
        return None
    outputs = msgspec.json.decode((place / _OUTPUTS).read_bytes(), type=tuple[Tensor, ...])
    return tuple(output.placed(place) for output in outputs)


def with_unreturned(comparison: Comparison, function: Function) -> Comparison:
    """A comparison of a function's outputs as one of all that it computes: `not-compared` where a
    call changes what no output holds."""
    names = function.reference.unreturned if function.reference else ()
    if not names or comparison.differs:
        return comparison
    others = "its outputs agree" if comparison.ok else comparison.why
    why = f"what it changes in {', '.join(names)} is no output; {others}"
    return msgspec.structs.replace(comparison, verdict="not-compared", why=why)


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
        border=border.describe(function, ran.changed) if ran.changed else "",
    )


def _steps(left: str, failed: StepName | None, took: Mapping[StepName, float]) -> Iterator[Step]:
    for name, seconds in took.items():
        if name == failed:
            yield Step(name=name, status="failed", seconds=seconds)
            return
        if name == "compare" and left:
            yield Step(name=name, status="ran", seconds=seconds, why=left)
        else:
            yield Step(name=name, status="ok", seconds=seconds)


def _why(failed: StepName, failure: Failure | None) -> str:
    if failure is not None and f"/{numerics.EXPECTATION}/" in failure.signature:
        return "runs, but not as the program itself expects, which is wrong"
    return {
        "load": "does not load",
        "run": "does not run",
        "compare": "runs, but differs from the reference",
    }.get(failed, failed)


def _left(functions: list[FunctionResult], program: Program) -> Iterator[str]:
    """Functions that were not run or not compared, with the reasons."""
    if why := _not_compared(functions):
        yield why
    for name, why in program.others.items():
        yield f"{name} is not run: {why}"
    for function in program.functions:
        if function.example is None:
            yield f"{function.name} is not run: it has no example inputs"


def _not_compared(functions: list[FunctionResult]) -> str:
    """Reason that not all was compared; empty if each output of each function was."""
    reasons: dict[str, list[str]] = {}
    for function in functions:
        compared = function.comparison
        if compared is None or not compared.ok:
            why = compared.why if compared else _no_reference(function)
            reasons.setdefault(why, []).append(function.name)
    if len(functions) == 1 or all(len(names) == len(functions) for names in reasons.values()):
        return next(iter(reasons), "")
    parts = [f"{', '.join(names)}: {why}" for why, names in reasons.items()]
    right = [f.name for f in functions if f.comparison and f.comparison.ok]
    if right:
        parts.append(f"{', '.join(right)} {'agree' if right[1:] else 'agrees'}")
    return "; ".join(parts)


def _no_reference(function: FunctionResult) -> str:
    if function.unevaluated == _SIGNALS:
        return _SIGNALS
    said = "there is no reference to compare with"
    return f"{said}: {function.unevaluated}" if function.unevaluated else said


class Silent:
    """A watcher that does nothing with what it hears."""

    def planned(
        self, target: str, arch: str | None, warnings: tuple[str, ...], notes: tuple[str, ...]
    ) -> None: ...
    def began(self, target: str, work: Work) -> None: ...
    def phase(self, target: str, phase: Phase) -> None: ...
    def compiling(self, target: str, state: Compiling) -> None: ...
    def ended(self, target: str, step: Step) -> None: ...
    def waiting(self, target: str) -> None: ...
