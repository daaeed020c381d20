"""Affine maps: which element of an operand a point of an iteration space stands for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from iree_pilot.pipeline.evaluate.machine.elements import Array, Unknown

_BINARY: dict[str, Any] = {
    "AffineAddExpr": np.add,
    "AffineMulExpr": np.multiply,
    "AffineModExpr": np.mod,
    "AffineFloorDivExpr": np.floor_divide,
    "AffineCeilDivExpr": lambda a, b: -(-a // b),
}


class Expr(msgspec.Struct, frozen=True):
    """One result of a map. kind: the bindings' class; linear: (coefficient of each dimension,
    constant) where it is a sum of multiples."""

    kind: str
    value: int = 0
    parts: tuple[Expr, ...] = ()
    linear: tuple[tuple[int, ...], int] | None = None

    @property
    def dim(self) -> int | None:
        """The dimension that it is, and nothing else."""
        return self.value if self.kind == "AffineDimExpr" else None

    def at(self, points: Sequence[Array]) -> Array:
        """Its value where the dimensions have these."""
        if self.kind == "AffineDimExpr":
            return points[self.value]
        if self.kind == "AffineConstantExpr":
            return np.int64(self.value)
        if self.kind not in _BINARY:
            raise Unknown(f"{self.kind} as an index is not evaluated")
        return _BINARY[self.kind](*(part.at(points) for part in self.parts))


class Map(msgspec.Struct, frozen=True):
    """A map from `count` dimensions."""

    count: int
    results: tuple[Expr, ...]

    @property
    def dims(self) -> set[int]:
        """The dimensions that are results by themselves."""
        return {e.dim for e in self.results if e.dim is not None}


def read(raw: Any) -> Map:
    """An affine map of the bindings."""
    if raw.n_symbols:
        raise Unknown("an affine map with symbols is not evaluated")
    return Map(raw.n_dims, tuple(_expr(e, raw.n_dims) for e in raw.results))


def _expr(raw: Any, count: int) -> Expr:
    kind = type(raw).__name__
    if kind == "AffineDimExpr":
        one = tuple(int(i == raw.position) for i in range(count))
        return Expr(kind, raw.position, (), (one, 0))
    if kind == "AffineConstantExpr":
        return Expr(kind, raw.value, (), ((0,) * count, raw.value))
    if not hasattr(raw, "lhs"):
        raise Unknown(f"{raw} as an index is not evaluated")
    a, b = _expr(raw.lhs, count), _expr(raw.rhs, count)
    linear = None
    if a.linear is not None and b.linear is not None:
        if kind == "AffineAddExpr":
            linear = (
                tuple(x + y for x, y in zip(a.linear[0], b.linear[0], strict=True)),
                a.linear[1] + b.linear[1],
            )
        elif kind == "AffineMulExpr" and b.kind == "AffineConstantExpr":
            linear = tuple(x * b.value for x in a.linear[0]), a.linear[1] * b.value
    return Expr(kind, 0, (a, b), linear)


def sizes(maps: Sequence[Map], shapes: Sequence[Sequence[int]]) -> list[int]:
    """The size of each dimension, from operands that it alone indexes. Raises Unknown."""
    found: dict[int, int] = {}
    for one, shape in zip(maps, shapes, strict=True):
        if len(one.results) != len(shape):
            raise Unknown("an operand's rank is not that of its map")
        for expr, size in zip(one.results, shape, strict=True):
            if expr.dim is not None and found.setdefault(expr.dim, size) != size:
                raise Unknown(
                    f"its operands do not fit: a dimension is {found[expr.dim]} and {size}"
                )
    if maps and len(found) != maps[0].count:
        raise Unknown("the sizes of its dimensions do not follow from its operands")
    return [found[d] for d in range(len(found))]


def view(values: Array, one: Map, bounds: Sequence[int], *, writeable: bool = False) -> Array:
    """The elements of an operand over the iteration space: a view with an axis for each dimension,
    of size 1 where the operand does not depend on it; a copy where no view can be.

    Raises Unknown for indices outside of the operand.
    """
    dims = [e.dim for e in one.results]
    if None not in dims and len(set(dims)) == len(dims):
        order = sorted(range(len(dims)), key=lambda axis: dims[axis] or 0)
        shape = [1] * one.count
        for dim, size in zip(dims, values.shape, strict=True):
            shape[dim or 0] = size
        turned = values.transpose(order)
        return turned[(*(slice(None) if d in dims else None for d in range(one.count)), ...)]
    if 0 in bounds:
        return np.zeros([1] * one.count, values.dtype)
    linear = [e.linear for e in one.results]
    if all(held is not None for held in linear):
        return _strided(values, linear, bounds, writeable)
    if writeable:
        raise Unknown("a result that is not written in order is not evaluated")
    points = mesh(bounds)
    places = [np.asarray(e.at(points)) for e in one.results]
    for place, size in zip(places, values.shape, strict=True):
        if place.size and (place.min() < 0 or place.max() >= size):
            raise Unknown("it indexes outside of an operand")
    found = values[tuple(np.broadcast_arrays(*places))]
    return found.reshape([1] * (one.count - found.ndim) + list(found.shape))


def _strided(values: Array, linear: Sequence[Any], bounds: Sequence[int], writeable: bool) -> Array:
    strides, used = [0] * len(bounds), [False] * len(bounds)
    for (factors, constant), size, stride in zip(linear, values.shape, values.strides, strict=True):
        ends = [factor * (bound - 1) for factor, bound in zip(factors, bounds, strict=True)]
        low = constant + sum(min(end, 0) for end in ends)
        high = constant + sum(max(end, 0) for end in ends)
        if low < 0 or high >= size:
            raise Unknown("it indexes outside of an operand")
        for dim, factor in enumerate(factors):
            strides[dim] += factor * stride
            used[dim] |= factor != 0
    first = values[tuple(slice(constant, None) for _, constant in linear)]
    shape = [bound if one else 1 for bound, one in zip(bounds, used, strict=True)]
    return np.lib.stride_tricks.as_strided(first, shape, strides, writeable=writeable)


def mesh(bounds: Sequence[int]) -> list[Array]:
    """Points of each dimension, along an axis of their own."""
    count = len(bounds)
    return [
        np.arange(size).reshape([size if i == d else 1 for i in range(count)])
        for d, size in enumerate(bounds)
    ]


def part(values: Array, box: tuple[slice, ...]) -> Array:
    """The box of an operand that has an axis of size 1 where it does not depend on a dimension."""
    chosen = [
        slice(None) if size == 1 else one for one, size in zip(box, values.shape, strict=True)
    ]
    return values[(*chosen, ...)]
