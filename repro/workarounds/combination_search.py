"""Search for one candidate, or else two, that avoid a failure. Pure: it sees an oracle.

Singles are tried in the order given; two at once only if none of them works. A part after which the
program fails later has got one obstacle out of the way; it is paired with what is made for the
next one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice, zip_longest
from typing import Literal, NamedTuple

import msgspec

from iree_pilot.pipeline.failures.diagnostics import Failure
from iree_pilot.repro.workarounds.candidate import Candidate

#: works: compiles, runs and agrees with the reference. runs: it was not compared with one.
#: compiles: it cannot be run here. inconclusive: it did not get to where the failure shows (wrong
#: numbers, and nothing was compared). further: fails in a later step, or in fewer ways at once.
#: same: the same failure. other: another one, no later. unresolved: a limit was reached.
#: unsupported: this release does not take the flags. inapplicable: nothing to rewrite.
State = Literal[
    "works",
    "runs",
    "compiles",
    "inconclusive",
    "further",
    "same",
    "other",
    "unresolved",
    "unsupported",
    "inapplicable",
]
ANSWERS: tuple[State, ...] = ("works", "runs", "compiles")
#: Pairs that are tried where no single candidate works.
MOST_PAIRS = 24
#: Number of candidates with the same new failure that are paired.
_ALIKE = 2

#: After an answer, so many more are tried in vain.
PATIENCE = 8

Combination = tuple[Candidate, ...]


class CombinationOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """Outcome of a combination. rank: how far it got, in steps of compiling and running."""

    state: State
    rank: int = 0
    why: str = ""
    failure: Failure | None = None


class Tried(msgspec.Struct, frozen=True, kw_only=True):
    """A combination and what came of it."""

    candidates: Combination
    outcome: CombinationOutcome


Ask = Callable[[Sequence[Combination]], Sequence[CombinationOutcome]]
#: Candidates in the order in which they are worth trying against a failure.
Order = Callable[[Sequence[Candidate], Failure], Sequence[Candidate]]


class SearchBounds(NamedTuple):
    """Limits of a search.

    enough: so many answers do, None: all that there are. patience: after an answer, so many more
    are tried at most in vain: what is likely comes first. width: so many are asked at a time.
    expired: no more time; what was found until then is returned.
    """

    enough: int | None = 3
    patience: int | None = PATIENCE
    width: int = 1
    most_pairs: int = MOST_PAIRS
    expired: Callable[[], bool] = lambda: False


def search(
    candidates: Sequence[Candidate], ask: Ask, order: Order, bounds: SearchBounds | None = None
) -> list[Tried]:
    """Searches, and returns the trials in order.

    order: for the second part of pairs, against what the first part leads to. ask: answers for
    several combinations.
    """
    enough, patience, width, most_pairs, expired = bounds or SearchBounds()
    tried: list[Tried] = []

    def found() -> int:
        return sum(one.outcome.state in ANSWERS for one in tried)

    def done() -> bool:
        answers = found()
        if expired() or (enough is not None and answers >= enough):
            return True
        since = next((i for i, t in enumerate(reversed(tried)) if t.outcome.state in ANSWERS), 0)
        return patience is not None and answers > 0 and since >= patience

    def go(combinations: Sequence[Combination]) -> None:
        for first in range(0, len(combinations), width):
            if done():
                return
            batch = combinations[first : first + width]
            tried.extend(
                Tried(candidates=one, outcome=outcome)
                for one, outcome in zip(batch, ask(batch), strict=True)
            )

    go([(one,) for one in candidates])
    if not found():
        go(list(islice(pairs(tried, order), most_pairs)))
    return tried


def pairs(singles: Sequence[Tried], order: Order) -> Iterator[Combination]:
    """Pairs worth trying after all singles have failed, the most promising first.

    One part of a pair got further, or changed the failure; the other is made for what fails then.
    Of parts that lead to one failure the first two are paired. Parts that cannot be tried at all
    are in none.
    """
    able = [one for one in singles if one.outcome.state in ("further", "same", "other")]
    moved = [one for one in able if one.outcome.state == "further"]
    moved = moved or [one for one in able if one.outcome.state == "other"]
    moved.sort(key=lambda one: -one.outcome.rank)
    led: dict[str, list[Tried]] = {}
    for one in moved:
        if one.outcome.failure is not None:
            led.setdefault(one.outcome.failure.signature, []).append(one)
    partners = [
        _with(first, able, group, order) for group in led.values() for first in group[:_ALIKE]
    ]
    seen: set[frozenset[str]] = set()
    for turn in zip_longest(*partners):
        for pair in turn:
            names = frozenset(one.name for one in pair or ())
            if pair is not None and names not in seen:
                seen.add(names)
                yield pair


def _with(
    first: Tried, able: Sequence[Tried], alike: Sequence[Tried], order: Order
) -> list[Combination]:
    """The pairs of one part, with what is made for the failure that it leads to first.

    alike: parts that lead to the same failure, of which one is as good as two.
    """
    assert first.outcome.failure is not None
    others = [one.candidates[0] for one in able if one not in alike]
    (own,) = first.candidates
    return [(own, o) for o in order(others, first.outcome.failure) if o.goes_with(own)]
