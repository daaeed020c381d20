"""Record of wrong numbers: plain data."""

from __future__ import annotations

import msgspec


class WrongElement(msgspec.Struct, frozen=True):
    """One element of an output: what the device gave, and what is right."""

    index: tuple[int, ...]
    got: str
    expected: str


class Wrong(msgspec.Struct, frozen=True, kw_only=True):
    """One output that is wrong.

    dtype: as the program has it. error: the largest absolute error over finite elements;
    own_error: PyTorch's own against float64, None for integers. threshold: an absolute error
    between the two, 0 for integers; size: of the largest element. wrong: how many of `count`
    elements. limit: what the judgement allows, in words. elements: the worst of them. path: as in
    `TensorType`, of an output of the whole program. ties: it has indices, and others than the
    expected ones are right too, as they point to equal values.
    """

    index: int
    dtype: str
    shape: tuple[int, ...]
    error: float
    own_error: float | None
    threshold: float
    size: float
    wrong: int
    count: int
    limit: str
    elements: tuple[WrongElement, ...]
    path: str = ""
    ties: bool = False

    @property
    def misplaced(self) -> bool:
        """True if NaN, Inf or a finite number is where it is not expected; such elements are first
        among the worst."""
        return any(
            name in value
            for worst in self.elements[:1]
            for value in (worst.got.lower(), worst.expected.lower())
            for name in ("nan", "inf")
        )
