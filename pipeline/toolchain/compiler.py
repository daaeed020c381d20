"""Compile a program: one native `iree-compile` process, every phase dumped, timed and counted."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import msgspec

from iree_pilot.pipeline.errors import UsageError, nearest
from iree_pilot.pipeline.failures import diagnostics
from iree_pilot.pipeline.failures.diagnostics import KILLED_BY_OTHERS, Failure, Stopped
from iree_pilot.pipeline.inspect import executables
from iree_pilot.pipeline.inspect.executables import Compiling, ExecutableSurvey, Watch
from iree_pilot.pipeline.processes import process
from iree_pilot.pipeline.toolchain.context import Context
from iree_pilot.pipeline.toolchain.phases import DumpReader, Phase
from iree_pilot.pipeline.toolchain.toolchain import Toolchain

MODULE = "module.vmfb"
PHASES = "phases"
STDERR = "stderr.txt"
_STATISTICS = "statistics.json"
_STATISTICS_FLAGS = (
    "iree-scheduling-dump-statistics-format",
    "iree-scheduling-dump-statistics-file",
)
_OWN_FLAGS = {
    "o": "Say it before the --: iree-pilot compile ... -o FILE.",
    "compile-to": "Say it before the --: iree-pilot compile ... --to PHASE.",
    "compile-from": "Say it before the --: iree-pilot compile ... --from PHASE.",
    "dump-compilation-phases-to": "The phases are always dumped, beside the module.",
}
#: Flags that print something in place of compiling.
_PRINTS = re.compile(r"-+(?:h|help(?:-hidden|-list|-list-hidden)?|version|print-options)")
#: Advice on the same flags for commands that compile whole programs, and have no such option.
_COMPILES_ALL = {
    "o": "The module stays in the cache; iree-pilot compile SOURCE -t TARGET -o FILE copies it.",
    "compile-to": "This compiles to the end. To stop before: iree-pilot compile SOURCE -t TARGET "
    "--to PHASE.",
    "compile-from": "This compiles from the start. From the IR of a later phase: "
    "iree-pilot compile FILE.mlir -t TARGET --from PHASE -o MODULE, which iree-run-module runs.",
}
#: Flags with the values that make a module which can be run, and what the others make.
_MAKES_MODULES = {
    "output-format": (("vm-bytecode",), "C or assembly"),
    "compile-mode": (("std", "vm"), "an executable or IR"),
}
#: Words in the names of flags that make the compiler write more than its output.
_TELLING = re.compile(
    r"dump|print|timing|time-passes|save-temp|remark|report|stat(?:istic)?s|reproducer|output"
    r"|(?:log|profile)-actions"
)


class Dispatches(msgspec.Struct, frozen=True, kw_only=True):
    """Scheduling statistics of the whole program; sizes in bytes."""

    dispatches: int
    executables: int
    submissions: int
    copies: int
    fills: int
    transient_bytes: int
    constant_bytes: int


class CompileResult(msgspec.Struct, frozen=True, kw_only=True):
    """Result of one compile.

    output: the module, or with `to` the IR, relative to the compile's directory; None on failure.
    command: what to type to do it again, in any empty directory. phase_confirmed: whether
    resuming from the last good phase showed the same failure (None: not a phase's failure, or
    nothing to resume from); resume_command does that again, its input relative to the compile's
    directory unless it is the program itself. seconds: wall time of the compiler; peak_bytes: its
    resident memory.
    """

    command: tuple[str, ...]
    seconds: float
    peak_bytes: int
    phases: tuple[Phase, ...]
    output: str | None = None
    output_bytes: int = 0
    dispatches: Dispatches | None = None
    failure: Failure | None = None
    phase_confirmed: bool | None = None
    resume_command: tuple[str, ...] | None = None

    @property
    def ok(self) -> bool:
        return self.failure is None


@dataclass(frozen=True, kw_only=True)
class Listener:
    """Receives the progress of a compile: each phase, the executables that it is working on, and
    that a failure's phase is being confirmed."""

    phase: Callable[[Phase], None]
    compiling: Callable[[Compiling], None]
    confirming: Callable[[], None] = lambda: None


