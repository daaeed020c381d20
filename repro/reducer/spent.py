"""Cost of a search over all its runs: compiles and seconds."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec

from iree_pilot.repro.reducer import kept


class _Total(msgspec.Struct, frozen=True, kw_only=True):
    calls: int = 0
    seconds: float = 0.0


class Spent:
    """Compiles and seconds of a search, kept in a file for the run that resumes it.

    earlier_seconds: of the runs before this one.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._earlier = kept.recall(file, _Total) or _Total()
        self._started = time.monotonic()
        self.calls = self._earlier.calls

    @property
    def earlier_seconds(self) -> float:
        return self._earlier.seconds

    @property
    def seconds(self) -> float:
        return self._earlier.seconds + time.monotonic() - self._started

    def add(self, calls: int) -> None:
        """Counts compiles, and keeps the totals: whoever kills the process loses little."""
        self.calls += calls
        self.keep()

    def keep(self) -> None:
        kept.keep(self._file, _Total(calls=self.calls, seconds=self.seconds))
