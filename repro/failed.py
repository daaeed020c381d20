"""Bisection of a case or a trace that failed: the program to isolate in, and the search's state."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import msgspec

from iree_pilot.pipeline.case_result import DOES_NOT_COMPILE, CaseResult, FunctionResult
from iree_pilot.pipeline.failures import diagnostics
from iree_pilot.pipeline.failures.diagnostics import Failure
from iree_pilot.pipeline.frontends.job import CANNOT_RUN, ENDED, MAKING, Job
from iree_pilot.pipeline.frontends.load import Loaded, TraceFailed
from iree_pilot.pipeline.inspect import executables
from iree_pilot.pipeline.numerics import between, numerics
from iree_pilot.pipeline.processes import process
from iree_pilot.pipeline.store.locks import Locks
from iree_pilot.pipeline.store.store import Store, data_directory
from iree_pilot.pipeline.targets import discovery
from iree_pilot.pipeline.targets.targets import Plan
from iree_pilot.pipeline.toolchain.context import Context
from iree_pilot.pipeline.toolchain.toolchain import Toolchain
from iree_pilot.repro import bisect as search
from iree_pilot.repro.bisect import Bisection
from iree_pilot.repro.ir import inline
from iree_pilot.repro.options import Listeners, Options
from iree_pilot.repro.oracles.oracle_run import Running
from iree_pilot.repro.reproducer.known.found import gave_up
from iree_pilot.repro.tracing import trace_search as tracing

#: The functions in a row, each fed what the last one gave, differ, and none does by itself.
_NO_FUNCTION = "each of its functions gives right numbers: they only differ in a row"

#: Processor time that a part of a program may take beyond what is usual.
_HANGS_SECONDS = 60.0


def isolate(
    loaded: Loaded,
    case: CaseResult,
    plan: Plan,
    context: Context,
    options: Options,
    listeners: Listeners | None = None,
) -> Bisection:
    """Isolates the failure of a case (with `options.everything` also what else keeps it from
    working).

    The same call goes on where an earlier one was stopped, and waits for another process that does
    the same. Wrong numbers are looked for in the program without its calls first.
    """
    assert case.failure is not None
    listeners = listeners or Listeners()
    flat = _inlined(loaded, context) if case.failure.kind == "mismatch" else None
    if flat is not None:
        found = _isolate(flat, case, plan, context, options, listeners)
        if found.status == "isolated":
            return found
    return _isolate(loaded, case, plan, context, options, listeners)


def _inlined(loaded: Loaded, context: Context) -> Loaded | None:
    """The program without calls; None where it has none."""
    digest = Store.key(loaded.program.digest, context.toolchain.revision, "inlined")
    file = data_directory() / "bisect" / f"inlined-{digest[:16]}.mlir"
    if not inline.inlined(loaded.mlir, context, file):
        return None
    program = msgspec.structs.replace(loaded.program, mlir=str(file), digest=digest)
    return msgspec.structs.replace(loaded, program=program)


def _isolate(
    loaded: Loaded,
    case: CaseResult,
    plan: Plan,
    context: Context,
    options: Options,
    listeners: Listeners,
) -> Bisection:
    assert case.failure is not None
    first, running, toolchain = case.failure, None, context.toolchain
    if why := why_not(case):
        return gave_up(first, why)
    if case.why != DOES_NOT_COMPILE:
        failing = next(f for f in case.functions if _can(f))
        assert failing.failure is not None
        first, running = failing.failure, _running(loaded, failing, plan, toolchain, options.seed)
    every = (*plan.flags, *options.flags)
    where = (running.device, running.function, running.seed, *_given(running)) if running else ()
    key = Store.key(loaded.program.digest, every, toolchain.revision, *where)
    state = data_directory() / "bisect" / key[:16]
    with Locks(state.parent / "locks").hold(key, on_wait=listeners.on_wait):
        if options.fresh:
            shutil.rmtree(state, ignore_errors=True)
        subject = search.Subject(
            mlir=loaded.mlir,
            source=loaded.program.source,
            target=case.target,
            flags=every,
            command=case.command,
            running=running,
            took_seconds=max((case.compile_seconds, *(s.seconds for s in case.steps[2:]))),
            peak_bytes=max((case.peak_bytes, *(f.peak_bytes for f in case.functions))),
            device=plan.device,
        )
        each = context.at(state).bounded(_limits(case, first, context.limits))
        return search.bisect(subject, first, each, options, listeners)


def why_not(case: CaseResult) -> str:
    """Reason that the failure of a case cannot be isolated; empty if a search is worthwhile."""
    assert case.failure is not None
    first = case.failure
    if why := _too_busy(first) or _misspelled(first) or of_the_source(first):
        return why
    if first.phase == "trace" or case.why == DOES_NOT_COMPILE or any(map(_can, case.functions)):
        return ""
    return _cannot(first) or _NO_FUNCTION


def _limits(case: CaseResult, failure: Failure, given: process.Limits) -> process.Limits:
    """The limits that candidates are judged at.

    Of a compile that does not end, the one that an executable was seen to exceed alone. Where only
    the default limit was met, nobody chose that for a part of the program: a part has processor
    time for what the phases before take, and some more.
    """
    stopped = failure.stopped
    if not stopped or case.why != DOES_NOT_COMPILE:
        return given
    if stopped.executable:
        seconds = stopped.seconds
    elif not stopped.default:
        return given
    elif failure.phase in executables.GENERATING:
        seconds = executables.UNENDING_SECONDS
    else:
        seconds = _HANGS_SECONDS + 2 * sum(phase.seconds for phase in case.phases)
    return msgspec.structs.replace(given, seconds=seconds, of_processor=True, default=False)


def _misspelled(failure: Failure) -> str:
    """Reason that there is nothing to isolate if the compiler refuses its flags; else empty."""
    if not diagnostics.of_command_line(failure):
        return ""
    return (
        f"the compiler refuses its command line, whatever the program is: {failure.message}; "
        "check the flags after --"
    )


def of_the_source(failure: Failure) -> str:
    """Reason that there is nothing to isolate if PyTorch has no model that runs; else empty.

    Nor if the source ends its own process: it would end the search's as well.
    """
    said = failure.message
    if failure.phase == "trace" and said.startswith(ENDED):
        return f"{said}; it raised nothing, so there is no error to look for"
    written = "/SyntaxError/" in failure.signature
    if failure.phase != "trace" or not (
        written or said.startswith((f"while {MAKING}: ", CANNOT_RUN))
    ):
        return ""
    return f"{said}; that is an error of the source, not of the tracer"


def _too_busy(failure: Failure) -> str:
    """Reason that the default limit proves nothing, the machine being busy; else empty."""
    stopped = failure.stopped
    if not stopped or not stopped.default or stopped.executable:
        return ""
    load, cores = os.getloadavg()[1], len(os.sched_getaffinity(0))
    if stopped.processor_seconds > stopped.seconds / 2 or load <= cores:
        return ""
    return (
        f"{failure.message}: other processes keep this machine busy (load {load:.1f} on {cores} "
        "cores), so it may only be slow"
    )


def isolate_hidden(
    loaded: Loaded,
    case: CaseResult,
    plan: Plan,
    context: Context,
    options: Options,
    listeners: Listeners | None = None,
) -> Bisection | None:
    """Isolates an operation that is wrong in a program that cannot show it (`numerics.hides`).

    None where the program would show it, or no operation that can be judged is wrong.
    """
    functions = []
    first: Failure | None = None
    for function in case.functions:
        comparison = function.comparison
        if comparison is not None and function.failure is None and numerics.hides(comparison):
            failure = numerics.hidden(comparison)
            first = first or failure
            function = msgspec.structs.replace(function, failure=failure)
        functions.append(function)
    if first is None or case.failure is not None:
        return None
    case = msgspec.structs.replace(case, functions=tuple(functions), failure=first)
    options = msgspec.structs.replace(options, everything=False)
    found = isolate(loaded, case, plan, context, options, listeners)
    return found if found.status == "isolated" else None


def isolate_trace(
    job: Job,
    failed: TraceFailed,
    target: str,
    context: Context,
    options: Options,
    listeners: Listeners | None = None,
) -> Bisection:
    """Isolates why a source does not trace. target: as the user named it."""
    if why := of_the_source(failed.failure):
        return gave_up(failed.failure, why)
    state = tracing.state_of(job, failed.failure, data_directory())
    return tracing.bisect(job, failed, target, context.at(state), options, listeners or Listeners())


def _given(running: Running) -> tuple[str, ...]:
    """The files of a reference that is not the program's own."""
    reference = running.loaded.program.function(running.function).reference
    files = (t.file for t in reference.outputs) if reference else ()
    return tuple(file for file in files if Path(file).is_absolute())


