"""Detection of lasting changes of a metric, against a robust baseline.

A series is walked from its oldest value. The baseline is the median of all values since the last
change, their noise 1.4826 MAD (the standard deviation, if they are normally distributed). When the
latest k values (at least the rule's `nights`) all lie beyond the baseline on one side, by the
rule's least relative and absolute change and by 9/k of the noise, that is a change, found in the
last of them. The first of them begins a new baseline, so that nothing is reported twice. As long as
there are few values to know baseline and noise from, more is asked; from fewer than the rule's
`nights` nothing is concluded, since they do not show how noisy the metric is.

With 20 values and more, normally distributed noise of a tenth moves nothing in 10,000 nights, and
a step by 30% under noise of 3% is found in the third night, under 5% in the sixth at the latest
nearly always. Every twentieth night being slow by half or more, for no reason, makes two false
alarms in 10,000 nights: three such nights in a row are a change.

Counts and sizes that the compiler decides do not vary, so for them one night is enough.
"""

from __future__ import annotations

import bisect
import statistics
from collections.abc import Sequence

import msgspec

#: Factor of the noise, divided by the number of values that lie beyond it.
_NOISES = 9.0
_LONGEST = 12
_MAD_TO_DEVIATION = 1.4826
#: Widening of the threshold for short baselines: by 1 + this / n for n values.
_FEW = 4.0


class Rule(msgspec.Struct, frozen=True):
    """least: relative change that counts. floor: absolute change that counts, in the metric's
    unit. nights: how many values in a row must show it.
    """

    least: float
    floor: float = 0.0
    nights: int = 1

    @property
    def exact(self) -> bool:
        """True if one value is as good as many."""
        return self.nights == 1

    @property
    def longest(self) -> int:
        """Largest number of values in a row that a rule looks at."""
        return self.nights if self.exact else _LONGEST


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
    """True if the latest values may be the begin of a change upwards, but are too few to tell."""
    found, start = _walk(values, rule)
    if rule.exact or (found and found[-1].found == len(values) - 1):
        return False
    return any(
        _beyond(values[start:-count], values[-count:], rule.nights, rule) > 0
        for count in range(1, rule.nights)
        if len(values) - count > start
    )


def _walk(values: Sequence[float], rule: Rule) -> tuple[list[Shift], int]:
    """(the changes, index of the first value of the baseline that holds at the end)."""
    found: list[Shift] = []
    start = 0
    base: list[float] = []
    for index in range(len(values)):
        newest = index - rule.nights
        if newest >= start:
            bisect.insort(base, values[newest])
        if not base or not _apart(
            _median(base), values[newest + 1 : index + 1], rule.least, rule.floor
        ):
            continue
        for count in range(rule.nights, min(index - start, rule.longest) + 1):
            first = index - count + 1
            before, latest = values[start:first], values[first : index + 1]
            if _beyond(before, latest, count, rule):
                middle, after = statistics.median(before), statistics.median(latest)
                found.append(Shift(middle, after, len(before), first, index))
                start, base = first, []
                break
    return found, start


def _beyond(before: Sequence[float], latest: Sequence[float], count: int, rule: Rule) -> int:
    """1 if all of `latest` lie well above the earlier values, -1 if below, else 0.

    count: the number of values that are tested so.
    """
    center = statistics.median(before)
    if rule.exact:
        return _apart(center, latest, rule.least, rule.floor)
    if len(before) < rule.nights:
        return 0
    wider = 1 + _FEW / len(before)
    noise = _MAD_TO_DEVIATION * statistics.median(abs(value - center) for value in before)
    floor = max(rule.floor, _NOISES / count * noise * wider)
    return _apart(center, latest, rule.least * wider, floor)


def _apart(center: float, values: Sequence[float], least: float, floor: float) -> int:
    """1 or -1 where all values lie on one side of `center`, away by both limits, else 0."""
    away = max(least * abs(center), floor)
    if min(values) > center:
        return int(min(values) - center >= away)
    return -int(center - max(values) >= away) if max(values) < center else 0


def _median(ordered: list[float]) -> float:
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
