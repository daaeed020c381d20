"""Counts of elements out of a tensor's range, and the scale that would fit them.

Values are held against the same in double precision, piece by piece. numpy is imported when
something is measured.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import msgspec

from iree_pilot.pipeline.program import tensors
from iree_pilot.pipeline.program.program import Tensor

#: Types with so few bits that their range is a concern.
NARROW = ("f16", "bf16", "f8E4M3FN", "f8E4M3FNUZ", "f8E5M2", "f8E5M2FNUZ")


class ElementRange(msgspec.Struct, frozen=True, kw_only=True):
    """The range of an element type: largest finite number, smallest normal one.

    over: what is larger than this does not round to `largest`.
    """

    largest: float
    normal: float
    over: float


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """Elements that are not what double precision has, and why.

    saturated: the largest number of the type in place of a larger one. infinite: infinity in place
    of a number. nan: NaN in place of anything else. flushed: 0 in place of a number too small for
    the type. subnormal: below the smallest normal number, where digits are lost, and which devices
    may flush to 0.
    """

    saturated: int = 0
    infinite: int = 0
    nan: int = 0
    flushed: int = 0
    subnormal: int = 0

    @property
    def any(self) -> bool:
        return any(self.named.values())

    @property
    def named(self) -> dict[str, int]:
        counts: dict[str, int] = msgspec.structs.asdict(self)
        return counts

    def plus(self, other: Counts) -> Counts:
        return Counts(**{n: c + other.named[n] for n, c in self.named.items()})


class Scale(msgspec.Struct, frozen=True, kw_only=True):
    """A power of two to multiply a tensor by, so that its type holds it.

    fits: whether every element is a normal number then; else the largest one is, and `left` of the
    others, which are not 0, are still below the smallest normal number.
    """

    factor: float
    fits: bool
    left: int = 0


class Truth(msgspec.Struct, frozen=True, kw_only=True):
    """A tensor in double precision: its largest magnitude, and the smallest that is not 0."""

    largest: float
    smallest: float


def limits(dtype: str) -> ElementRange:
    """The range of one of NARROW."""
    import ml_dtypes

    info = ml_dtypes.finfo(tensors.numpy_dtype(dtype))
    largest = float(info.max)
    half_a_step = 2.0 ** (math.frexp(largest)[1] - 2 - int(info.nmant))
    return ElementRange(
        largest=largest, normal=float(info.smallest_normal), over=largest + half_a_step
    )


def counts(value: Path, tensor: Tensor, truth: Path, true: Tensor) -> Counts:
    """Counts of wrong elements of `value`, whose exact numbers are in `truth`.

    tensor, true: their types, of one shape; the first is of a type of NARROW.
    """
    found, known = Counts(), limits(tensor.dtype)
    for start in range(0, tensors.length(tensor), tensors.PIECE):
        got, wanted = tensors.read(value, tensor, start), tensors.read(truth, true, start)
        found = found.plus(_counted(got, wanted, known))
    return found


def _counted(got: Any, wanted: Any, known: ElementRange) -> Counts:
    import numpy as np

    size, wanted_size = np.abs(got), np.abs(wanted)
    finite = np.isfinite(wanted)
    return Counts(
        saturated=int(((size == known.largest) & (wanted_size > known.over) & finite).sum()),
        infinite=int((np.isinf(got) & finite).sum()),
        nan=int((np.isnan(got) & ~np.isnan(wanted)).sum()),
        flushed=int(((got == 0) & (wanted != 0) & (wanted_size < known.normal)).sum()),
        subnormal=int(((size > 0) & (size < known.normal)).sum()),
    )


def truth(file: Path, tensor: Tensor) -> Truth:
    """The magnitudes in a tensor, infinities and NaN left out; 0 where there are none."""
    import numpy as np

    largest, smallest = 0.0, math.inf
    for start in range(0, tensors.length(tensor), tensors.PIECE):
        size = np.abs(tensors.read(file, tensor, start))
        size = size[np.isfinite(size) & (size > 0)]
        if size.size:
            largest, smallest = max(largest, float(size.max())), min(smallest, float(size.min()))
    return Truth(largest=largest, smallest=smallest if largest else 0.0)


def scale(file: Path, tensor: Tensor, dtype: str) -> Scale | None:
    """The power of two nearest to 1 that brings a tensor into the range of `dtype`.

    None where it is there already, or is all zero.
    """
    import numpy as np

    known, seen = limits(dtype), truth(file, tensor)
    if not seen.largest:
        return None
    most = _power_below(math.nextafter(known.over, 0.0) / seen.largest)
    least = _power_above(known.normal / seen.smallest)
    factor = min(max(1.0, least), most)
    if factor == 1.0 and least <= 1.0:
        return None
    if least <= most:
        return Scale(factor=factor, fits=True)
    left = 0
    for start in range(0, tensors.length(tensor), tensors.PIECE):
        size = np.abs(tensors.read(file, tensor, start))
        left += int(((size > 0) & (size * most < known.normal)).sum())
    return Scale(factor=most, fits=False, left=left)


def _power_below(limit: float) -> float:
    return 2.0 ** (math.frexp(limit)[1] - 1)


def _power_above(limit: float) -> float:
    below = _power_below(limit)
    return below if below == limit else 2 * below