def _can(function: FunctionResult) -> bool:
    """True if it fails to load, to run or to compare in a way that can be isolated."""
    failure = function.failure
    if failure is None:
        return False
    if failure.kind == "mismatch":
        return not _cannot(failure)
    return failure.kind in ("runtime-error", "crash", "timeout")


def _cannot(failure: Failure) -> str:
    """Reason that a failure to run cannot be isolated; empty if it can."""
    if failure.kind != "mismatch":
        return f"it compiles and then fails with {failure.kind}; isolating that is not possible"
    manner = failure.signature.split("/")[1]
    if manner == between.DIFFER:
        return (
            "two targets differ, and without a reference it is bisect --against that compares them"
        )
    if manner == numerics.EXPECTATION:
        return "what the program expects of itself is wrong, not what is computed: correct that"
    if manner in ("type", "outputs"):
        return "what it returns is of another type or number than in PyTorch: no numbers are wrong"
    return ""


def _running(
    loaded: Loaded, function: FunctionResult, plan: Plan, toolchain: Toolchain, seed: int
) -> Running:
    assert plan.device is not None
    driver = plan.device.driver
    elsewhere = plan.device.uri
    several = "," in elsewhere
    if not several and len(discovery.find(driver, toolchain).devices) == 1:
        elsewhere = driver
    failure = function.failure
    if driver == "local-task" and failure is not None and failure.kind != "timeout":
        # After a call that fails, local-task does not always come to an end.
        elsewhere = elsewhere.replace("local-task", "local-sync")
    return Running(
        loaded=loaded,
        function=function.name,
        device=plan.device.uri,
        elsewhere=elsewhere,
        command=function.commands[0],
        seed=seed,
        comparison=function.comparison,
    )
