"""The first of an ordered row of things from which on something is wrong, in few questions."""

from __future__ import annotations

from collections.abc import Callable


def narrow(count: int, wrong: Callable[[int], bool]) -> int | None:
    """The number i of the thing that makes it wrong: `wrong(i + 1)` and not `wrong(i)`.

    wrong: asked of how many of the things, the first ones, are there. It is taken to be right with
    none and wrong with all of them (ask that first), so that the row has such a place even where
    right and wrong alternate. At most log2(count) + 1 questions; None where there are no things.
    """
    right, bad = 0, count
    if not count:
        return None
    while bad - right > 1:
        middle = (right + bad) // 2
        if wrong(middle):
            bad = middle
        else:
            right = middle
    return right
