"""Decompositions of operations that PyTorch itself has none for, or whose numbers IREE gets wrong.

Each computes what the operation's own kernel computes, which a test checks on random and edge
values, and is used only if the compiler refuses the operation (see `gaps`), or computes its probe
wrong (see `probes`).

Runs in the tracing child; imports torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch


def histc(x: torch.Tensor, bins: int = 100, min: float = 0, max: float = 0) -> Any:
    """Counts of elements in `bins` equal parts of [min, max], in x's dtype.

    transformers counts the tokens of each expert with it. Without bounds PyTorch takes those of the
    values, which nothing else here can.
    """
    if min >= max:
        return NotImplemented
    flat = x.reshape(-1)
    low, high = (torch.full((), edge, dtype=x.dtype) for edge in (min, max))
    place = ((flat - low) * bins / (high - low)).to(torch.int64).clamp(max=bins - 1)
    inside = torch.logical_and(flat >= low, flat <= high)
    hits = torch.logical_and(place[:, None] == torch.arange(bins), inside[:, None])
    return hits.sum(0).to(x.dtype)


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
    if mode != "constant" or not _crops(pad):
        return NotImplemented
    return torch.ops.aten.pad.default(_cropped(x, pad), [max(p, 0) for p in pad], mode, value)


def constant_pad_nd(x: torch.Tensor, pad: Sequence[int], value: Any = 0) -> Any:
    """Same as `pad`."""
    if not _crops(pad):
        return NotImplemented
    return torch.ops.aten.constant_pad_nd(_cropped(x, pad), [max(p, 0) for p in pad], value)


def _crops(pad: Sequence[Any]) -> bool:
    return any(isinstance(p, int) and p < 0 for p in pad)


def _cropped(x: torch.Tensor, pad: Sequence[int]) -> torch.Tensor:
    """x without what negative padding crops. pad: (before, after) of each dimension, last first."""
    for dim, (before, after) in enumerate(zip(pad[::2], pad[1::2], strict=True), start=1):
        size = x.shape[-dim]
        first, last = (max(-p, 0) if isinstance(p, int) else 0 for p in (before, after))
        if first or last:
            x = torch.ops.aten.slice.Tensor(x, x.dim() - dim, first, size - last)
    return x


def select_scatter(x: torch.Tensor, src: torch.Tensor, dim: int, index: Any) -> Any:
    """The same with the index from the front of the dimension, where it is from the back."""
    if not _from_the_back((x, src, dim, index)) or not isinstance(x.shape[dim], int):
        return NotImplemented
    return torch.ops.aten.select_scatter(x, src, dim, index + x.shape[dim])


def _from_the_back(args: Sequence[Any]) -> bool:
    return len(args) > 3 and isinstance(args[3], int) and args[3] < 0


class NumbersProbe(NamedTuple):
    """The smallest program of a call for which some release of IREE computes wrong numbers.

    applies: to a call with these arguments. what: such a call, in words. program: MLIR with a
    function `main`. inputs, expected: of it, as iree-run-module takes them.
    """

    applies: Callable[[Sequence[Any]], bool]
    what: str
    program: str
    inputs: tuple[str, ...]
    expected: tuple[str, ...]


class Own(NamedTuple):
    """A decomposition, and its price; "" if it costs nothing to speak of.

    probe: of an operation that compiles, but whose numbers may be wrong.
    """

    decompose: Callable[..., Any]
    price: str = ""
    probe: NumbersProbe | None = None


_VALUES = "!torch.vtensor<[2],f32>"
_CROPPING = NumbersProbe(
    applies=lambda args: len(args) > 1 and _crops(args[1]),
    what="negative padding",
    program=f"""\
func.func @main(%x: {_VALUES}) -> {_VALUES} {{
  %before = torch.constant.int 1
  %after = torch.constant.int -1
  %value = torch.constant.float 0.0
  %pad = torch.prim.ListConstruct %before, %after : (!torch.int, !torch.int) -> !torch.list<int>
  %y = torch.aten.constant_pad_nd %x, %pad, %value :
    {_VALUES}, !torch.list<int>, !torch.float -> {_VALUES}
  return %y : {_VALUES}
}}
""",
    inputs=("2xf32=1,2",),
    expected=("2xf32=0,1",),
)

_FROM_THE_BACK = NumbersProbe(
    applies=_from_the_back,
    what="an index from the back",
    program=f"""\
func.func @main(%x: {_VALUES}, %src: !torch.vtensor<[],f32>) -> {_VALUES} {{
  %dim = torch.constant.int 0
  %index = torch.constant.int -1
  %y = torch.aten.select_scatter %x, %src, %dim, %index :
    {_VALUES}, !torch.vtensor<[],f32>, !torch.int, !torch.int -> {_VALUES}
  return %y : {_VALUES}
}}
""",
    inputs=("2xf32=1,2", "f32=3"),
    expected=("2xf32=1,3",),
)

#: By the name of the operation.
OWN: Mapping[str, Own] = {
    "aten._is_all_true": Own(is_all_true),
    "aten._is_any_true": Own(is_any_true),
    "aten.constant_pad_nd": Own(constant_pad_nd, probe=_CROPPING),
    "aten.histc": Own(histc),
    "aten.pad": Own(pad, probe=_CROPPING),
    "aten.select_scatter": Own(select_scatter, probe=_FROM_THE_BACK),
    "transformers.grouped_mm_fallback": Own(grouped_mm, "each expert computes all rows"),
}
