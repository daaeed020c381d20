"""The decompositions of iree-pilot's own: for which calls each is, and the probe that asks for it.

Runs in the tracing child; imports torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch

from iree_pilot.pipeline.frontends.gaps import decompositions as made
from iree_pilot.pipeline.frontends.gaps import sampling, unread, unsigned, windowed
from iree_pilot.pipeline.targets.probing import ProbeProgram


def _always(*args: Any, **kwargs: Any) -> bool:
    return True


class Own(NamedTuple):
    """A decomposition of some calls of an operation.

    price: "" if it costs nothing to speak of. applies: to a call with these arguments, which are
    those of `decompose`; what: such a call, in words, "" for any. probe: of an operation that
    passes `input`, but fails later or whose numbers may be wrong.
    """

    decompose: Callable[..., Any]
    price: str = ""
    applies: Callable[..., bool] = _always
    what: str = ""
    probe: ProbeProgram | None = None


_VALUES = "!torch.vtensor<[2],f32>"
_CROPPING = ProbeProgram(
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

_FROM_THE_BACK = ProbeProgram(
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

_CONVOLVED_ONCE = ProbeProgram(
    program="""\
func.func @main(%x: !torch.vtensor<[1,1,3],f32>, %w: !torch.vtensor<[1,1,2],f32>)
    -> !torch.vtensor<[1,1,1],f32> {
  %none = torch.constant.none
  %zero = torch.constant.int 0
  %one = torch.constant.int 1
  %two = torch.constant.int 2
  %stride = torch.prim.ListConstruct %two : (!torch.int) -> !torch.list<int>
  %padding = torch.prim.ListConstruct %zero : (!torch.int) -> !torch.list<int>
  %dilation = torch.prim.ListConstruct %one : (!torch.int) -> !torch.list<int>
  %y = torch.aten.conv1d %x, %w, %none, %stride, %padding, %dilation, %one :
    !torch.vtensor<[1,1,3],f32>, !torch.vtensor<[1,1,2],f32>, !torch.none, !torch.list<int>,
    !torch.list<int>, !torch.list<int>, !torch.int -> !torch.vtensor<[1,1,1],f32>
  return %y : !torch.vtensor<[1,1,1],f32>
}
""",
    inputs=("1x1x3xf32=1,2,4", "1x1x2xf32=1,1"),
    expected=("1x1x1xf32=3",),
)

_POOLED_ONCE = ProbeProgram(
    program="""\
func.func @main(%x: !torch.vtensor<[1,1,3],f32>) -> !torch.vtensor<[1,1,1],f32> {
  %false = torch.constant.bool false
  %true = torch.constant.bool true
  %zero = torch.constant.int 0
  %two = torch.constant.int 2
  %size = torch.prim.ListConstruct %two : (!torch.int) -> !torch.list<int>
  %padding = torch.prim.ListConstruct %zero : (!torch.int) -> !torch.list<int>
  %y = torch.aten.avg_pool1d %x, %size, %size, %padding, %false, %true :
    !torch.vtensor<[1,1,3],f32>, !torch.list<int>, !torch.list<int>, !torch.list<int>,
    !torch.bool, !torch.bool -> !torch.vtensor<[1,1,1],f32>
  return %y : !torch.vtensor<[1,1,1],f32>
}
""",
    inputs=("1x1x3xf32=1,2,4",),
    expected=("1x1x1xf32=1.5",),
)

# Of one channel it compiles.
_CEIL = ProbeProgram(
    program="""\
func.func @main(%x: !torch.vtensor<[1,1,2,2],f32>) -> !torch.vtensor<[1,1,2,2],f32> {
  %true = torch.constant.bool true
  %none = torch.constant.none
  %zero = torch.constant.int 0
  %one = torch.constant.int 1
  %ones = torch.prim.ListConstruct %one, %one : (!torch.int, !torch.int) -> !torch.list<int>
  %padding = torch.prim.ListConstruct %zero, %zero : (!torch.int, !torch.int) -> !torch.list<int>
  %y = torch.aten.avg_pool2d %x, %ones, %ones, %padding, %true, %true, %none :
    !torch.vtensor<[1,1,2,2],f32>, !torch.list<int>, !torch.list<int>, !torch.list<int>,
    !torch.bool, !torch.bool, !torch.none -> !torch.vtensor<[1,1,2,2],f32>
  return %y : !torch.vtensor<[1,1,2,2],f32>
}
""",
    inputs=("1x1x2x2xf32=1,2,3,4",),
    expected=("1x1x2x2xf32=1,2,3,4",),
)

_REFLECTED_FAR = ProbeProgram(
    program="""\