class Compile(msgspec.Struct, frozen=True, kw_only=True):
    """A compile of `mlir` with `flags` (the target's, then the user's).

    to: stop after this phase and write IR. resume: the input is IR dumped after this phase.
    hasty: give up where an executable does not end (`executables.UNENDING_SECONDS`) when it is
    compiled alone; else that is only printed.
    """

    mlir: Path
    flags: tuple[str, ...]
    to: str | None = None
    resume: str | None = None
    hasty: bool = False

    def command(
        self, toolchain: Toolchain, output: str = MODULE, dumps: str | None = PHASES
    ) -> tuple[str, ...]:
        """The `iree-compile` command that writes `output` and dumps the phases to `dumps`."""
        argv = [str(toolchain.compiler), str(self.mlir), *self.flags]
        if self.resume:
            argv.append(f"--compile-from={self.resume}")
        if self.to:
            argv.append(f"--compile-to={self.to}")
        if dumps:
            argv.append(f"--dump-compilation-phases-to={dumps}")
        return (*argv, "-o", output)


def check_phases(toolchain: Toolchain, *, resume: str | None, to: str | None) -> None:
    """Raises UsageError unless this toolchain has both phases, and `to` after `resume`."""
    order = toolchain.phases
    for phase in (resume, to):
        if phase is not None and phase not in order:
            raise UsageError(
                f"iree-compile {toolchain.version} has no compilation phase {phase!r}",
                advice=nearest(phase, list(order)),
            )
    begin, end = resume or order[0], to or order[-1]
    if order.index(begin) >= order.index(end):
        raise UsageError(
            f"there is nothing to compile: --to {end} is not after --from {begin}",
            advice=f"The phases in order: {' '.join(order)}.",
        )


def check_flags(flags: Sequence[str], *, phases: bool = False) -> None:
    """Raises UsageError for flags that the driver itself gives to iree-compile.

    phases: the command has options for the phases that are compiled, and for the output.
    """
    advice = _OWN_FLAGS if phases else _OWN_FLAGS | _COMPILES_ALL
    for flag, following in zip_longest(flags, flags[1:], fillvalue=""):
        name, equals, value = flag.lstrip("-").partition("=")
        if _PRINTS.fullmatch(flag):
            raise UsageError(
                f"{flag} cannot be given after --: iree-compile would print that, and compile "
                "nothing",
                advice=f"Ask it itself: iree-compile {flag}",
            )
        if flag.startswith("-") and name in advice:
            raise UsageError(f"{flag} cannot be given after --", advice=advice[name])
        values, others = _MAKES_MODULES.get(name, ((), ""))
        if flag.startswith("-") and others and not phases:
            value = value if equals else following
            if value not in values:
                raise UsageError(
                    f"{name}={value} cannot be given after --: it makes {others}, not a module "
                    "that can be run",
                    advice=f"iree-pilot compile SOURCE -t TARGET -o FILE -- "
                    f"{shlex.quote(f'--{name}={value}')} writes it.",
                )


def compile(
    job: Compile, context: Context, *, listener: Listener | None = None, confirm: bool = True
) -> CompileResult:
    """Runs one compile whose files go to `directory`: phases/, the module, stderr.txt.

    `listener` hears of each phase while the compiler runs, and of the executables that it is at
    when generating code takes long: these are compiled alone beside it. A failing compile is a
    result with a `failure`; confirm: the phase that failed is compiled once more, alone. Raises
    UsageError for phases and flags that do not fit, EnvironmentFault when there is no compiler to
    run, and OSError when the disk is full.

    A failure is that of the command that is shown. So where its phase alone does not show it, the
    compile is done again without what the driver adds to learn of dispatches; and once more where
    somebody else has killed it.
    """
    check_phases(context.toolchain, resume=job.resume, to=job.to)
    check_flags(job.flags, phases=True)
    added = all(flag in context.toolchain.flags for flag in _STATISTICS_FLAGS) and not any(
        name in flag for flag in job.flags for name in _STATISTICS_FLAGS
    )
    result = _compile(job, context, listener, confirm, added)
    killed = result.failure is not None and result.failure.message.startswith(KILLED_BY_OTHERS)
    if killed or (added and result.phase_confirmed is False):
        counted = added and killed
        result = _compile(job, context, None, confirm, counted)
    return result


