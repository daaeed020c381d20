"""Whether a metric has moved for good: a change that lasts, against a robust baseline.

A series is walked from its oldest value. The baseline is the median of all values since the last
change, their noise 1.4826 MAD (the standard deviation, if they are normally distributed). When the
latest `nights` values all lie beyond the baseline on one side by more than the threshold, that is
a change, found in the last of these nights, and the first of them begins a new baseline: nothing is
told twice. The threshold is the largest of the rule's least relative change, its least absolute
change and three times the noise; it is wider as long as there are few values to know them from.

Counts and sizes that the compiler decides do not vary, so for them one night is enough.
"""

from __future__ import annotations

import bisect
import statistics
from collections.abc import Sequence

import msgspec

_NOISES = 3.0
_MAD_TO_DEVIATION = 1.4826
#: With n values in the baseline the threshold is 1 + this / n times as wide.
_FEW = 3.0


class Rule(msgspec.Struct, frozen=True):
    """least: relative change that counts. floor: absolute change that counts, in the metric's
    unit. nights: how many values in a row must show it.
    """

    least: float
    floor: float = 0.0
    nights: int = 1

    @property
    def exact(self) -> bool:
        """Whether one value is as good as many."""
        return self.nights == 1


class Shift(msgspec.Struct, frozen=True):
    """A change of a series: before and after as medians, and how many values the first is of.

    start: index of the first value after it. found: index of the value that made it certain.
    """

    before: float
    after: float
    values: int
    start: int
    found: int

    @property
    def up(self) -> bool:
        return self.after > self.before


def shifts(values: Sequence[float], rule: Rule) -> list[Shift]:
    """The changes of a series, oldest value first."""
    return _walk(values, rule)[0]


def suspected(values: Sequence[float], rule: Rule) -> bool:
    """Whether the latest values may be the begin of a change upwards, but are too few to tell."""
    if rule.exact or not values:
        return False
    found, start = _walk(values, rule)
    if found and found[-1].found == len(values) - 1:
        return False
    return any(
        _beyond(sorted(values[start:-count]), values[-count:], rule) == 1
        for count in range(1, rule.nights)
        if len(values) - count > start
    )


def _walk(values: Sequence[float], rule: Rule) -> tuple[list[Shift], int]:
    """(the changes, index of the first value of the baseline that holds at the end)."""
    found: list[Shift] = []
    start, base = 0, list[float]()
    for index in range(rule.nights, len(values)):
        first = index - rule.nights + 1
        if first <= start:
            continue
        bisect.insort(base, values[first - 1])
        latest = values[first : index + 1]
        if _beyond(base, latest, rule):
            after = statistics.median(latest)
            found.append(Shift(_median(base), after, len(base), first, index))
            start, base = first, []
    return found, start


def _beyond(base: list[float], latest: Sequence[float], rule: Rule) -> int:
    """Whether all of `latest` lie well above (1) or below (-1) the sorted `base`, or not (0)."""
    center = _median(base)
    wider = 1.0 if rule.exact else 1 + _FEW / len(base)
    nearest = min(latest) - center if latest[0] > center else center - max(latest)
    if nearest <= 0 or nearest < max(rule.least * abs(center) * wider, rule.floor):
        return 0
    noise = _MAD_TO_DEVIATION * statistics.median(abs(value - center) for value in base)
    if nearest < _NOISES * noise * wider:
        return 0
    return 1 if latest[0] > center else -1


def _median(ordered: list[float]) -> float:
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
