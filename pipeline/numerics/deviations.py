"""Errors of a result against its reference, accumulated piece by piece over its elements.

numpy is imported when something is added up.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from iree_pilot.pipeline.program import tensors

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


#: Exponents of float64 as `frexp` has them begin here; 0 has a place of its own before.
_LOWEST, _EXPONENTS = 1074, 1074 + 1025
#: Elements this many times larger than all others are judged apart, if their error is at most
#: this many of their own roundings, as the exponential of a large number may be.
_APART, _ROUNDINGS = 256.0, 64.0


class Piece(NamedTuple):
    """Elements of an output from position `start` on, as float64.

    own: PyTorch's, and own_error how far they are off. alike: where the result is finite, NaN or
    infinite as a reference is. slack: absolute errors that do not count. moved: how far a
    perturbation moves the elements (see `pipeline.program.program.Reference`), None where none was
    made. tied: where another choice among equal values changes what is expected.
    """

    start: int
    got: Any
    own: Any
    expected: Any
    alike: Any
    slack: Any
    own_error: Any
    moved: Any
    tied: Any

    @property
    def error(self) -> Floats:
        """Absolute errors, 0 where there is no number to compare."""
        import numpy as np

        error: Floats = np.maximum(absolute(self.got, self.expected) - self.slack, 0.0)
        return error


def measured(pieces: Callable[[], Iterator[Piece]], dtype: str) -> tuple[Sums, Extremes]:
    """Errors of an output of `dtype`, whose pieces are read a few times."""
    import numpy as np

    with np.errstate(over="ignore", invalid="ignore"):  # of f64: what is not finite says so
        sums = Sums(dtype)
        for piece in pieces():
            sums.add(piece)
        if (below := sums.apart()) < math.inf:
            sums = Sums(dtype, below)
            for piece in pieces():
                sums.add(piece)
        extremes = Extremes(dtype, sums.root_mean_square)
        for piece in pieces():
            extremes.add(piece)
    return sums, extremes


class Sums:
    """Sums of one pass over an output, over elements finite in result and reference.

    below: what is expected to be as large or larger does not count in the norms: see `apart`.
    """

    def __init__(self, dtype: str, below: float = math.inf) -> None:
        self._dtype, self._below = dtype, below
        #: Counts by exponent of the expected value: elements, their squares, and elements whose
        #: error is more than a few of their own roundings.
        self._sizes: dict[int, Any] = {}
        self.elements = self.finite = self.tied = 0
        self.reference = self.error = self.own_error = self.perturbed_error = 0.0
        self.nan = self.inf = self.own_nan = self.own_inf = self.misplaced = 0
        self.first: tuple[int, float, float] | None = None

    def add(self, piece: Piece) -> None:
        import numpy as np

        got, own, expected = piece.got, piece.own, piece.expected
        self.elements += got.size
        self.tied += int(piece.tied.sum())
        self.nan += int(np.isnan(got).sum())
        self.inf += int(np.isinf(got).sum())
        self.own_nan += int(np.isnan(own).sum())
        self.own_inf += int(np.isinf(own).sum())
        misplaced = np.flatnonzero(~piece.alike)
        self.misplaced += misplaced.size
        if misplaced.size and self.first is None:
            at = int(misplaced[0])
            self.first = (piece.start + at, float(got[at]), float(expected[at]))
        finite = np.isfinite(got) & np.isfinite(expected)
        self._sort(piece, finite)
        finite &= np.abs(expected) < self._below
        self.finite += int(finite.sum())
        self.reference += float(np.square(expected[finite]).sum())
        self.error += float(np.square(piece.error[finite]).sum())
        self.own_error += float(np.square(piece.own_error[finite]).sum())
        if piece.moved is not None:
            self.perturbed_error += float(np.square(piece.moved[finite]).sum())

    def _sort(self, piece: Piece, finite: NDArray[np.bool_]) -> None:
        """Adds the elements to those of their exponents; 0 is below all of them."""
        import numpy as np

        expected = piece.expected[finite]
        off = np.maximum(piece.error, piece.own_error)[finite]
        noisy = off > _ROUNDINGS * tensors.step(expected, self._dtype)
        where = np.where(expected == 0, 0, np.frexp(expected)[1] + _LOWEST)
        weights = (None, np.square(expected), noisy)
        found = np.stack([np.bincount(where, weight, _EXPONENTS) for weight in weights])
        for at in np.flatnonzero(found[0]):
            self._sizes[int(at)] = self._sizes.get(int(at), 0.0) + found[:, at]

    def apart(self) -> float:
        """Size from which on elements say nothing about the others' noise; inf if none is so large.

        The fill of a mask (-1e9) is exact and has no part in the rounding of what stands beside it.
        Elements so many times as large as the others are no measure of them, where each is right
        but for roundings of its own.
        """
        count = squares = 0.0
        sizes = sorted(self._sizes)
        for at, larger in pairwise(sizes):
            count, squares = count + self._sizes[at][0], squares + self._sizes[at][1]
            size = math.ldexp(0.5, larger - _LOWEST)
            apart = squares and size > _APART * math.sqrt(squares / count)
            if apart and not any(self._sizes[e][2] for e in sizes if e >= larger):
                return size
        return math.inf

    @property
    def root_mean_square(self) -> float:
        """Root mean square of the reference; 1 if it is all zero, so that errors are absolute.

        What is judged apart has at least the smallest normal number of its type for a measure: what
        is smaller has lost digits, or is rounded to 0.
        """
        if not self.reference:
            return 1.0
        root = math.sqrt(self.reference / self.finite)
        return root if self._below == math.inf else max(root, tensors.smallest_normal(self._dtype))

    def relative(self, squares: float) -> float:
        norm = self.root_mean_square * math.sqrt(self.finite)
        return math.sqrt(squares) / norm if norm else 0.0


class Extremes:
    """Extremes from one more pass, once the reference's root mean square is known."""

    def __init__(self, dtype: str, root: float) -> None:
        self.dtype, self.root = dtype, root
        self.max_abs = self.max_rel = self.excess = self.own_excess = 0.0
        self.perturbed_excess = 0.0
        self.worst: tuple[int, float, float] | None = None

    def add(self, piece: Piece) -> None:
        import numpy as np

        got, expected, error = piece.got, piece.expected, piece.error
        size = np.abs(expected) + self.root
        step = tensors.step(expected, self.dtype)
        relative = np.nan_to_num(error / size)
        at = int(relative.argmax())
        if self.worst is None or float(relative[at]) > self.max_rel:
            self.worst = (piece.start + at, float(got[at]), float(expected[at]))
        self.max_abs = max(self.max_abs, float(absolute(got, expected).max()))
        self.max_rel = max(self.max_rel, float(relative[at]))
        self.excess = max(self.excess, _largest((error - step) / size))
        self.own_excess = max(self.own_excess, _largest((piece.own_error - step / 2) / size))
        if piece.moved is not None:
            moved = _largest((piece.moved - step / 2) / size)
            self.perturbed_excess = max(self.perturbed_excess, moved)

    def over(self, piece: Piece, limit: float) -> int:
        """Number of elements whose excess is over the limit."""
        import numpy as np

        excess = piece.error - tensors.step(piece.expected, self.dtype)
        return int((excess > limit * (np.abs(piece.expected) + self.root)).sum())


def _largest(values: Floats) -> float:
    import numpy as np

    return float(np.nan_to_num(values).max())


def absolute(values: Floats, expected: Floats) -> Floats:
    """The absolute error, 0 where it is not a number or infinite."""
    import numpy as np

    with np.errstate(invalid="ignore"):
        error = np.abs(values - expected)
    return np.where(np.isfinite(error), error, 0.0)
