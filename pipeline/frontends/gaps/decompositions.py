"""Decompositions of operations that PyTorch itself has none for, or whose numbers IREE gets wrong.

Each computes what the operation's own kernel computes, which a test checks on random and edge
values, and is used only for the calls it is made for, and if the compiler refuses such a call (see
`gaps`) or fails at its probe (see `probing`).

Runs in the tracing child; imports torch.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch


def histc(x: torch.Tensor, bins: int = 100, min: float = 0, max: float = 0) -> Any:
    """Counts of elements in `bins` equal parts of [min, max], in x's dtype.

    transformers counts the tokens of each expert with it. Without bounds PyTorch takes those of the
    values, which nothing else here can.
    """
    flat = x.reshape(-1)
    low, high = (torch.full((), edge, dtype=x.dtype) for edge in (min, max))
    place = ((flat - low) * bins / (high - low)).to(torch.int64).clamp(max=bins - 1)
    inside = torch.logical_and(flat >= low, flat <= high)
    hits = torch.logical_and(place[:, None] == torch.arange(bins), inside[:, None])
    return hits.sum(0).to(x.dtype)


def bounded(x: Any, bins: int = 100, min: float = 0, max: float = 0) -> bool:
    """True for `histc` with bounds."""
    return min < max


def grouped_mm(input: torch.Tensor, weight: torch.Tensor, offs: torch.Tensor) -> Any:
    """Rows of an [S, K] input, each times the [K, N] weight of its group; zero behind the last.

    weight: [groups, K, N]. offs: [groups], where each group of rows ends. transformers' experts use
    it where PyTorch's own `_grouped_mm` does not take the dtype.
    """
    rows = torch.arange(input.shape[0])
    group = (rows[:, None] >= offs[None, :]).sum(1)
    own = group[None, :] == torch.arange(weight.shape[0])[:, None]
    return torch.where(own[:, :, None], torch.matmul(input[None], weight), 0).sum(0)


def is_all_true(x: torch.Tensor) -> torch.Tensor:
    """True if all elements of a bool tensor are, as its kernel has it (`torch._check_with`)."""
    return x.all()


def is_any_true(x: torch.Tensor) -> torch.Tensor:
    """True if any element of a bool tensor is."""
    return x.any()


def pad(x: torch.Tensor, pad: Sequence[int], mode: str = "constant", value: Any = None) -> Any:
    """`constant` padding whose negative numbers crop: x is cropped, then padded with the rest."""
    return torch.ops.aten.pad.default(cropped(x, pad), [max(p, 0) for p in pad], mode, value)


def constant_pad_nd(x: torch.Tensor, pad: Sequence[int], value: Any = 0) -> Any:
    """Same as `pad`."""
    return torch.ops.aten.constant_pad_nd(cropped(x, pad), [max(p, 0) for p in pad], value)


def crops(x: Any, pad: Sequence[Any], mode: Any = "constant", value: Any = None) -> bool:
    """True for `pad` that crops; also for constant_pad_nd, which has its value in place of mode."""
    constant = mode == "constant" or not isinstance(mode, str)
    return constant and any(isinstance(p, int) and p < 0 for p in pad)


def cropped(x: torch.Tensor, pad: Sequence[int]) -> torch.Tensor:
    """x without what negative padding crops. pad: (before, after) of each dimension, last first."""
    for dim, (before, after) in enumerate(zip(pad[::2], pad[1::2], strict=True), start=1):
        size = x.shape[-dim]
        first, last = (max(-p, 0) if isinstance(p, int) else 0 for p in (before, after))
        if first or last:
            x = torch.ops.aten.slice.Tensor(x, x.dim() - dim, first, size - last)
    return x


def select_scatter(x: torch.Tensor, src: torch.Tensor, dim: int, index: Any) -> Any:
    """The same with the index from the front of the dimension."""
    return torch.ops.aten.select_scatter(x, src, dim, index + x.shape[dim])


def from_the_back(x: torch.Tensor, src: Any, dim: int, index: Any) -> bool:
    """True for an index counted from the back."""
    return isinstance(index, int) and index < 0 and isinstance(x.shape[dim], int)


def mul_complex(x: torch.Tensor, scale: float) -> torch.Tensor:
    """Complex numbers times a number of Python, as PyTorch multiplies them: by a complex one."""
    return x * torch.complex(*(torch.full((), part, dtype=x.real.dtype) for part in (scale, 0)))


def scales_complex(x: Any, scale: Any) -> bool:
    """True for a complex tensor and a real number of Python."""
    return isinstance(x, torch.Tensor) and x.is_complex() and isinstance(scale, int | float)


def pad_reflected(x: torch.Tensor, pad: Sequence[int], mode: str, value: Any = None) -> Any:
    """`reflect` padding, as elements taken by their places."""
    for dim, (before, after) in enumerate(zip(pad[::2], pad[1::2], strict=True), start=1):
        last = x.shape[-dim] - 1
        if before or after:
            places = last - (last - torch.arange(-before, last + 1 + after).abs()).abs()
            x = x.index_select(x.dim() - dim, places)
    return x


def reflects_far(x: torch.Tensor, pad: Sequence[Any], mode: str = "", value: Any = None) -> bool:
    """True for `reflect` padding by more than one element."""
    sizes = (*pad, *x.shape)
    return (
        mode == "reflect"
        and all(isinstance(n, int) and n >= 0 for n in sizes)
        and max(pad, default=0) > 1
    )


def index_masked(x: torch.Tensor, indices: Sequence[Any]) -> Any:
    """Elements where masks are true, taken by the places where they are."""
    places: list[Any] = []
    for one in indices:
        if one is not None and one.dtype == torch.bool:
            places += one.nonzero().unbind(1)
        else:
            places.append(one)
    return torch.ops.aten.index.Tensor(x, places)


def masks(x: Any, indices: Sequence[Any]) -> bool:
    """True if an index is a boolean mask (of rank 1 or more) and none is a uint8 mask."""
    given = [one for one in indices if one is not None]
    old = any(one.dtype == torch.uint8 for one in given)
    return not old and any(one.dtype == torch.bool and one.dim() for one in given)


def index_by_one(x: torch.Tensor, indices: Sequence[Any]) -> Any:
    """Elements taken by one index into the dimensions that several go into."""
    first = next(dim for dim, one in enumerate(indices) if one is not None)
    places: Any = 0
    for dim, one in enumerate(indices[first:], start=first):
        size = x.shape[dim]
        places = places * size + torch.where(one < 0, one + size, one)
    flat = x.flatten(first, len(indices) - 1)
    return torch.ops.aten.index.Tensor(flat, [*indices[:first], places])


def in_step(x: torch.Tensor, indices: Sequence[Any]) -> bool:
    """True for several indices, of neighbouring dimensions and of one size that is not known when
    it is compiled."""
    given = [dim for dim, one in enumerate(indices) if one is not None]
    if len(given) < 2 or given != list(range(given[0], len(indices))):
        return False
    sizes = {str(tuple(indices[dim].shape)) for dim in given}
    known = (isinstance(n, int) for n in indices[given[0]].shape)
    within = all(isinstance(x.shape[dim], int) for dim in given)
    whole = all(indices[dim].dtype in (torch.int32, torch.int64) for dim in given)
    return len(sizes) == 1 and not all(known) and within and whole


def from_the_front(op: Callable[..., Any]) -> Callable[..., Any]:
    """The operation, with its dimension counted from the front."""
    return lambda x, dim, *args, **kwargs: op(x, dim + x.dim(), *args, **kwargs)


def backward_dim(x: torch.Tensor, dim: int, *args: Any, **kwargs: Any) -> bool:
    """True for a dimension counted from the back."""
    return dim < 0 < x.dim()


def topk_sorted(x: Any, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Any:
    """The largest elements in order, where any order will do."""
    return torch.ops.aten.topk(x, k, dim, largest, True)


def in_any_order(x: Any, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> bool:
    """True for a top-k that need not be sorted."""
    return not sorted


def gelu(x: torch.Tensor, approximate: str = "none") -> Any:
    """The form with tanh, as PyTorch's kernel has it: narrow types are computed in f32."""
    wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    inner = math.sqrt(2 / math.pi) * (wide + 0.044715 * (wide * wide * wide))
    return (0.5 * wide * (1 + torch.tanh(inner))).to(x.dtype)


