"""Since which release: where a failure comes or goes along an ordered list of releases.

Pure: it sees names in order and something that answers for them. Where the two ends differ, the
place where the verdict changes is found by halving, which assumes that between two releases with
one verdict nothing else happens. Where the ends agree there is either nothing to find or a failure
that came and went, and only asking of every release can tell.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Literal

import msgspec

Verdict = Literal["same", "different", "passes", "unsupported", "not-installable"]
#: Verdicts that say something of the failure. The others are stepped over.
TELLING: tuple[Verdict, ...] = ("same", "different", "passes")
#: Closeness of a verdict to the wanted failure.
_BADNESS = {"passes": 0, "different": 1, "same": 2}

Ask = Callable[[Sequence[str]], Sequence[Verdict]]


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """Two releases, with nothing between them that could be asked, whose verdicts differ.

    good: the one without the failure (or with another one, where neither shows it). came: whether
    the failure is in the newer one. between: releases in between that could not be asked.
    good_revision, bad_revision: IREE's commits. script: for `git bisect run` between them.
    """

    good: str
    bad: str
    good_verdict: Verdict
    bad_verdict: Verdict
    came: bool
    between: tuple[str, ...] = ()
    good_revision: str = ""
    bad_revision: str = ""
    script: str = ""

    @property
    def older(self) -> str:
        return self.good if self.came else self.bad

    @property
    def newer(self) -> str:
        return self.bad if self.came else self.good

    @property
    def older_verdict(self) -> Verdict:
        return self.good_verdict if self.came else self.bad_verdict

    @property
    def newer_verdict(self) -> Verdict:
        return self.bad_verdict if self.came else self.good_verdict

    @property
    def older_revision(self) -> str:
        return self.good_revision if self.came else self.bad_revision

    @property
    def newer_revision(self) -> str:
        return self.bad_revision if self.came else self.good_revision


def search(
    releases: Sequence[str], ask: Ask, *, every: bool = False, known: Sequence[str] = ()
) -> dict[str, Verdict]:
    """Verdicts of the releases that were asked about, in their order.

    releases: the oldest first. ask: answers for several at once, in their order; it is asked of
    each release once. every: ask of all. known: releases that have been asked about already, which
    cost nothing to ask again.

    One change between n releases takes at most 2 + ceil(log2(n - 1)) questions.
    """
    asked: dict[int, Verdict] = {}

    def find_out(indices: Sequence[int]) -> None:
        fresh = [i for i in dict.fromkeys(indices) if i not in asked]
        if fresh:
            asked.update(zip(fresh, ask([releases[i] for i in fresh]), strict=True))

    def is_conclusive(index: int) -> bool:
        find_out([index])
        return asked[index] in TELLING

    last = len(releases) - 1
    everything = range(len(releases))
    find_out(everything if every else [releases.index(name) for name in known])
    if releases and not every:
        find_out([last, 0])
    newest = next((i for i in reversed(everything) if is_conclusive(i)), None)
    oldest = next((i for i in everything if newest is not None and is_conclusive(i)), None)
    if newest is None or oldest is None:
        return {releases[i]: asked[i] for i in sorted(asked)}
    points = [i for i in sorted(asked) if asked[i] in TELLING]
    if len({asked[i] for i in points}) == 1:
        find_out(everything)
    spans = [*pairwise(points)]
    while spans:
        older, newer = spans.pop()
        if asked[older] == asked[newer]:
            continue
        inside = sorted(range(older + 1, newer), key=lambda i: abs(2 * i - older - newer))
        middle = next((i for i in inside if is_conclusive(i)), None)
        if middle is not None:
            spans += [(older, middle), (middle, newer)]
    return {releases[i]: asked[i] for i in sorted(asked)}


def changes(releases: Sequence[str], verdicts: Mapping[str, Verdict]) -> tuple[Change, ...]:
    """Changes of the verdict, the oldest first; releases without a verdict are skipped."""
    telling = [i for i, name in enumerate(releases) if verdicts.get(name) in TELLING]
    found = []
    for older, newer in pairwise(telling):
        pair = releases[older], releases[newer]
        if verdicts[pair[0]] == verdicts[pair[1]]:
            continue
        good, bad = sorted(pair, key=lambda name: _BADNESS[verdicts[name]])
        found.append(
            Change(
                good=good,
                bad=bad,
                good_verdict=verdicts[good],
                bad_verdict=verdicts[bad],
                came=bad == pair[1],
                between=tuple(releases[older + 1 : newer]),
            )
        )
    return tuple(found)


def assumed(releases: Sequence[str], verdicts: Mapping[str, Verdict]) -> dict[str, Verdict]:
    """Assumed verdicts of releases that were not tested: the verdict on both sides."""
    found: dict[str, Verdict] = {}
    telling = [i for i, name in enumerate(releases) if verdicts.get(name) in TELLING]
    for older, newer in pairwise(telling):
        if verdicts[releases[older]] == verdicts[releases[newer]]:
            for name in releases[older + 1 : newer]:
                if name not in verdicts:
                    found[name] = verdicts[releases[older]]
    return found
