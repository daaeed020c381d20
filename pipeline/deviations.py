"""How far a result lies from what is expected, added up piece by piece over its elements.

numpy is imported when something is added up.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from pipeline import tensors

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


class Piece(NamedTuple):
    """Elements of an output from position `start` on, as float64 or the integers they are.

    own: PyTorch's. precise, perturbed: see `pipeline.program.Reference`; None where there are none.
    """

    start: int
    got: Any
    own: Any
    precise: Any
    perturbed: Any


class Sums:
    """What one pass over an output adds up, over elements finite in result and reference."""

    def __init__(self) -> None:
        self.elements = self.finite = 0
        self.reference = self.error = self.own_error = self.perturbed_error = 0.0
        self.nan = self.inf = self.own_nan = self.own_inf = self.misplaced = 0
        self.first: tuple[int, float, float] | None = None

    def add(self, piece: Piece) -> None:
        import numpy as np

        start, got, own, _, perturbed = piece
        expected, alike = _expect(piece)
        self.elements += got.size
        self.nan += int(np.isnan(got).sum())
        self.inf += int(np.isinf(got).sum())
        self.own_nan += int(np.isnan(own).sum())
        self.own_inf += int(np.isinf(own).sum())
        misplaced = np.flatnonzero(~alike)
        self.misplaced += misplaced.size
        if misplaced.size and self.first is None:
            at = int(misplaced[0])
            self.first = (start + at, float(got[at]), float(expected[at]))
        finite = np.isfinite(got) & np.isfinite(expected)
        self.finite += int(finite.sum())
        wanted = expected[finite]
        self.reference += float(np.square(wanted).sum())
        self.error += float(np.square(got[finite] - wanted).sum())
        both = np.isfinite(own) & np.isfinite(expected)
        self.own_error += float(np.square(own[both] - expected[both]).sum())
        if perturbed is not None:
            self.perturbed_error += float(np.square(absolute(perturbed, expected)).sum())

    @property
    def root_mean_square(self) -> float:
        """Of the reference; 1 where it is all zero, so that errors are absolute."""
        return math.sqrt(self.reference / self.finite) if self.reference else 1.0

    def relative(self, squares: float) -> float:
        norm = self.root_mean_square * math.sqrt(self.finite)
        return math.sqrt(squares) / norm if norm else 0.0


def _expect(piece: Piece) -> tuple[Floats, NDArray[np.bool_]]:
    """What is expected, and where the result is alike in being finite, NaN or Inf."""
    import numpy as np

    _, got, own, precise, _ = piece
    expected = own if precise is None else np.where(np.isfinite(precise), precise, own)
    alike = np.isfinite(got) & np.isfinite(expected)
    for reference in (own, precise):
        if reference is not None:
            alike |= (np.isnan(got) & np.isnan(reference)) | (np.isinf(got) & (got == reference))
    return expected, alike


class Extremes:
    """What one more pass finds, once the reference's root mean square is known."""

    def __init__(self, dtype: str, root: float) -> None:
        self.dtype, self.root = dtype, root
        self.max_abs = self.max_rel = self.excess = self.own_excess = 0.0
        self.perturbed_excess = 0.0
        self.worst: tuple[int, float, float] | None = None

    def add(self, piece: Piece) -> None:
        import numpy as np

        start, got, own, _, perturbed = piece
        expected, _ = _expect(piece)
        size = np.abs(expected) + self.root
        step = tensors.step(expected, self.dtype)
        error = absolute(got, expected)
        relative = np.nan_to_num(error / size)
        at = int(relative.argmax())
        if self.worst is None or float(relative[at]) > self.max_rel:
            self.worst = (start + at, float(got[at]), float(expected[at]))
        self.max_abs = max(self.max_abs, float(error.max()))
        self.max_rel = max(self.max_rel, float(relative[at]))
        self.excess = max(self.excess, _largest((error - step) / size))
        own_excess = _largest((absolute(own, expected) - step / 2) / size)
        self.own_excess = max(self.own_excess, own_excess)
        if perturbed is not None:
            moved = _largest((absolute(perturbed, expected) - step / 2) / size)
            self.perturbed_excess = max(self.perturbed_excess, moved)

    def over(self, piece: Piece, limit: float) -> int:
        """How many elements' excess is over the limit."""
        import numpy as np

        got, (expected, _) = piece.got, _expect(piece)
        excess = absolute(got, expected) - tensors.step(expected, self.dtype)
        return int((excess > limit * (np.abs(expected) + self.root)).sum())


def _largest(values: Floats) -> float:
    import numpy as np

    return float(np.nan_to_num(values).max())


def absolute(values: Floats, expected: Floats) -> Floats:
    """The absolute error, 0 where it is not a number or infinite."""
    import numpy as np

    with np.errstate(invalid="ignore"):
        error = np.abs(values - expected)
    return np.where(np.isfinite(error), error, 0.0)
