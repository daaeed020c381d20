"""Convolutions and poolings of what their windows read alone: what they leave out is cut off.

Runs in the tracing child; imports torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch.nn import functional

from iree_pilot.pipeline.frontends.gaps import windowed


def conv(x: torch.Tensor, weight: torch.Tensor, bias: Any = None, *rest: Any) -> Any:
    """A convolution of what its windows read of x [N, C, ...] alone; of any number of dimensions.

    Each sum has the same addends, as only what no window reads is cut off.
    """
    read = read_by_conv(x, weight, bias, *rest) or ()
    own = getattr(functional, f"conv{x.dim() - 2}d")
    return own(_cut(x, read), weight, bias, [r.stride for r in read], *rest[1:])


def max_pool2d(x: torch.Tensor, kernel: Any, *rest: Any) -> Any:
    """The same of the largest of each window."""
    read = read_by_max_pool(x, kernel, *rest) or ()
    strides = [r.stride for r in read]
    return functional.max_pool2d(_cut(x, read), kernel, strides, *rest[1:])


def avg_pool2d(x: torch.Tensor, kernel: Any, *rest: Any) -> Any:
    """The same of the mean of each window."""
    read = read_by_avg_pool(x, kernel, *rest) or ()
    strides = [r.stride for r in read]
    return functional.avg_pool2d(_cut(x, read), kernel, strides, *rest[1:])


class _Read(NamedTuple):
    """What windows read of a dimension: the elements before `end`, every `step`-th of them.

    stride: of the windows, over those."""

    end: int
    step: int
    stride: int


def read_by_conv(x: Any, weight: Any, bias: Any = None, *rest: Any) -> list[_Read] | None:
    """What a convolution's windows read of each dimension; None where that is all, or not known."""
    windows, groups = (*rest[:3], *(1, 0, 1)[len(rest) :]), rest[3] if len(rest) > 3 else 1
    kernel = weight.shape[2:]
    if groups != x.shape[1] and all(k == 1 for k in kernel):
        return None  # a product of matrices, which is computed right
    return _read(x, kernel, *windows)


def read_by_max_pool(
    x: Any,
    kernel: Any,
    stride: Any = (),
    padding: Any = 0,
    dilation: Any = 1,
    ceil: bool = False,
) -> list[_Read] | None:
    """The same of a max pooling's."""
    return None if ceil else _read(x, kernel, stride or kernel, padding, dilation)


def read_by_avg_pool(
    x: Any,
    kernel: Any,
    stride: Any = (),
    padding: Any = 0,
    ceil: bool = False,
    *_: Any,
) -> list[_Read] | None:
    """The same of an average pooling's."""
    return None if ceil else _read(x, kernel, stride or kernel, padding, 1)


def _read(x: torch.Tensor, *windows: Any) -> list[_Read] | None:
    """What windows (kernel, stride, padding, dilation) read of each of the last dimensions.

    None where that is all of them, or not known.
    """
    sizes = windowed.sizes(x, windows[0])
    each = [windowed.per(one, len(sizes)) for one in windows]
    if not all(isinstance(v, int) for one in (sizes, *each) for v in one):
        return None
    read = []
    for length, kernel, stride, padding, dilation in zip(sizes, *each, strict=True):
        reach = dilation * (kernel - 1) + 1
        count = (length + 2 * padding - reach) // stride + 1
        end = min((count - 1) * stride + reach - padding, length)
        step = stride if kernel == 1 and not padding else 1
        read.append(_Read(end, step, stride // step))
    whole = all(r.end == length and r.step == 1 for r, length in zip(read, sizes, strict=True))
    return None if whole else read


def _cut(x: torch.Tensor, read: Sequence[_Read]) -> torch.Tensor:
    for dim, one in enumerate(read, start=x.dim() - len(read)):
        if one.end < x.shape[dim] or one.step > 1:
            x = torch.ops.aten.slice.Tensor(x, dim, 0, one.end, one.step)
    return x
