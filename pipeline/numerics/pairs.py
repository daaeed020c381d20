"""An output beside its references, read from their files piece by piece.

Here is what is taken for the same although it differs: what a device may flush to 0, and what
hangs on a choice among equal values. numpy is imported when something is read.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from iree_pilot.pipeline.numerics import noise
from iree_pilot.pipeline.numerics.deviations import Piece, absolute
from iree_pilot.pipeline.program import tensors
from iree_pilot.pipeline.program.program import ELEMENT_TYPES, Reference, Tensor

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from iree_pilot.pipeline.numerics.deviations import Floats

#: Evaluations in float64 that choose alike differ by no more, relatively.
_SAME = 1e-9
#: An error so many times what a rounding of each value before moves a result by is not theirs.
_MOVED = 8.0
_BESIDE = 8


class Integers(NamedTuple):
    """Elements of an integer or boolean output from position `start` on.

    others: what is as good as PyTorch's. between: where it is as good because it lies between what
    is right with and without numbers that a device may make 0, or what roundings before it make.
    tied: where another choice among equals changes them.
    """

    start: int
    got: Any
    own: Any
    others: tuple[Any, ...]
    between: Any
    tied: Any


class Pair:
    """One output and its references on disk."""

    def __init__(
        self, got_in: Path, got: Tensor, directory: Path, reference: Reference, index: int
    ) -> None:
        self.index = index
        self.own_errors = reference.own_errors[index] if reference.own_errors else None
        self.got_type = got
        self.type = reference.outputs[index]
        self.dtype = _narrower(got, self.type)
        self.family = ELEMENT_TYPES[self.type.dtype].family
        self.directory = directory
        self._got_file = got_in / got.file
        precise = reference.precise[index] if reference.precise else None
        wider = precise is not None and (
            self.family in ("int", "bool") or noise.unit(precise.dtype) < noise.unit(self.dtype)
        )
        self.precise = precise if wider else None
        self.perturbed = reference.perturbed[index] if wider and reference.perturbed else None
        self.flushed = reference.flushed[index] if wider and reference.flushed else None
        self.retied = tuple(outputs[index] for outputs in reference.retied) if wider else ()
        self.jittered = tuple(outputs[index] for outputs in reference.jittered) if wider else ()
        indexed = any(i.output == index for i in reference.indexed)
        between = wider and not indexed
        self.tipped = tuple(outputs[index] for outputs in reference.tipped) if between else ()
        self.smallest = noise.smallest(self.dtype)
        self.largest = tensors.largest(self.dtype)

    @property
    def fits(self) -> bool:
        got, own = self.got_type, self.type
        alike = got.dtype == own.dtype or (got.stated or got.dtype) == (own.stated or own.dtype)
        return alike and got.shape == own.shape

    @property
    def elements(self) -> int:
        return math.prod(self.type.shape)

    def integers(self) -> Iterator[Integers]:
        import numpy as np

        for start, got, own in self._read():
            retied = [self._at(tensor, start) for tensor in self.retied]
            precise = self._at(self.precise, start)
            base = own if precise is None else precise
            tied = np.zeros(own.shape, bool)
            for other in retied:
                tied |= other != base
            others = [*retied] if precise is None else [precise, *retied]
            between = np.zeros(own.shape, bool)
            for ends in ([self.flushed] if self.flushed else [], self.tipped):
                found = np.stack([base, *(self._at(tensor, start) for tensor in ends)])
                between |= (found.min(0) <= got) & (got <= found.max(0))
            yield Integers(start, got, own, tuple(others), between, tied)

    def pieces(self, *, forgiving: bool = False, excusing: bool = False) -> Iterator[Piece]:
        """The output in pieces. forgiving: a difference that other choices among equal
        values make counts as right. excusing: so does one that earlier roundings make."""
        import numpy as np

        for start, got, own in self._read():
            precise = self._at(self.precise, start)
            flushed = self._at(self.flushed, start)
            retied = [self._at(tensor, start) for tensor in self.retied]
            tipped = [self._at(tensor, start) for tensor in self.tipped]
            base = own
            if precise is not None:  # no type holds what is beyond its largest number
                base = np.where(np.abs(precise) <= self.largest, precise, own)
            tied = np.zeros(own.shape, bool)
            for other in retied:
                tied |= _differ(other, base)
            if forgiving:
                got = np.where(_explained(got, base, retied), base, got)
            if excusing:
                jittered = [self._at(tensor, start) for tensor in self.jittered]
                got = np.where(_explained(got, base, jittered), base, got)
            others = [*retied, *tipped]
            expected = _nearest(got, base, others)
            alike = np.isfinite(got) & np.isfinite(expected)
            for reference in (own, precise, flushed, *retied):
                if reference is not None:
                    alike |= (np.isnan(got) & np.isnan(reference)) | (
                        np.isinf(got) & (got == reference)
                    )
            slack = np.full(own.shape, self.smallest)
            if flushed is not None:
                moved = np.where(expected == base, absolute(flushed, expected), 0.0)
                slack = np.maximum(slack, moved)
            perturbed = self._at(self.perturbed, start)
            yield Piece(
                start=start,
                got=got,
                own=own,
                expected=expected,
                alike=alike,
                slack=slack,
                own_error=absolute(own, _nearest(own, base, others)),
                moved=None
                if perturbed is None
                else absolute(perturbed, _nearest(perturbed, base, others)),
                tied=tied,
            )

    @property
    def unsettled(self) -> bool:
        """True if all that is not 0 depends on numbers that a device may make 0, so that any result
        would do."""
        import numpy as np

        if self.flushed is None:
            return False
        depends = False
        for start in range(0, tensors.length(self.type), tensors.PIECE):
            base, flushed = (
                np.asarray(self._at(tensor, start), np.float64)
                for tensor in (self.precise, self.flushed)
            )
            with np.errstate(invalid="ignore"):
                near = np.abs(flushed - base) <= noise.MOST * np.abs(base)
            moved = _differ(flushed, base) & ~near
            if (base[~moved] != 0).any():
                return False
            depends |= bool(moved.any())
        return depends

    def whole(self) -> tuple[Any, Any]:
        """All of the device's and of PyTorch's elements, flattened."""
        import numpy as np

        got, own = zip(*((got, own) for _, got, own in self._read()), strict=True)
        return np.concatenate(got), np.concatenate(own)

    def _read(self) -> Iterator[tuple[int, Any, Any]]:
        for start in range(0, tensors.length(self.type), tensors.PIECE):
            got = tensors.read(self._got_file, self.got_type, start)
            own = tensors.read(self.directory / self.type.file, self.type, start)
            yield start, got, tensors.held(own, self.dtype) if self._narrowed else own

    def _at(self, tensor: Tensor | None, start: int) -> Any:
        if tensor is None:
            return None
        values = tensors.read(self.directory / tensor.file, tensor, start)
        exact = self._narrowed and self.family == "int"
        return tensors.held(values, self.dtype) if exact else values

    @property
    def _narrowed(self) -> bool:
        return self.dtype != self.type.dtype


def _narrower(got: Tensor, own: Tensor) -> str:
    """The type to judge in: the narrower where the compiler changed the program's."""
    if not (got.stated or own.stated):
        return own.dtype
    return min(got.dtype, own.dtype, key=lambda dtype: ELEMENT_TYPES[dtype].size)


