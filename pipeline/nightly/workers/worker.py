"""Runs one order in a process of its own.

Whatever happens to the case is in the reply, an `Outcome`. The process does nothing but
wait for its children, and ends them with itself (see `pipeline.processes.process`).
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import os
import platform
import resource
import socket
import tempfile
import time
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from iree_pilot.pipeline import case as cases
from iree_pilot.pipeline.case import Settings, Silent
from iree_pilot.pipeline.case_result import CaseResult, Step
from iree_pilot.pipeline.errors import EnvironmentFault, PilotError
from iree_pilot.pipeline.execution import generation, refitting
from iree_pilot.pipeline.frontends.load import Loaded, TraceFailed, load, made_of, source_file
from iree_pilot.pipeline.nightly.cases import keys
from iree_pilot.pipeline.nightly.metrics import metrics
from iree_pilot.pipeline.nightly.records import INSTALLED, CaseOutcome
from iree_pilot.pipeline.nightly.workers import parcels
from iree_pilot.pipeline.nightly.workers.orders import Order
from iree_pilot.pipeline.processes import process, task
from iree_pilot.pipeline.program import source_lines
from iree_pilot.pipeline.store.locks import Locks
from iree_pilot.pipeline.store.store import cache_directory
from iree_pilot.pipeline.targets import devices
from iree_pilot.pipeline.targets.targets import Device
from iree_pilot.pipeline.toolchain import releases
from iree_pilot.pipeline.toolchain.context import Context
from iree_pilot.pipeline.toolchain.toolchain import Toolchain

#: No order takes longer than this many times its steps' time limit; it hangs.
_STEPS = 12


def employ(order: Order) -> CaseOutcome:
    """Starts a process for the order and returns its reply; no reply is an outcome too.

    Raises EnvironmentFault if no process can be started or the disk is full, which all other cases
    would meet too. Raises OSError if that is the disk for temporary files.
    """
    begun, started = now(), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="iree-pilot-", ignore_cleanup_errors=True) as scratch:
        place, directory = Path(scratch), Path(order.directory)
        done = task.call(
            f"{__name__}:done",
            order,
            CaseOutcome,
            place,
            cwd=directory if directory.is_dir() else place,  # a zoo model needs none
            env={**os.environ, "TMPDIR": scratch},
            limits=process.Limits(seconds=_STEPS * order.case.time_limit * order.case.repeats),
        )
    if done.reply is not None:
        return done.reply
    ended = done.outcome
    how = ended.signal or f"exit status {ended.exit_code}"
    how = how if ended.ended_by in ("exit", "signal") else f"{how} at its {ended.ended_by}"
    said = done.stderr.strip().splitlines()
    why = f"its worker ended with {how}" + (f": {said[-1]}" if said else "")
    return CaseOutcome(
        case=order.case.name,
        result=None,
        why=why,
        machine=machine(),
        worker=socket.gethostname(),
        begun=begun,
        seconds=time.monotonic() - started,
        peak_bytes=ended.peak_bytes,
    )


def done(order: Order, scratch: Path) -> CaseOutcome:
    """Same as `do`, for the child that `employ` starts."""
    return do(order)


def do(order: Order) -> CaseOutcome:
    """Runs the order in this process and its children; sources are relative to its directory.

    Raises EnvironmentFault where the disk is full.
    """
    begun, started = now(), time.monotonic()
    try:
        outcome = _trace(order) if order.what == "trace" else _case(order)
    except PilotError as error:
        if os.strerror(errno.ENOSPC) in error.message or os.strerror(errno.EDQUOT) in error.message:
            raise
        outcome = _not_run(order, f"{error.message}. {error.advice}".strip())
    except OSError as fault:
        why = f"{fault.strerror or fault}" + (f" ({fault.filename})" if fault.filename else "")
        if fault.errno in (errno.ENOSPC, errno.EDQUOT):
            raise EnvironmentFault(why, advice="Free some space there.") from fault
        outcome = _not_run(order, why)
    except Exception as fault:  # noqa: BLE001 - a bug of ours must not end the night
        frame = traceback.extract_tb(fault.__traceback__)[-1]
        at = f"{Path(frame.filename).name}:{frame.lineno}"
        outcome = _not_run(order, f"a bug of iree-pilot: {type(fault).__name__}: {fault} ({at})")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    failure = outcome.failure
    return msgspec.structs.replace(
        outcome,
        machine=outcome.machine or machine(),
        worker=socket.gethostname(),
        begun=begun,
        seconds=time.monotonic() - started,
        peak_bytes=max(peak, outcome.peak_bytes),
        source=source_lines.at(failure.location) if failure else None,
    )


def now() -> str:
    """The time as records hold it."""
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")


def machine(device: Device | None = None) -> str:
    """The class of this machine, for comparing times: its processor and cores, and its GPU."""
    processor = devices.processor().name
    gpu = f" | {device.name}" if device and not _on_processor(device) else ""
    return f"{platform.machine()} | {processor} | {len(os.sched_getaffinity(0))} cores{gpu}"


def _trace(order: Order) -> CaseOutcome:
    toolchain = toolchain_of(order)
    try:
        loaded = load(keys.job(order.case), Context(toolchain=toolchain, limits=limits(order)))
    except TraceFailed as failed:
        return _untraced(order, toolchain, failed)
    _prepare(order, toolchain, loaded)
    if order.parcel:
        parcels.pack(loaded, Path(order.parcel))
    step = Step(name="trace", status="ok", seconds=loaded.seconds, cached=loaded.cached)
    return CaseOutcome(case=order.case.name, result=_result(order, toolchain, step))


def _prepare(order: Order, toolchain: Toolchain, loaded: Loaded) -> None:
    """Makes PyTorch generate tokens now, if cases would, which would wait for each other."""
    # What goes wrong is reported by the cases that need it.
    with contextlib.suppress(PilotError, TraceFailed):
        wanted = generation.usual(keys.job(order.case), toolchain)
        if wanted is not None and keys.planned(order.case, toolchain).device is not None:
            generation.prepare(wanted, loaded, Context(toolchain=toolchain, limits=limits(order)))


def _case(order: Order) -> CaseOutcome:
    case, toolchain = order.case, toolchain_of(order)
    context = Context(toolchain=toolchain, limits=limits(order))
    plan = keys.planned(case, toolchain)
    if order.parcel and Path(order.parcel).is_file():
        parcels.unpack(Path(order.parcel), context.store)
    try:
        loaded = load(keys.job(case), context)
    except TraceFailed as failed:
        return _untraced(order, toolchain, failed)
    key = keys.key(case, loaded, toolchain, plan)
    if key in order.known and not order.fresh:
        return CaseOutcome(case=case.name, result=None, key=key, reused=True)
    made = keys.applied(case, loaded, plan, context)
    changed = made.loaded
    results: list[CaseResult] = []
    for number in range(case.repeats):
        settings = Settings(
            flags=made.flags,
            fresh=order.fresh or number > 0,
            generate=generation.usual(keys.job(case), toolchain),
        )

        def attempt(program: Loaded, settings: Settings = settings) -> CaseResult:
            return cases.run(program, made.plan, context, settings, Silent(), alone=alone)

        changed, result = refitting.settled(changed, attempt, context)
        results.append(result)
    result = next((r for r in results if r.status == "failed"), results[0])
    outcome = CaseOutcome(
        case=case.name,
        result=result,
        metrics=metrics(result),
        machine=machine(plan.device),
        attempts=tuple(r.status for r in results) if len(results) > 1 else (),
        program=loaded.program.digest,
        files=_files(made_of(loaded, keys.job(case).source), Path(order.directory)),
    )
    return msgspec.structs.replace(outcome, key=key if keys.lasting(outcome) else "")


def _files(files: Mapping[str, str], base: Path) -> dict[str, str]:
    """Files by names that are the same on another machine, as far as they can be."""
    base = base.resolve()
    inside = {file: Path(file).is_relative_to(base) for file in files}
    return {
        str(Path(file).relative_to(base)) if inside[file] else file: state
        for file, state in files.items()
    }


def toolchain_of(order: Order) -> Toolchain:
    """The toolchain of the order's release, installed if need be."""
    release = keys.released(order.release or order.case.release)
    return releases.find(None if release == INSTALLED else release)