func.func @main(%x: !torch.vtensor<[1,8,3],f32>) -> !torch.vtensor<[1,8,5],f32> {
  %zero = torch.constant.int 0
  %two = torch.constant.int 2
  %mode = torch.constant.str "reflect"
  %value = torch.constant.float 0.0
  %pad = torch.prim.ListConstruct %two, %zero : (!torch.int, !torch.int) -> !torch.list<int>
  %y = torch.aten.pad %x, %pad, %mode, %value :
    !torch.vtensor<[1,8,3],f32>, !torch.list<int>, !torch.str, !torch.float
    -> !torch.vtensor<[1,8,5],f32>
  return %y : !torch.vtensor<[1,8,5],f32>
}
""",
    inputs=(f"1x8x3xf32={','.join(['1,2,3'] * 8)}",),
    expected=(f"1x8x5xf32={','.join(['3,2,1,2,3'] * 8)}",),
)

# The factor makes the difference larger than what iree-run-module allows.
_TANH = ProbeProgram(
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
_OUTSIDE = ProbeProgram(
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

#: Of a value and its max-pooling by 1x1 with stride 2, of which a quarter is then computed. Where
#: windows of more elements leave out its end, the same release does not compile it.
_LEFT_OUT = ProbeProgram(
    program=_POOLED,
    inputs=("2x2x4x4xf32=1",),
    expected=("2x2x4x4xf32=2", "2x2x2x2xf32=2"),
)

_BYTE, _FLOAT, _BIT = (f"!torch.vtensor<[1],{kind}>" for kind in ("ui8", "f32", "i1"))
_SIGNED = ProbeProgram(
    program=f"""\
