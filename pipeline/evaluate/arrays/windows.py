"""Convolutions and windows on numpy arrays, as StableHLO and TOSA define them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec
import numpy as np

from iree_pilot.pipeline.evaluate.arrays.contraction import multiplied
from iree_pilot.pipeline.evaluate.machine.elements import Array
from iree_pilot.pipeline.evaluate.machine.machine import Machine


class Window(msgspec.Struct, frozen=True):
    """Movement of a window over spatial dimensions; each field has one number per dimension."""

    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    spread: tuple[int, ...]

    def positions(self) -> Iterator[tuple[int, ...]]:
        """Each place in the window."""
        yield from np.ndindex(*self.sizes)

    def count(self, sizes: Sequence[int]) -> list[int]:
        """Number of windows along each dimension of a padded array."""
        return [
            max(0, (size - ((window - 1) * dilation + 1)) // stride + 1)
            for size, window, stride, dilation in zip(
                sizes, self.sizes, self.strides, self.dilation, strict=True
            )
        ]

    def at(
        self, values: Array, position: Sequence[int], first: int, counts: Sequence[int]
    ) -> Array:
        """Elements of all windows at one position in them. first: the first spatial dimension."""
        box: list[Any] = [slice(None)] * values.ndim
        for d, (place, stride, dilation, count) in enumerate(
            zip(position, self.strides, self.dilation, counts, strict=True)
        ):
            start = place * dilation
            box[first + d] = slice(start, start + (count - 1) * stride + 1, stride)
        return values[tuple(box)]


def plain(rank: int, **given: Any) -> Window:
    """A window whose fields are given, the rest as if they were not there."""
    ones = (1,) * rank
    fields: dict[str, Any] = {
        "sizes": ones,
        "strides": ones,
        "padding": ((0, 0),) * rank,
        "dilation": ones,
        "spread": ones,
    }
    for name, value in given.items():
        if value is not None and len(value):
            fields[name] = tuple(tuple(v) if isinstance(v, list) else v for v in value)
    return Window(**fields)


def padded(
    values: Array, low: Sequence[int], high: Sequence[int], between: Sequence[int], filling: Array
) -> Array:
    """`values` with `filling` around and between; less than 0 takes away."""
    sizes = [size + max(size - 1, 0) * gap for size, gap in zip(values.shape, between, strict=True)]
    inner = np.full(sizes, filling, values.dtype)
    inner[tuple(slice(None, None, gap + 1) for gap in between)] = values
    cut = tuple(
        slice(max(-a, 0), size - max(-b, 0)) for a, b, size in zip(low, high, sizes, strict=True)
    )
    inner = inner[cut]
    around = [(max(a, 0), max(b, 0)) for a, b in zip(low, high, strict=True)]
    made = np.full(
        [size + a + b for size, (a, b) in zip(inner.shape, around, strict=True)],
        filling,
        values.dtype,
    )
    made[tuple(slice(a, a + size) for size, (a, _) in zip(inner.shape, around, strict=True))] = (
        inner
    )
    return made


def convolve(
    machine: Machine, values: Array, kernel: Array, window: Window, groups: int, kind: Any
) -> Array:
    """A convolution of [batch, spatial..., channels] with [spatial..., channels, results].

    groups: of channels; each result belongs to one. kind: numpy's type to compute in.
    """
    around = [(0, 0), *window.padding, (0, 0)]
    gaps = [0, *(s - 1 for s in window.spread), 0]
    values = padded(
        values.astype(kind),
        [a for a, _ in around],
        [b for _, b in around],
        gaps,
        np.zeros((), kind),
    )
    kernel = kernel.astype(kind)
    counts = window.count(values.shape[1:-1])
    batch, channels, results = values.shape[0], values.shape[-1], kernel.shape[-1]
    made = np.zeros((batch, *counts, results), kind)
    if 0 in made.shape:
        return made
    ins, outs = channels // groups, results // groups
    for position in window.positions():
        machine.spend(made.size)
        part = window.at(values, position, 1, counts).reshape(-1, groups, ins)
        weights = kernel[position].reshape(ins, groups, outs)
        product = multiplied(part.transpose(1, 0, 2), weights.transpose(1, 0, 2))
        made += product.transpose(1, 0, 2).reshape(made.shape)
    return made


def reduce(
    machine: Machine,
    values: Sequence[Array],
    starts: Sequence[Array],
    window: Window,
    combine: Callable[[list[Array], list[Array]], list[Array]],
) -> list[Array]:
    """Windows over all dimensions of some arrays, combined one place after the other."""
    full = [
        padded(
            v,
            [a for a, _ in window.padding],
            [b for _, b in window.padding],
            [s - 1 for s in window.spread],
            start,
        )
        for v, start in zip(values, starts, strict=True)
    ]
    counts = window.count(full[0].shape)
    made = [np.full(counts, start, v.dtype) for v, start in zip(full, starts, strict=True)]
    if 0 in counts:
        return made
    for position in window.positions():
        machine.spend(made[0].size)
        made = combine(made, [window.at(v, position, 0, counts) for v in full])
    return made
