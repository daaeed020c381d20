"""Work on one failure in a process of its own: it has a limit, and can die alone.

A child is `python -m MODULE DIRECTORY`: it reads orders.json there and writes result.json.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec

from iree_pilot.pipeline import process

T = TypeVar("T")
Orders = TypeVar("Orders")

_ORDERS, _RESULT = "orders.json", "result.json"


class Unfinished(Exception):
    """There is no result; the message says why. late: the time was over."""

    def __init__(self, why: str, *, late: bool) -> None:
        super().__init__(why)
        self.late = late


def run(
    module: str,
    orders: msgspec.Struct,
    answer: type[T],
    *,
    directory: Path,
    scratch: Path,
    seconds: float,
) -> T:
    """What the child answers within `seconds` of wall time. directory: where it works.

    Raises Unfinished.
    """
    (scratch / _ORDERS).write_bytes(msgspec.json.encode(orders))
    (scratch / _RESULT).unlink(missing_ok=True)
    outcome = process.run(
        # -P: a team's own `models` directory beside its nightly.toml is not our package.
        [sys.executable, "-P", "-m", module, scratch],
        cwd=directory,
        stdout=scratch / "stdout.txt",
        stderr=scratch / "stderr.txt",
        limits=process.Limits(seconds=seconds),
    )
    if (scratch / _RESULT).is_file():
        return msgspec.json.decode((scratch / _RESULT).read_bytes(), type=answer)
    if outcome.ended_by == "time-limit":
        raise Unfinished(f"not within {seconds:.0f} s", late=True)
    said = (scratch / "stderr.txt").read_text(errors="replace").strip().splitlines()
    raise Unfinished(said[-1] if said else str(outcome.signal or outcome.exit_code), late=False)


def answer(directory: Path, orders: type[Orders], work: Callable[[Orders], msgspec.Struct]) -> None:
    """What a child does: its orders carried out, the result in place at once or not at all."""
    given = msgspec.json.decode((directory / _ORDERS).read_bytes(), type=orders)
    partial = directory / f".{_RESULT}"
    partial.write_bytes(msgspec.json.encode(work(given)))
    partial.replace(directory / _RESULT)
