"""Decompositions of operations that PyTorch itself has none for, or whose numbers IREE gets wrong.

Each computes what the operation's own kernel computes, which a test checks on random and edge
values, and is used only if the compiler refuses the operation (see `gaps`), or computes its probe
wrong (see `probes`).

Runs in the tracing child; imports torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch._decomp import get_decompositions
from torch.nn import functional


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


def conv(x: torch.Tensor, weight: torch.Tensor, bias: Any = None, *rest: Any) -> Any:
    """A convolution of what its windows read of x [N, C, ...] alone; of any number of dimensions.

    Each sum has the same addends, as only what no window reads is cut off.
    """
    read = _read_by_conv(x.shape, weight, bias, *rest)
    if read is None:
        return NotImplemented
    own = getattr(functional, f"conv{x.dim() - 2}d")
    return own(_cut(x, read), weight, bias, [r.stride for r in read], *rest[1:])


def max_pool2d(x: torch.Tensor, kernel: Any, *rest: Any) -> Any:
    """The same of the largest of each window."""
    read = _read_by_max_pool(x.shape, kernel, *rest)
    if read is None:
        return NotImplemented
    strides = [r.stride for r in read]
    return functional.max_pool2d(_cut(x, read), kernel, strides, *rest[1:])


def avg_pool2d(x: torch.Tensor, kernel: Any, *rest: Any) -> Any:
    """The same of the mean of each window."""
    read = _read_by_avg_pool(x.shape, kernel, *rest)
    if read is None:
        return NotImplemented
    strides = [r.stride for r in read]
    return functional.avg_pool2d(_cut(x, read), kernel, strides, *rest[1:])


class _Read(NamedTuple):
    """What windows read of a dimension: the elements before `end`, every `step`-th of them.

    stride: of the windows, over those."""

    end: int
    step: int
    stride: int


def _read_by_conv(
    size: Sequence[Any], weight: Any, bias: Any = None, *rest: Any
) -> list[_Read] | None:
    windows, groups = (*rest[:3], *(1, 0, 1)[len(rest) :]), rest[3] if len(rest) > 3 else 1
    kernel = _shape(weight)[2:]
    if groups != size[1] and all(k == 1 for k in kernel):
        return None  # a product of matrices, which is computed right
    return _read(size, kernel, *windows)


def _read_by_max_pool(
    size: Sequence[Any],
    kernel: Any,
    stride: Any = (),
    padding: Any = 0,
    dilation: Any = 1,
    ceil: bool = False,
) -> list[_Read] | None:
    return None if ceil else _read(size, kernel, stride or kernel, padding, dilation)


def _read_by_avg_pool(
    size: Sequence[Any],
    kernel: Any,
    stride: Any = (),
    padding: Any = 0,
    ceil: bool = False,
    *_: Any,
) -> list[_Read] | None:
    return None if ceil else _read(size, kernel, stride or kernel, padding, 1)


def _read(size: Sequence[Any], *windows: Any) -> list[_Read] | None:
    """What windows (kernel, stride, padding, dilation) read of each of the last dimensions.

    None where that is all of them, or not known.
    """
    kernels = windows[0] if isinstance(windows[0], Sequence) else (windows[0],) * 2
    sizes = size[-len(kernels) :]
    each = [
        one if isinstance(one, Sequence) and len(one) > 1 else [*_flat(one)] * len(sizes)
        for one in windows
    ]
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


def _flat(value: Any) -> Sequence[Any]:
    return value if isinstance(value, Sequence) else (value,)


def _cut(x: torch.Tensor, read: Sequence[_Read]) -> torch.Tensor:
    for dim, one in enumerate(read, start=x.dim() - len(read)):
        if one.end < x.shape[dim] or one.step > 1:
            x = torch.ops.aten.slice.Tensor(x, dim, 0, one.end, one.step)
    return x


def _leaves_out(read: Callable[..., Any]) -> Callable[[Sequence[Any]], bool]:
    """True for a call whose windows leave out some of what is computed. read: what they read."""

    def applies(args: Sequence[Any]) -> bool:
        x, *rest = args
        computed = isinstance(x, torch.fx.Node) and x.op == "call_function"
        return computed and read(_shape(x), *rest) is not None

    return applies


def _shape(x: Any) -> Sequence[Any]:
    """Shape of a tensor, or of a node's."""
    shape: Sequence[Any] = (x.meta["val"] if isinstance(x, torch.fx.Node) else x).shape
    return shape


def gelu(x: torch.Tensor, approximate: str = "none") -> Any:
    """The form with tanh, as PyTorch's kernel has it: narrow types are computed in f32."""
    if approximate != "tanh":
        return NotImplemented
    wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    inner = math.sqrt(2 / math.pi) * (wide + 0.044715 * (wide * wide * wide))
    return (0.5 * wide * (1 + torch.tanh(inner))).to(x.dtype)


def grid_sampler(x: torch.Tensor, grid: torch.Tensor, *how: Any) -> Any:
    """Samples of images by PyTorch's own decomposition."""
    if x.dim() != 4:
        return NotImplemented
    op = torch.ops.aten.grid_sampler_2d.default
    return get_decompositions([op])[op](x, grid, *how)


