"""One failure of a night, isolated in a process of its own: it has a limit, and can die alone.

    python -m pipeline.nightly.isolation DIRECTORY

reads DIRECTORY/orders.json and writes DIRECTORY/result.json. A search that was killed goes on
where it was the next time.
"""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from pipeline import process
from pipeline.case import CaseResult
from pipeline.errors import PilotError
from pipeline.frontends.load import TraceFailed, load
from pipeline.nightly import keys, worker
from pipeline.nightly.orders import Order
from pipeline.nightly.records import Case
from pipeline.store import Store
from repro import failed
from repro.bisect import Bisection

ORDERS, RESULT = "orders.json", "result.json"


class Orders(msgspec.Struct, frozen=True, kw_only=True):
    """What is isolated: a case and what came of it.

    place: where the reproducer's folder goes. directory: what a source's file is relative to.
    """

    case: Case
    result: CaseResult
    place: str
    directory: str


def isolate(orders: Orders, scratch: Path, seconds: float) -> Bisection:
    """Isolates the failure of a case within `seconds` of wall time.

    What keeps it from being isolated, also the end of the time, is the `why` of the answer.
    """
    (scratch / ORDERS).write_bytes(msgspec.json.encode(orders))
    (scratch / RESULT).unlink(missing_ok=True)
    outcome = process.run(
        # -P: a team's own `models` directory beside its nightly.toml is not our package.
        [sys.executable, "-P", "-m", "pipeline.nightly.isolation", scratch],
        cwd=Path(orders.directory),
        stdout=scratch / "stdout.txt",
        stderr=scratch / "stderr.txt",
        limits=process.Limits(seconds=seconds),
    )
    if (scratch / RESULT).is_file():
        return msgspec.json.decode((scratch / RESULT).read_bytes(), type=Bisection)
    if outcome.ended_by == "time-limit":
        why = f"not isolated within {seconds:.0f} s; the next night goes on from there"
    else:
        said = (scratch / "stderr.txt").read_text(errors="replace").strip().splitlines()
        why = f"isolating it ended: {said[-1] if said else outcome.signal or outcome.exit_code}"
    return Bisection(status="gave-up", why=why)


def main(directory: Path) -> None:
    """What the child does."""
    orders = msgspec.json.decode((directory / ORDERS).read_bytes(), type=Orders)
    try:
        found = _isolate(orders)
    except PilotError as fault:
        found = Bisection(
            status="gave-up", why=" ".join(filter(None, (fault.message, fault.advice)))
        )
    partial = directory / f".{RESULT}"
    partial.write_bytes(msgspec.json.encode(found))
    partial.replace(directory / RESULT)


def _isolate(orders: Orders) -> Bisection:
    case, result = orders.case, orders.result
    assert result.failure is not None
    order = Order(what="case", case=case, directory=orders.directory)
    toolchain = worker.toolchain_of(order)
    wish = failed.Wish(
        place=Path(orders.place), limits=worker.limits(order), flags=case.flags, seed=case.seed
    )
    job = keys.job(case)
    trace = result.steps[0]
    if trace.status == "failed":
        refused = TraceFailed(result.failure, trace.seconds)
        return failed.isolate_trace(job, refused, case.target, toolchain, wish)
    loaded = load(job, Store(), toolchain, limits=wish.limits)
    return failed.isolate(loaded, result, keys.planned(case, toolchain), toolchain, wish)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
