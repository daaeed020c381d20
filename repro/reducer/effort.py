"""Limits and parallelism of candidates, derived from the failing run."""

from __future__ import annotations

import os

import msgspec

from iree_pilot.pipeline.failures.diagnostics import Failure
from iree_pilot.pipeline.processes import process
from iree_pilot.pipeline.processes.process import Limits

#: Candidates are smaller than the program, but the machine may be busier than it was.
_TIMES = 5.0
_LEAST_SECONDS = 60.0
#: Room that a candidate gets over the memory that the failing run took.
_MEMORY_TIMES = 1.5
#: Share of the available memory for all candidates together.
_SHARE = 0.9


class Effort(msgspec.Struct, frozen=True, kw_only=True):
    """limits: of one candidate. width: how many at once."""

    limits: Limits
    width: int


def estimate(
    failure: Failure,
    seconds: float,
    peak_bytes: int,
    given: Limits,
    *,
    cores: int | None = None,
    available_bytes: int | None = None,
) -> Effort:
    """The effort for candidates of a failure that took a run `seconds` and `peak_bytes`.

    A hang and a shortage of memory are what they are at the limits of the first run, `given`:
    candidates get exactly those. Any other candidate that takes much longer than the first run is
    no smaller program, and is not waited for. cores, available_bytes: of this machine unless given.
    """
    if cores is None:
        cores = len(os.sched_getaffinity(0))
    if available_bytes is None:
        available_bytes = process.available_bytes()
    room = int(_SHARE * available_bytes)
    width = max(1, min(cores, int(room // (_MEMORY_TIMES * max(peak_bytes, 1)))))
    if failure.kind in ("timeout", "out-of-memory"):
        return Effort(limits=given, width=width)
    allowed = max(_LEAST_SECONDS, _TIMES * seconds)
    limits = msgspec.structs.replace(
        given,
        seconds=min(allowed, given.seconds or allowed),
        memory_bytes=min(room // width, given.memory_bytes or room),
    )
    return Effort(limits=limits, width=width)
