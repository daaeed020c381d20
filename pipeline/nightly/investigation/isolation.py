"""One failure of a night, isolated in a process of its own: it has a limit, and can die alone.

A search that was killed goes on where it was the next time.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from iree_pilot.pipeline.case_result import CaseResult
from iree_pilot.pipeline.errors import PilotError
from iree_pilot.pipeline.failures.diagnostics import Failure
from iree_pilot.pipeline.frontends.load import TraceFailed, load
from iree_pilot.pipeline.nightly.cases import keys
from iree_pilot.pipeline.nightly.investigation import alone
from iree_pilot.pipeline.nightly.records import Case
from iree_pilot.pipeline.nightly.workers import worker
from iree_pilot.pipeline.nightly.workers.orders import Order
from iree_pilot.pipeline.toolchain.context import Context
from iree_pilot.repro import failed
from iree_pilot.repro.bisect import Bisection
from iree_pilot.repro.options import Options
from iree_pilot.repro.reproducer.folder import bundle
from iree_pilot.repro.reproducer.folder.bundle import REPORT
from iree_pilot.repro.reproducer.known.places import names


class Orders(msgspec.Struct, frozen=True, kw_only=True):
    """The job of an isolation: a case and its outcome.

    place: where the reproducer's folder goes. directory: what a source's file is relative to.
    """

    case: Case
    result: CaseResult
    place: str
    directory: str


def isolate(orders: Orders, scratch: Path, seconds: float) -> Bisection:
    """Isolates the failure of a case within `seconds` of wall time.

    What keeps it from being isolated is the `why` of the answer. Raises `alone.Unfinished`.
    """
    return alone.run(
        f"{__name__}:isolated",
        orders,
        Bisection,
        directory=Path(orders.directory),
        scratch=scratch,
        seconds=seconds,
    )


def isolated(orders: Orders, scratch: Path) -> Bisection:
    """Isolates the failure, in this process."""
    try:
        return _isolate(orders)
    except PilotError as fault:
        why = " ".join(filter(None, (fault.message, fault.advice)))
        return Bisection(status="gave-up", why=why)


def _isolate(orders: Orders) -> Bisection:
    case, result = orders.case, orders.result
    assert result.failure is not None
    order = Order(what="case", case=case, directory=orders.directory)
    toolchain = worker.toolchain_of(order)
    options = Options(
        place=Path(orders.place),
        # Named after the signature: another target with the same failure gets a name of its own.
        default=True,
        flags=case.flags,
        seed=case.seed,
    )
    context = Context(toolchain=toolchain, limits=worker.limits(order))
    job = keys.job(case)
    trace = result.steps[0]
    if trace.status == "failed":
        refused = TraceFailed(result.failure, trace.seconds)
        found = failed.isolate_trace(job, refused, case.target, context, options)
    else:
        loaded = load(job, context)
        made = keys.applied(case, loaded, keys.planned(case, toolchain), context)
        options = msgspec.structs.replace(options, flags=made.flags)
        found = failed.isolate(made.loaded, result, made.plan, context, options)
    return brought(found, options.place)


def brought(found: Bisection, place: Path) -> Bisection:
    """The answer with copies, beside `place`, of folders that an earlier bisection left elsewhere.

    Those who read of the night cannot look into the directory of whoever bisected it before.
    """
    failures = []
    for one in found.failures:
        made = one.reproducer
        if made is not None and one.known_since:
            copy = brought_to(place, Path(made.path), one.failure)
            made = msgspec.structs.replace(made, path=str(copy))
        failures.append(msgspec.structs.replace(one, reproducer=made))
    return msgspec.structs.replace(found, failures=tuple(failures))


def brought_to(place: Path, folder: Path, failure: Failure) -> Path:
    """The reproducer's folder where it lies beside `place`, else a copy of it there.

    Raises UsageError for one that somebody has changed.
    """
    if folder.parent == place.parent:
        return folder
    bundle.check_place(folder)
    report = (folder / REPORT).read_bytes()
    with bundle.placing():
        copy = next(name for name in names(place, failure) if _is_for(name, report))
        if not copy.exists():
            bundle.copy(folder, copy)
    return copy


def _is_for(folder: Path, report: bytes) -> bool:
    """True if the folder does not exist, or has this very reproducer."""
    file = folder / REPORT
    return not folder.exists() or (file.is_file() and file.read_bytes() == report)
