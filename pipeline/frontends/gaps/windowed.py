"""Convolutions and poolings in forms that IREE compiles: for windows that fit only once along a
dimension, for inputs without a batch, for convolutions of each channel by itself.

Runs in the tracing child; imports torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from iree_pilot.pipeline.frontends.gaps.decompositions import cropped

_Operation = Callable[..., Any]


def convolved_once(op: _Operation) -> _Operation:
    """The convolution of what its windows read alone; see `leaves_a_rest`."""

    def decompose(
        x: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, *rest: Any
    ) -> Any:
        left = _rest_of_convolution(x, weight, bias, stride, padding, *rest)
        x, padding = _without(x, left, per(padding, len(left)), 0)
        return op(x, weight, bias, per(stride, len(left)), padding, *rest)

    return decompose


def _rest_of_convolution(x: Any, weight: Any, bias: Any = None, *steps: Any) -> list[int]:
    """`_rests` of a convolution. steps: stride, padding, dilation, groups, or the first of them."""
    given: list[Any] = [*steps, *(1, 0, 1)[len(steps) :]]
    stride, padding, dilation = given[:3]
    return _rests(x, weight.shape[2:], stride, padding, dilation)


def leaves_a_rest(*args: Any) -> bool:
    """True for a convolution whose window fits once along a dimension, with elements left over."""
    return any(_rest_of_convolution(*args))


def padded_alike(op: _Operation) -> _Operation:
    """The convolution with padding in words, with the same in numbers.

    What `same` has more behind than before is padded first, as PyTorch does.
    """

    def decompose(x: Any, weight: Any, bias: Any = None, *steps: Any) -> Any:
        given: list[Any] = [*steps, *(1, "valid", 1, 1)[len(steps) :]]
        kernel, padding, groups = weight.shape[2:], given[1], given[3]
        stride, dilation = (per(one, len(kernel)) for one in (given[0], given[2]))
        whole = [
            apart * (width - 1) if padding == "same" else 0
            for width, apart in zip(kernel, dilation, strict=True)
        ]
        if any(one % 2 for one in whole):
            flat = [one for total in reversed(whole) for one in (0, total % 2)]
            x = torch.ops.aten.constant_pad_nd(x, flat, 0)
        return op(x, weight, bias, stride, [one // 2 for one in whole], dilation, groups)

    return decompose


def largest_once(op: _Operation) -> _Operation:
    """The max pooling of what its windows read alone."""

    def decompose(
        x: Any,
        kernel: Any,
        stride: Any = (),
        padding: Any = 0,
        dilation: Any = 1,
        ceil: bool = False,
    ) -> Any:
        left = _rests(x, kernel, stride, padding, dilation)
        x, padding = _without(x, left, per(padding, len(left)), float("-inf"))
        return op(x, kernel, per(stride or kernel, len(left)), padding, dilation, ceil)

    return decompose


def largest_leaves_a_rest(
    x: Any, kernel: Any, stride: Any = (), padding: Any = 0, dilation: Any = 1, ceil: bool = False
) -> bool:
    """True for a max pooling whose window fits once along a dimension, with elements left over."""
    left = _rests(x, kernel, stride, padding, dilation)
    return any(left) and not ceil and x.dtype.is_floating_point


def mean_once(op: _Operation) -> _Operation:
    """The average pooling of what its windows read alone."""

    def decompose(x: Any, kernel: Any, stride: Any = (), padding: Any = 0, *rest: Any) -> Any:
        left = _rests(x, kernel, stride, padding, 1)
        x, padding = _without(x, left, per(padding, len(left)), 0)
        return op(x, kernel, per(stride or kernel, len(left)), padding, *rest)

    return decompose


def mean_leaves_a_rest(
    x: Any, kernel: Any, stride: Any = (), padding: Any = 0, *options: Any
) -> bool:
    """True for an average pooling whose window fits once along a dimension, with elements left
    over. options: ceil_mode, count_include_pad, divisor_override, or the first of them."""
    given: list[Any] = [*options, *(False, True, None)[len(options) :]]
    ceil, count_padding, divisor = given
    left = _rests(x, kernel, stride, padding, 1)
    counted = count_padding or divisor or not any(per(padding, len(left)))
    return any(left) and not ceil and bool(counted)


def mean_without_ceil(op: _Operation) -> _Operation:
    """The average pooling whose last windows end where the input does."""

    def decompose(
        x: Any, kernel: Any, stride: Any = (), padding: Any = 0, ceil: bool = False, *rest: Any
    ) -> Any:
        kernels, strides = zip(*_inside(x, kernel, stride or kernel) or (), strict=True)
        return op(x, [*kernels], [*strides], padding, False, *rest)

    return decompose


def mean_needs_no_ceil(
    x: Any, kernel: Any, stride: Any = (), padding: Any = 0, ceil: bool = False, *options: Any
) -> bool:
    """True for an average pooling with ceil_mode that has no window partly outside, or one only."""
    padded = any([padding] if isinstance(padding, int) else padding)
    return ceil and not padded and _inside(x, kernel, stride or kernel) is not None


def _inside(x: torch.Tensor, kernel: Any, stride: Any) -> list[tuple[int, int]] | None:
    """(kernel, stride) in each dimension of windows with ceil_mode that lie inside; a larger one
    than the input counts what is inside. None where there are others, or a size is not known."""
    moved = sizes(x, kernel)
    found = []
    for size, width, step in zip(
        moved, per(kernel, len(moved)), per(stride, len(moved)), strict=True
    ):
        if not isinstance(size, int):
            return None
        if width < size and (size - width) % step and ((size - width) // step + 1) * step < size:
            return None
        found.append((width, step) if width < size else (size, size))
    return found


def _rests(x: torch.Tensor, kernel: Any, stride: Any, padding: Any, dilation: Any) -> list[int]:
    """For each dimension that a window moves along: the elements behind its only place, padding
    included; 0 where it has several places, or the size is not known."""
    moved = sizes(x, kernel)
    each = (per(one, len(moved)) for one in (kernel, stride or kernel, padding, dilation))
    found = []
    for size, width, step, pad, apart in zip(moved, *each, strict=True):
        if all(isinstance(one, int) for one in (size, width, step, pad)):
            left = size + 2 * pad - apart * (width - 1) - 1
            found.append(left if 0 < left < step else 0)
        else:
            found.append(0)
    return found


def sizes(x: torch.Tensor, kernel: Any) -> Sequence[Any]:
    """Sizes of the dimensions that a window moves along; one number of `kernel` is for all."""
    one = isinstance(kernel, int) or len(kernel) == 1
    return x.shape[2:] if one else x.shape[-len(kernel) :]


def per(value: Any, count: int) -> list[Any]:
    """A number for each of `count` dimensions."""
    values = [value] if isinstance(value, int) else list(value)
    return values * count if len(values) == 1 else values


def _without(
    x: torch.Tensor, rests: Sequence[int], padding: Sequence[int], value: float
) -> tuple[torch.Tensor, list[int]]:
    """(x without the rests, padded with `value` where it had one; the padding of the others)."""
    pads = [(p, p - rest) if rest else (0, 0) for p, rest in zip(padding, rests, strict=True)]
    flat = [one for pair in reversed(pads) for one in pair]
    x = cropped(x, flat)
    if any(p > 0 for p in flat):
        x = torch.ops.aten.constant_pad_nd(x, [max(p, 0) for p in flat], value)
    return x, [0 if rest else p for p, rest in zip(padding, rests, strict=True)]


def in_a_batch(op: _Operation) -> _Operation:
    """The operation on a batch of one."""

    def decompose(x: torch.Tensor, *args: Any) -> Any:
        return op(x.unsqueeze(0), *args).squeeze(0)

    return decompose


def without_batch(dims: int) -> Callable[..., bool]:
    """True for an input of channels alone, of so many dimensions that a window moves along."""
    return lambda x, *args: x.dim() == dims + 1


def beside_zeros(x: torch.Tensor, weight: torch.Tensor, *options: Any) -> torch.Tensor:
    """The 3-D convolution of each channel by itself, as one of pairs of a channel and zeros."""
    pairs = torch.stack([x, torch.zeros_like(x)], 2).flatten(1, 2)
    weights = torch.cat([weight, torch.zeros_like(weight)], 1)
    made: torch.Tensor = torch.ops.aten.conv3d(pairs, weights, *options)
    return made


def of_each_channel(x: Any, weight: Any, *options: Any) -> bool:
    """True for a convolution whose groups are single channels. options: bias, stride, padding,
    dilation, groups, or the first of them."""
    return len(options) == 5 and options[4] > 1 and weight.shape[1] == 1


def spread_beside_zeros(op: _Operation) -> _Operation:
    """The transposed convolution of each channel by itself, as one of pairs of a channel and
    zeros."""

    def decompose(x: torch.Tensor, weight: torch.Tensor, *options: Any) -> Any:
        pairs = torch.stack([x, torch.zeros_like(x)], 2).flatten(1, 2)
        weights = torch.stack([weight, torch.zeros_like(weight)], 1).flatten(0, 1)
        return op(pairs, weights, *options)

    return decompose


def spreads_each_channel(x: Any, weight: Any, *options: Any) -> bool:
    """True for a transposed convolution from single channels to single ones. options: bias, stride,
    padding, output_padding, groups, dilation, or the first of them."""
    return len(options) > 4 and options[4] == weight.shape[0] > 1 and weight.shape[1] == 1