def with_tanh(x: Any, approximate: str = "none") -> bool:
    """True for gelu in its form with tanh."""
    return approximate == "tanh"


def masked_scatter(x: torch.Tensor, mask: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
    """The next element of the source where the mask is true, taken by how many were before."""
    x, mask = torch.broadcast_tensors(x, mask)  # type: ignore[no-untyped-call]
    places = (mask.reshape(-1).to(torch.int64).cumsum(0) - 1).clamp(min=0)
    filled = torch.cat([source.reshape(-1), source.new_zeros(1)])  # there may be none
    return torch.where(mask, filled.index_select(0, places).reshape(x.shape), x)


def of_open_size(x: Any, mask: Any, source: torch.Tensor) -> bool:
    """True for a source whose size is not known when it is compiled."""
    return not all(isinstance(n, int) for n in source.shape)


def split_open(x: torch.Tensor, sizes: Sequence[Any], dim: int = 0) -> list[torch.Tensor]:
    """The parts of a split as slices one behind the other; the only part is all of it."""
    if len(sizes) == 1:
        return [torch.ops.aten.alias(x)]
    starts = itertools.accumulate(sizes[:-1], initial=0)
    return [x.narrow(dim, start, size) for start, size in zip(starts, sizes, strict=True)]


def into_open(x: Any, sizes: Sequence[Any], dim: int = 0) -> bool:
    """True for a split into parts of sizes that are not known when it is compiled."""
    return not all(isinstance(size, int) for size in sizes)
