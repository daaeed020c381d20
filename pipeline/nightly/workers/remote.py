"""A job on a cluster's worker: one of its threads runs it in a process."""

from __future__ import annotations

import functools
import hashlib
import tempfile
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from threading import Event

import msgspec

from iree_pilot.pipeline.nightly.records import CaseOutcome
from iree_pilot.pipeline.nightly.workers.orders import Order, untraced, with_trace
from iree_pilot.pipeline.processes import process

#: Topic of the messages of workers that they began a job.
TOPIC = "iree-pilot"

#: An outcome as JSON, and the packed program that a trace made.
Reply = tuple[bytes, bytes]
Employ = Callable[[Order], CaseOutcome]
#: The nights that this worker has jobs of; set to end these jobs.
_STOPS: dict[str, Event] = {}


def work(order: bytes, trace: Reply | None, employ: Employ, night: str, number: int) -> Reply:
    """One job on a worker. trace: of the case's program, where that was a job of this night."""
    from distributed import get_worker

    task_order = msgspec.json.decode(order, type=Order)
    traced = msgspec.json.decode(trace[0], type=CaseOutcome) if trace else None
    if traced is not None and traced.status != "ok":
        return msgspec.json.encode(untraced(task_order, traced)), b""
    here = get_worker()
    here.log_event(TOPIC, {"night": night, "job": number, "where": str(here.name)})
    ended = _STOPS.setdefault(night, Event())
    process.STOP.set(ended)
    with tempfile.TemporaryDirectory(prefix="iree-pilot-") as scratch:
        parcel = Path(scratch, "program.tar")
        if trace and trace[1]:
            parcel.write_bytes(trace[1])
        try:
            if ended.is_set():
                raise KeyboardInterrupt
            done = employ(msgspec.structs.replace(task_order, parcel=str(parcel)))
        except KeyboardInterrupt:
            # It would end the worker, which is not ours.
            raise RuntimeError("the night was ended") from None
        packed = task_order.what == "trace" and parcel.is_file()
        done = msgspec.structs.replace(with_trace(done, traced), worker=str(here.name))
        return msgspec.json.encode(done), parcel.read_bytes() if packed else b""


def outcome(reply: Reply) -> Reply:
    """A trace's reply without the program, which stays with the workers."""
    return reply[0], b""


def stop(night: str) -> None:
    """Ends the jobs of a night on this worker."""
    _STOPS.setdefault(night, Event()).set()


@functools.cache
def code() -> str:
    """The version of iree-pilot, with a digest of its code: what workers must have in common."""
    try:
        release = version("iree-pilot")
    except PackageNotFoundError:
        release = "?"
    root = Path(__file__).resolve().parents[3]
    hashed = hashlib.sha256()
    tops = ("pipeline", "models", "repro")
    for file in sorted(f for top in tops for f in (root / top).rglob("*.py")):
        hashed.update(file.read_bytes())
    return f"iree-pilot {release} ({hashed.hexdigest()[:12]})"