def limits(order: Order) -> process.Limits:
    """Memory: the case's own limit, else the night's, else 90% of what is available now."""
    import psutil

    memory = order.case.memory_limit or order.memory_limit
    return process.Limits(
        seconds=order.case.time_limit,
        memory_bytes=memory or int(0.9 * psutil.virtual_memory().available),
    )


def _untraced(order: Order, toolchain: Toolchain, failed: TraceFailed) -> CaseOutcome:
    step = Step(name="trace", status="failed", seconds=failed.seconds)
    result = _result(order, toolchain, step)
    return CaseOutcome(
        case=order.case.name,
        result=msgspec.structs.replace(
            result, status="failed", why="does not trace", failure=failed.failure
        ),
        files=_files(source_file(keys.job(order.case).source), Path(order.directory)),
    )


def _result(order: Order, toolchain: Toolchain, trace: Step) -> CaseResult:
    return CaseResult(
        target=order.case.target,
        release=toolchain.version,
        device=None,
        arch=None,
        status="ok",
        why="",
        steps=(trace,),
    )


def _not_run(order: Order, why: str) -> CaseOutcome:
    return CaseOutcome(case=order.case.name, result=None, why=why)


@contextlib.contextmanager
def alone(device: Device) -> Iterator[None]:
    """Holds a device, so that what is timed on it has it for itself, whoever runs on this machine.

    The processor is one device, whether modules come to it through a task system or through a
    software Vulkan. Compilers go on beside it: the runs are short, and keeping all cores idle for
    them would double the night; what that adds to latencies is noise that the baseline knows.
    """
    name = "processor" if _on_processor(device) else device.uri.partition("?")[0]
    # Several machines may have one cache.
    with Locks(cache_directory() / "nightly" / ".devices").hold(f"{socket.gethostname()}/{name}"):
        yield


def _on_processor(device: Device) -> bool:
    return device.driver in devices.LOCAL or device.properties.get("type") == "cpu"
