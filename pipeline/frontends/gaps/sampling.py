"""Samples of images, as PyTorch's kernel takes them.

PyTorch's own decomposition differs from the kernel at places and values that are not finite: it
weighs the image's first value by 0 for what lies outside, and knows no border for NaN.

Runs in the tracing child; imports torch.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import torch

_BILINEAR, _NEAREST = 0, 1
_ZEROS, _REFLECTION = 0, 2


def grid_sampler(
    x: torch.Tensor, grid: torch.Tensor, mode: int, padding: int, align_corners: bool
) -> torch.Tensor:
    """Samples [N, C, Ho, Wo] of images [N, C, H, W] at places [N, Ho, Wo, (x, y)] from -1 to 1."""
    sizes = (x.shape[3], x.shape[2])
    own = [partial(_inside, size=n, padding=padding, align=align_corners) for n in sizes]
    across, down = (
        _unnormalized(grid[..., axis], size, align_corners) for axis, size in enumerate(sizes)
    )
    if mode == _NEAREST:
        return _values(x, own[0](across).round(), own[1](down).round())
    if mode == _BILINEAR:
        columns, rows = _linear(own[0](across)), _linear(own[1](down))
        return _total(
            _values(x, column, row) * (across_weight * down_weight)[:, None]
            for row, down_weight in rows
            for column, across_weight in columns
        )
    columns, rows = _cubic(across), _cubic(down)
    return _total(
        _total(
            _values(x, own[0](column), own[1](row)) * weight[:, None] for column, weight in columns
        )
        * down_weight[:, None]
        for row, down_weight in rows
    )


def of_images(x: torch.Tensor, grid: Any, *how: Any) -> bool:
    """True for samples of images, [N, C, H, W]; volumes have a dimension more."""
    return x.dim() == 4


def _unnormalized(place: torch.Tensor, size: int, align: bool) -> torch.Tensor:
    """Places from -1 to 1 in elements of a dimension."""
    factor = (size - 1) / 2 if align else size / 2
    return (place + 1) * factor - (0 if align else 0.5)


def _inside(place: torch.Tensor, size: int, padding: int, align: bool) -> torch.Tensor:
    """Places moved into the dimension, unless zeros lie outside of it; NaN to its begin."""
    if padding == _ZEROS:
        return place
    if padding == _REFLECTION:
        place = _reflected(place, size, align)
    place = torch.where(place > 0, place, 0)
    return torch.where(place < size - 1, place, size - 1)


def _reflected(place: torch.Tensor, size: int, align: bool) -> torch.Tensor:
    """Places reflected at the ends of the dimension; NaN where both ends are one element."""
    low = 0.0 if align else -0.5
    span = 2 * (size - 1 if align else size)
    far = (place - low).abs()
    rest = far - (far / span).trunc() * span
    return torch.where(rest < span - rest, rest, span - rest) + low


def _linear(place: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The two elements around each place, and their weights."""
    first = place.floor()
    after = place - first
    return [(first, 1 - after), (first + 1, after)]


def _cubic(place: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The four elements around each place, and their weights."""
    a, first = -0.75, place.floor()
    after = place - first

    def far(t: torch.Tensor) -> torch.Tensor:
        return ((a * t - 5 * a) * t + 8 * a) * t - 4 * a

    def near(t: torch.Tensor) -> torch.Tensor:
        return ((a + 2) * t - (a + 3)) * t * t + 1

    weights = (far(after + 1), near(after), near(1 - after), far(2 - after))
    return [(first + (number - 1), weight) for number, weight in enumerate(weights)]


def _values(x: torch.Tensor, column: torch.Tensor, row: torch.Tensor) -> torch.Tensor:
    """Elements [N, C, Ho, Wo] of images at whole places [N, Ho, Wo]; 0 outside."""
    batch, channels, height, width = x.shape
    inside = torch.logical_and(
        torch.logical_and(column > -1, column < width), torch.logical_and(row > -1, row < height)
    )
    column, row = (torch.where(inside, one, 0).to(torch.int64) for one in (column, row))
    places = (row * width + column).flatten(1)[:, None].expand(batch, channels, -1)
    found = x.flatten(2).gather(2, places)
    return torch.where(inside[:, None], found.reshape(batch, channels, *inside.shape[1:]), 0)


def _total(addends: Iterable[torch.Tensor]) -> torch.Tensor:
    first, *others = addends
    for one in others:
        first = first + one
    return first