def _compile(
    job: Compile, context: Context, listener: Listener | None, confirm: bool, counted: bool
) -> CompileResult:
    """counted: the compiler is asked for the number of dispatches too."""
    order = context.toolchain.phases
    output = context.directory / (MODULE if job.to in (None, order[-1]) else f"{job.to}.mlir")
    dumps = context.directory / PHASES
    statistics = context.directory / _STATISTICS
    shutil.rmtree(dumps, ignore_errors=True)
    for left in (output, statistics):
        left.unlink(missing_ok=True)
    argv = [*job.command(context.toolchain, str(output), str(dumps))]
    if counted:
        argv += [f"--{_STATISTICS_FLAGS[0]}=json", f"--{_STATISTICS_FLAGS[1]}={statistics}"]

    reader = DumpReader(dumps, time.time_ns())

    def read(*, final: bool = False) -> None:
        for phase in reader.read(final=final):
            if listener:
                listener.phase(phase)

    with tempfile.TemporaryDirectory(prefix="iree-pilot-") as scratch:
        watch = _watch(job, context.at(Path(scratch)), dumps, listener)

        def tick() -> bool:
            read()
            if watch is not None:
                watch.look()
            return job.hasty and watch is not None and watch.hopeless

        try:
            outcome = process.run(
                argv,
                stdout=context.directory / "stdout.txt",
                stderr=context.directory / STDERR,
                limits=context.limits,
                on_tick=tick,
            )
        finally:
            if watch is not None:
                watch.close()
    ended_ns = time.time_ns()
    read(final=True)
    command = job.command(context.toolchain, output.name)
    if not outcome.ok:
        process.check_disk(context.directory / STDERR)
        if listener and confirm:
            listener.confirming()
        failed = _failed(job, context, outcome, reader, command, confirm)
        return _explained(failed, watch.state if watch else None)
    if not output.is_file():
        raise UsageError(
            f"iree-compile ended well but wrote no module, with the flags {shlex.join(job.flags)}",
            advice="Flags that only list or print something are for iree-compile itself: "
            f"{context.toolchain.compiler}",
        )
    size = output.stat().st_size
    if job.to in (None, order[-1]):
        end = Phase(
            name=order[-1], seconds=max(0, ended_ns - reader.end_ns) / 1e9, bytes=size, ops={}
        )
        reader.phases.append(end)
        if listener:
            listener.phase(end)
    return CompileResult(
        command=command,
        seconds=outcome.seconds,
        peak_bytes=outcome.peak_bytes,
        phases=tuple(reader.phases),
        output=output.name,
        output_bytes=size,
        dispatches=_dispatches(statistics),
    )


def _failed(
    job: Compile,
    context: Context,
    outcome: process.Outcome,
    reader: DumpReader,
    command: tuple[str, ...],
    confirm: bool,
) -> CompileResult:
    order = context.toolchain.phases
    last = reader.phases[-1].name if reader.phases else (job.resume or order[0])
    phase = order[min(order.index(last) + 1, len(order) - 1)]
    said = (context.directory / STDERR).read_text(encoding="utf-8", errors="replace")
    failure = _failure(outcome, said, phase, job.mlir)
    confirmed: bool | None = None
    resume_command: tuple[str, ...] | None = None
    if outcome.ended_by in ("exit", "signal") and failure.phase is not None:
        good = reader.last_dump or job.mlir
        again = Compile(mlir=good, flags=job.flags, resume=last, to=phase)
        resumed = _resume(again, context) if confirm else None
        if reader.last_dump is None and job.resume is None and context.toolchain.opt is not None:
            # Nothing was dumped: perhaps the program does not even parse.
            parsed = _parse(job.mlir, context)
            if parsed is not None and parsed.signature == failure.signature:
                failure = msgspec.structs.replace(failure, phase=order[0])
        if failure.kind == "crash" and not failure.stack:
            failure, resumed = _serial_failures(job, again, failure, context)
        if confirm:
            confirmed = resumed is not None and resumed.shows(failure.signature)
        if reader.last_dump is not None:
            again = msgspec.structs.replace(again, mlir=Path(PHASES) / reader.last_dump.name)
        resume_command = again.command(context.toolchain, output="-", dumps=None)
    return CompileResult(
        command=command,
        seconds=outcome.seconds,
        peak_bytes=outcome.peak_bytes,
        phases=tuple(reader.phases),
        failure=failure,
        phase_confirmed=confirmed,
        resume_command=resume_command,
    )


