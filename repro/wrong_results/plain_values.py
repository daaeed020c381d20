"""The search for the few elements of a program's inputs that matter: the others become 0 or 1.

It sees numbers of elements, and a function that tells of several choices at once whether the result
is still wrong. The program stays as it is, so that a choice costs a run and no compile.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import msgspec

#: Number of rounds of several choices, and of choices in all.
_ROUNDS = 12
_CHOICES = 128
#: Number of groups of elements that are tried first.
_PARTS = 8


class Kept(msgspec.Struct, frozen=True):
    """Elements of an input that keep their values, by position; the others become `fill`.

    None: all of them keep theirs.
    """

    elements: tuple[int, ...]
    fill: int | None = None


#: Choice for each input.
Choice = tuple[Kept, ...]
#: Tests whether each choice is still wrong.
Ask = Callable[[Sequence[Choice]], Sequence[bool]]


def plain(sizes: Sequence[int], ask: Ask) -> Choice:
    """A choice that is still wrong, with as few elements as were found in a few rounds.

    sizes: of the inputs, in elements. All of the elements, untouched, are wrong to begin with.
    """
    return _ValueSearch(tuple(sizes), ask).run()


class _ValueSearch:
    def __init__(self, sizes: tuple[int, ...], ask: Ask) -> None:
        self._ask = ask
        self._rounds = self._choices = 0
        self.best: Choice = tuple(Kept(tuple(range(size))) for size in sizes)

    def run(self) -> Choice:
        for _ in self.best:
            if not self._whole_inputs():
                break
        for fill in (0, 1):
            self._elements(fill)
        return self.best

    def _asked(self, choices: list[Choice]) -> list[Choice]:
        """Choices that are still wrong; none if no calls are left."""
        fresh = [c for c in dict.fromkeys(choices) if c != self.best]
        fresh = fresh[: _CHOICES - self._choices]
        if not fresh or self._rounds >= _ROUNDS:
            return []
        self._rounds += 1
        self._choices += len(fresh)
        return [c for c, wrong in zip(fresh, self._ask(fresh), strict=True) if wrong]

    def _with(self, number: int, kept: Kept) -> Choice:
        return (*self.best[:number], kept, *self.best[number + 1 :])

    def _whole_inputs(self) -> bool:
        """Takes inputs that do not matter at all, all of them at once where that can be."""
        open_ = [n for n, kept in enumerate(self.best) if kept.elements]
        singles = {
            self._with(number, Kept((), fill)): number for number in open_ for fill in (0, 1)
        }
        good = self._asked([*singles])
        if not good:
            return False
        first = {singles[choice]: choice for choice in reversed(good)}
        together = tuple(first[n][n] if n in first else k for n, k in enumerate(self.best))
        if len(first) > 1 and self._asked([together]):
            self.best = together
            return False
        self.best = good[0]
        return len(first) > 1

    def _elements(self, fill: int) -> None:
        """Takes groups of elements out, smaller and smaller ones."""
        parts = _PARTS
        while self._rounds < _ROUNDS:
            all_ = [(n, e) for n, kept in enumerate(self.best) for e in kept.elements]
            if len(all_) <= 1:
                return
            parts = min(parts, len(all_))
            edges = [len(all_) * part // parts for part in range(parts + 1)]
            groups = [all_[a:b] for a, b in pairwise(edges)]
            only = [self._keeping(group, fill) for group in groups]
            without = [
                self._keeping([e for e in all_ if e not in set(group)], fill) for group in groups
            ]
            good = self._asked([*only, *without])
            if alone := [choice for choice in good if choice in only]:
                self.best, parts = alone[0], _PARTS
                continue
            gone = [group for group, left in zip(groups, without, strict=True) if left in good]
            if gone:
                away = {e for group in gone for e in group}
                combined = self._keeping([e for e in all_ if e not in away], fill)
                better = len(gone) > 1 and self._asked([combined])
                self.best = combined if better else good[0]
                parts = max(parts - 1, 2)
                continue
            if parts >= len(all_):
                return
            parts *= 2

    def _keeping(self, elements: Sequence[tuple[int, int]], fill: int) -> Choice:
        def one(number: int, kept: Kept) -> Kept:
            left = tuple(e for n, e in elements if n == number)
            if len(left) == len(kept.elements):
                return kept
            return Kept(left, fill if kept.fill is None else kept.fill)

        return tuple(one(number, kept) for number, kept in enumerate(self.best))
