"""Work on one failure in a process of its own: it has a limit, and can die alone."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import msgspec

from iree_pilot.pipeline.processes import process, task

T = TypeVar("T")


class Unfinished(Exception):
    """There is no result; the message says why. late: the time was over."""

    def __init__(self, why: str, *, late: bool) -> None:
        super().__init__(why)
        self.late = late


def run(
    function: str,
    orders: msgspec.Struct,
    answer: type[T],
    *,
    directory: Path,
    scratch: Path,
    seconds: float,
) -> T:
    """Calls `module:function`, for at most `seconds` of wall time. directory: where it works.

    Raises Unfinished.
    """
    limits = process.Limits(seconds=seconds)
    done = task.call(function, orders, answer, scratch, limits=limits, cwd=directory)
    if done.reply is not None:
        return done.reply
    if done.outcome.ended_by == "time-limit":
        raise Unfinished(f"not within {seconds:.0f} s", late=True)
    raise Unfinished(done.why, late=False)
