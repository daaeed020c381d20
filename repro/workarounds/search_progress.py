"""Progress of a search for workarounds: outcomes, counted round by round."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec

from iree_pilot.repro.workarounds.combination_search import (
    MOST_PAIRS,
    Combination,
    CombinationOutcome,
)

#: reproducer: on that of the failure, which says what to try first on the program. program: on the
#: program. pairs: two at once there. longer: with more time there.
Round = Literal["reproducer", "program", "pairs", "longer"]


class CombinationProgress(msgspec.Struct, frozen=True, kw_only=True):
    """One combination that was answered: the `count`-th of at most `total` of its round."""

    round: Round
    names: tuple[str, ...]
    outcome: CombinationOutcome
    count: int
    total: int


class ProgressCounter:
    """Counts reported outcomes, those of each round from 1 on."""

    def __init__(self, on_progress: Callable[[CombinationProgress], None]) -> None:
        self._on_progress = on_progress
        self.begin("program", 0)

    def begin(self, name: Round, total: int) -> None:
        """The next outcomes are those of another round, of which there are so many at most."""
        self._round, self._total, self._count = name, total, 0

    def add(self, combination: Combination, outcome: CombinationOutcome) -> None:
        if self._round == "program" and len(combination) > 1:
            self.begin("pairs", MOST_PAIRS)
        self._count += 1
        self._on_progress(
            CombinationProgress(
                round=self._round,
                names=tuple(one.name for one in combination),
                outcome=outcome,
                count=self._count,
                total=self._total,
            )
        )