class NumbersProbe(NamedTuple):
    """The smallest program of a call for which some release of IREE computes wrong numbers.

    applies: to a call with these arguments, keywords' last. what: such a call, in words. program:
    MLIR with a function `main`. inputs, expected: of it, as iree-run-module takes them.
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

# The factor makes the difference larger than what iree-run-module allows.
_TANH = NumbersProbe(
    applies=lambda args: "tanh" in args,
    what="gelu with tanh",
    program="""\
func.func @main(%x: !torch.vtensor<[],f32>) -> !torch.vtensor<[],f32> {
  %tanh = torch.constant.str "tanh"
  %factor = torch.constant.float 16.0
  %y = torch.aten.gelu %x, %tanh : !torch.vtensor<[],f32>, !torch.str -> !torch.vtensor<[],f32>
  %z = torch.aten.mul.Scalar %y, %factor :
    !torch.vtensor<[],f32>, !torch.float -> !torch.vtensor<[],f32>
  return %z : !torch.vtensor<[],f32>
}
""",
    inputs=("f32=1",),
    expected=("f32=13.459072",),
)

_IMAGE, _PLACE = "!torch.vtensor<[1,1,3,3],f32>", "!torch.vtensor<[1,1,1,2],f32>"
_OUTSIDE = NumbersProbe(
    applies=lambda args: len(_shape(args[0])) == 4,
    what="samples from outside of an image",
    program=f"""\
func.func @main(%x: {_IMAGE}, %at: {_PLACE}) -> !torch.vtensor<[1,1,1,1],f32> {{
  %zero = torch.constant.int 0
  %true = torch.constant.bool true
  %y = torch.aten.grid_sampler %x, %at, %zero, %zero, %true :
    {_IMAGE}, {_PLACE}, !torch.int, !torch.int, !torch.bool -> !torch.vtensor<[1,1,1,1],f32>
  return %y : !torch.vtensor<[1,1,1,1],f32>
}}
""",
    inputs=("1x1x3x3xf32=1", "1x1x1x2xf32=4,0"),
    expected=("1x1x1x1xf32=0",),
)

_WHOLE, _HALVES = "!torch.vtensor<[2,2,4,4],f32>", "!torch.vtensor<[2,2,2,2],f32>"
_POOLED = f"""\
func.func @main(%x: {_WHOLE}) -> ({_WHOLE}, {_HALVES}) {{
  %zero = torch.constant.int 0
  %one = torch.constant.int 1
  %two = torch.constant.int 2
  %false = torch.constant.bool false
  %zeros = torch.prim.ListConstruct %zero, %zero : (!torch.int, !torch.int) -> !torch.list<int>
  %ones = torch.prim.ListConstruct %one, %one : (!torch.int, !torch.int) -> !torch.list<int>
  %twos = torch.prim.ListConstruct %two, %two : (!torch.int, !torch.int) -> !torch.list<int>
  %y = torch.aten.add.Tensor %x, %x, %one : {_WHOLE}, {_WHOLE}, !torch.int -> {_WHOLE}
  %z = torch.aten.max_pool2d %y, %ones, %twos, %zeros, %ones, %false :
    {_WHOLE}, !torch.list<int>, !torch.list<int>, !torch.list<int>, !torch.list<int>, !torch.bool
    -> {_HALVES}
  return %y, %z : {_WHOLE}, {_HALVES}
}}
"""


def _windows(read: Callable[..., Any]) -> NumbersProbe:
    """Of a value and its max-pooling by 1x1 with stride 2, of which a quarter is then computed.

    Where windows of more elements leave out its end, the same release does not compile it.
    """
    return NumbersProbe(
        applies=_leaves_out(read),
        what="a computed value of which windows leave out some",
        program=_POOLED,
        inputs=("2x2x4x4xf32=1",),
        expected=("2x2x4x4xf32=2", "2x2x2x2xf32=2"),
    )


#: By the name of the operation.
OWN: Mapping[str, Own] = {
    "aten._is_all_true": Own(is_all_true),
    "aten._is_any_true": Own(is_any_true),
    "aten.avg_pool2d": Own(avg_pool2d, probe=_windows(_read_by_avg_pool)),
    "aten.constant_pad_nd": Own(constant_pad_nd, probe=_CROPPING),
    "aten.conv1d": Own(conv, probe=_windows(_read_by_conv)),
    "aten.conv2d": Own(conv, probe=_windows(_read_by_conv)),
    "aten.conv3d": Own(conv, probe=_windows(_read_by_conv)),
    "aten.gelu": Own(gelu, probe=_TANH),
    "aten.grid_sampler": Own(grid_sampler, probe=_OUTSIDE),
    "aten.histc": Own(histc),
    "aten.max_pool2d": Own(max_pool2d, probe=_windows(_read_by_max_pool)),
    "aten.pad": Own(pad, probe=_CROPPING),
    "aten.select_scatter": Own(select_scatter, probe=_FROM_THE_BACK),
    "transformers.grouped_mm_fallback": Own(grouped_mm, "each expert computes all rows"),
}
