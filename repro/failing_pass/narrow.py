"""Bisection of an ordered row for the first wrong element, in few questions."""

from __future__ import annotations

from collections.abc import Callable


def narrow(
    count: int, wrong: Callable[[int], bool | None], most: int | None = None
) -> tuple[int, int]:
    """(right, wrong): with the first `right` things it is right, with the first `wrong` it is not.

    wrong: asked of how many of the things, the first ones, are there; None is no answer. It is
    taken to be right with none and wrong with all of them (ask that first), so that there is such a
    place even where right and wrong alternate. They are neighbours unless nothing between them can
    be asked, or after `most` questions; without those it takes log2(count) + 1.
    """
    right, bad = 0, count
    mute: set[int] = set()
    asked = 0
    while most is None or asked < most:
        between = [i for i in range(right + 1, bad) if i not in mute]
        if not between:
            break
        middle = min(between, key=lambda i: abs(2 * i - right - bad))
        asked += 1
        answer = wrong(middle)
        if answer is None:
            mute.add(middle)
        elif answer:
            bad = middle
        else:
            right = middle
    return right, bad