func.func @main(%x: {_BYTE}, %y: {_FLOAT})
    -> ({_FLOAT}, {_FLOAT}, {_BIT}, {_BYTE}, !torch.vtensor<[],si64>) {{
  %half = torch.constant.float 0.5
  %hundred = torch.constant.int 100
  %none = torch.constant.none
  %a = torch.aten.mul.Scalar %x, %half : {_BYTE}, !torch.float -> {_FLOAT}
  %b = torch.aten.mul.Tensor %x, %y : {_BYTE}, {_FLOAT} -> {_FLOAT}
  %c = torch.aten.lt.Scalar %x, %hundred : {_BYTE}, !torch.int -> {_BIT}
  %d = torch.aten.abs %x : {_BYTE} -> {_BYTE}
  %e = torch.aten.sum %x, %none : {_BYTE}, !torch.none -> !torch.vtensor<[],si64>
  return %a, %b, %c, %d, %e : {_FLOAT}, {_FLOAT}, {_BIT}, {_BYTE}, !torch.vtensor<[],si64>
}}
""",
    inputs=("1xi8=200", "1xf32=0.5"),
    expected=("1xf32=100", "1xf32=100", "1xi1=00", "1xi8=200", "i64=200"),
)

_aten = torch.ops.aten
_ONCE = "a window that fits once, with elements left over"


def _cut(decompose: Callable[..., Any], read: Callable[..., Any]) -> Own:
    """Of what windows read alone. read: gives that for a call, None where it is all."""
    return Own(
        decompose,
        applies=lambda *args: read(*args) is not None,
        what="a value of which windows leave out some",
        probe=_LEFT_OUT,
    )


def _windowed(dims: int, op: Callable[..., Any], *others: Own) -> tuple[Own, ...]:
    alone = windowed.without_batch(dims)
    return Own(windowed.in_a_batch(op), applies=alone, what="an input without a batch"), *others


def _convolution(dims: int, op: Callable[..., Any], *others: Own) -> tuple[Own, ...]:
    once = Own(
        windowed.convolved_once(op),
        applies=windowed.leaves_a_rest,
        what=_ONCE,
        probe=_CONVOLVED_ONCE,
    )
    return _windowed(dims, op, once, *others, _cut(unread.conv, unread.read_by_conv))


def _transposed(dims: int, op: Callable[..., Any]) -> tuple[Own, ...]:
    spread = _EACH_CHANNEL._replace(
        decompose=windowed.spread_beside_zeros(op), applies=windowed.spreads_each_channel
    )
    return _windowed(dims, op, spread)


def _max_pooling(dims: int, op: Callable[..., Any], *others: Own) -> tuple[Own, ...]:
    once, applies = windowed.largest_once(op), windowed.largest_leaves_a_rest
    pooled = Own(once, applies=applies, what=_ONCE, probe=_POOLED_ONCE)
    return _windowed(dims, op, *others, pooled)


def _mean_pooling(dims: int, op: Callable[..., Any], *others: Own) -> tuple[Own, ...]:
    once, applies = windowed.mean_once(op), windowed.mean_leaves_a_rest
    pooled = Own(once, applies=applies, what=_ONCE, probe=_POOLED_ONCE)
    inside = Own(
        windowed.mean_without_ceil(op),
        applies=windowed.mean_needs_no_ceil,
        what="ceil_mode where no window needs it",
        probe=_CEIL,
    )
    return _windowed(dims, op, inside, *others, pooled)


def _of_bytes(name: str, applies: Callable[..., bool]) -> Own:
    packet, _, overload = name.removeprefix("aten.").partition(".")
    op = getattr(getattr(_aten, packet), overload or "default")
    return Own(unsigned.in_32_bits(op), applies=applies, what="unsigned bytes", probe=_SIGNED)


def _along(op: Callable[..., Any]) -> tuple[Own, ...]:
    front, backward = made.from_the_front(op), made.backward_dim
    return (Own(front, applies=backward, what="a dimension from the back"),)


_EACH_CHANNEL = Own(
    windowed.beside_zeros,
    "each channel is convolved beside one of zeros",
    applies=windowed.of_each_channel,
    what="groups of single channels",
)
_PADDING = Own(made.pad, applies=made.crops, what="negative padding", probe=_CROPPING)

_OF_BYTES = {name: _of_bytes(name, applies) for name, applies in unsigned.CALLS.items()}
_OTHERS: Mapping[str, Sequence[Own]] = {
    "aten._is_all_true": [Own(made.is_all_true)],
    "aten._is_any_true": [Own(made.is_any_true)],
    "aten.avg_pool1d": _mean_pooling(1, _aten.avg_pool1d.default),
    "aten.avg_pool2d": _mean_pooling(
        2, _aten.avg_pool2d.default, _cut(unread.avg_pool2d, unread.read_by_avg_pool)
    ),
    "aten.avg_pool3d": _mean_pooling(3, _aten.avg_pool3d.default),
    "aten.constant_pad_nd": [_PADDING._replace(decompose=made.constant_pad_nd)],
    "aten.conv1d": _convolution(1, _aten.conv1d.default),
    "aten.conv1d.padding": [Own(windowed.padded_alike(_aten.conv1d.default))],
    "aten.conv2d": _convolution(2, _aten.conv2d.default),
    "aten.conv2d.padding": [Own(windowed.padded_alike(_aten.conv2d.default))],
    "aten.conv3d": _convolution(3, _aten.conv3d.default, _EACH_CHANNEL),
    "aten.conv3d.padding": [Own(windowed.padded_alike(_aten.conv3d.default))],
    "aten.conv_transpose1d": _transposed(1, _aten.conv_transpose1d.default),
    "aten.conv_transpose2d.input": _transposed(2, _aten.conv_transpose2d.input),
    "aten.conv_transpose3d.input": _transposed(3, _aten.conv_transpose3d.input),
    "aten.gelu": [
        Own(made.gelu, applies=made.with_tanh, what="gelu with tanh", probe=_TANH),
    ],
    "aten.grid_sampler": [
        Own(
            sampling.grid_sampler,
            applies=sampling.of_images,
            what="samples from outside of an image",
            probe=_OUTSIDE,
        )
    ],
    "aten.histc": [Own(made.histc, applies=made.bounded)],
    "aten.index.Tensor": [
        Own(made.index_masked, applies=made.masks, what="masks"),
        Own(made.index_by_one, applies=made.in_step, what="several indices of any size"),
    ],
    "aten.masked_scatter": [
        Own(made.masked_scatter, applies=made.of_open_size, what="a source of any size")
    ],
    "aten.max_pool1d": _max_pooling(1, _aten.max_pool1d.default),
    "aten.max_pool2d": _max_pooling(
        2, _aten.max_pool2d.default, _cut(unread.max_pool2d, unread.read_by_max_pool)
    ),
    "aten.max_pool3d": _max_pooling(3, _aten.max_pool3d.default),
    "aten.mul.Tensor": [
        Own(
            made.mul_complex,
            applies=made.scales_complex,
            what="complex numbers times a real one",
        )
    ],
    "aten.pad": [
        _PADDING,
        Own(
            made.pad_reflected,
            applies=made.reflects_far,
            what="reflection of more than one element",
            probe=_REFLECTED_FAR,
        ),
    ],
    "aten.scatter.src": _along(_aten.scatter.src),
    "aten.scatter.value": _along(_aten.scatter.value),
    "aten.scatter_add": _along(_aten.scatter_add.default),
    "aten.scatter_reduce.two": _along(_aten.scatter_reduce.two),
    "aten.select_scatter": [
        Own(
            made.select_scatter,
            applies=made.from_the_back,
            what="an index from the back",
            probe=_FROM_THE_BACK,
        )
    ],
    "aten.split_with_sizes": [
        Own(made.split_open, applies=made.into_open, what="parts of any size")
    ],
    "aten.topk": [
        Own(made.topk_sorted, applies=made.in_any_order, what="an order that is left open")
    ],
    "transformers.grouped_mm_fallback": [
        Own(made.grouped_mm, "each expert computes all rows"),
    ],
}
#: By the name of the operation; the first that applies to a call is for it.
OWN: Mapping[str, Sequence[Own]] = {
    name: [*_OTHERS.get(name, ()), *([_OF_BYTES[name]] if name in _OF_BYTES else [])]
    for name in {**_OTHERS, **_OF_BYTES}
}