def _watch(job: Compile, context: Context, dumps: Path, listener: Listener | None) -> Watch | None:
    """Watch that inspects a compile if code generation takes long; None without a listener."""
    if listener is None:
        return None
    survey = ExecutableSurvey(context, job.flags, nice=not job.hasty)
    wait = executables.HASTY_SECONDS if job.hasty else executables.WAIT_SECONDS
    return Watch(survey, dumps, listener.compiling, wait)


def _explained(result: CompileResult, state: Compiling | None) -> CompileResult:
    """A compile that was stopped, with what is known of its executables."""
    failure = result.failure
    if failure is None or failure.kind != "timeout" or state is None or not state.unending:
        return result
    failure = msgspec.structs.replace(
        failure,
        message=str(state),
        stopped=Stopped(seconds=state.limit_seconds, executable=state.unending),
    )
    return msgspec.structs.replace(result, failure=failure)


def _serial_failures(
    job: Compile, again: Compile, failure: Failure, context: Context
) -> tuple[Failure, Failure | None]:
    """(the failure, that of resuming), both compiled on one thread.

    Several threads that crash at once end the compiler before one of them has printed its stack.
    """
    serial = (*job.flags, diagnostics.SERIAL)
    whole = msgspec.structs.replace(job, flags=serial, to=again.to)
    first = _resume(whole, context)
    if first is None or first.kind != "crash":
        return failure, None
    resumed = msgspec.structs.replace(again, flags=serial)
    return first, _resume(resumed, context)


def _resume(job: Compile, context: Context) -> Failure | None:
    """The failure of compiling on from a dump to the phase that failed; None if it passes."""
    scratch = context.directory / "resume.out"
    command = job.command(context.toolchain, str(scratch), dumps=None)
    outcome, said = context.run(command, "resume")
    scratch.unlink(missing_ok=True)
    return None if outcome.ok else _failure(outcome, said, job.to, job.mlir)


def _parse(program: Path, context: Context) -> Failure | None:
    """The failure of only reading the program; None if it can be read."""
    assert context.toolchain.opt is not None
    outcome, said = context.run([context.toolchain.opt, program, "-o", "/dev/null"], "parse")
    return None if outcome.ok else _failure(outcome, said, context.toolchain.phases[0], program)


def _failure(outcome: process.Outcome, said: str, phase: str | None, program: Path) -> Failure:
    text = program.read_text(encoding="utf-8", errors="replace")
    return diagnostics.compile_failure(outcome, said, phase, text)


def _dispatches(statistics: Path) -> Dispatches | None:
    """Reads the compiler's own scheduling statistics; None where this release wrote none."""
    if not statistics.is_file() or not statistics.stat().st_size:
        return None
    total = json.loads(statistics.read_text(encoding="utf-8"))["stream-aggregate"]
    execution = total["execution"]
    return Dispatches(
        dispatches=execution["dispatch-count"],
        executables=total["executable"]["executable-count"],
        submissions=execution["submission-count"],
        copies=execution["copy-count"],
        fills=execution["fill-count"],
        transient_bytes=execution["transient-memory-size"],
        constant_bytes=total["global"]["constant-size"],
    )


def writes_elsewhere(flags: Sequence[str]) -> bool:
    """True if user flags make the compiler write more than its output.

    Such a compile is done again each time instead of being taken from the store: what it leaves
    behind (dumps, messages, timings) is why the flag was given.
    """
    return any(_TELLING.search(flag.split("=")[0]) for flag in flags)