def _differ(values: Floats, others: Floats) -> NDArray[np.bool_]:
    import numpy as np

    same = (values == others) | (np.isnan(values) & np.isnan(others))
    size = np.maximum(np.abs(values), np.abs(others))
    with np.errstate(invalid="ignore"):
        near = np.abs(values - others) <= _SAME * size
    return np.asarray(~(same | (near & np.isfinite(size))))


def _explained(values: Floats, base: Floats, moving: Sequence[Floats]) -> NDArray[np.bool_]:
    """True if an error is at most a few times the effect of perturbed roundings, or of other
    choices, on the value or its neighbours: few perturbations may miss one element of a row."""
    import numpy as np
    from numpy.lib.stride_tricks import sliding_window_view

    moved = np.zeros(base.shape)
    for other in moving:
        step = np.where(_differ(other, base), absolute(other, base), 0.0)
        # What becomes or stops being a number may be anything.
        moved = np.maximum(moved, np.where(np.isfinite(step), step, np.inf))
    around = sliding_window_view(np.pad(moved, _BESIDE), 2 * _BESIDE + 1).max(-1)
    error = absolute(values, base)
    within = np.where(np.isfinite(error), error, np.inf) <= _MOVED * around
    return np.asarray((moved > 0) & within)


def _nearest(values: Floats, base: Floats, others: Sequence[Floats]) -> Floats:
    """Allowed value of each element that is nearest to its actual value."""
    import numpy as np

    best = base
    for other in others:
        with np.errstate(invalid="ignore"):
            nearer = np.abs(values - other) < np.abs(values - best)
        nearer |= (values == other) | (np.isnan(values) & np.isnan(other))
        best = np.where(nearer, other, best)
    return best
