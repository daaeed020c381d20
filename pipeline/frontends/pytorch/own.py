"""The decompositions of iree-pilot's own: for which calls each is, and the probe that asks for it.

Runs in the tracing child; imports torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from iree_pilot.pipeline.frontends.pytorch import decompositions as made


class NumbersProbe(NamedTuple):
    """The smallest program of a call that some release of IREE computes wrong, or fails to compile
    behind phase `input`.

    program: MLIR with a function `main`. inputs, expected: of it, as iree-run-module takes them.
    """

    program: str
    inputs: tuple[str, ...]
    expected: tuple[str, ...]


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
    probe: NumbersProbe | None = None


_VALUES = "!torch.vtensor<[2],f32>"
_CROPPING = NumbersProbe(
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

_PADDING = Own(made.pad, applies=made.crops, what="negative padding", probe=_CROPPING)

#: By the name of the operation; the first that applies to a call is for it.
OWN: Mapping[str, Sequence[Own]] = {
    "aten._is_all_true": [Own(made.is_all_true)],
    "aten._is_any_true": [Own(made.is_any_true)],
    "aten.constant_pad_nd": [_PADDING._replace(decompose=made.constant_pad_nd)],
    "aten.histc": [Own(made.histc, applies=made.bounded)],
    "aten.mul.Tensor": [
        Own(
            made.mul_complex,
            applies=made.scales_complex,
            what="complex numbers times a real one",
        )
    ],
    "aten.pad": [
        _PADDING,
    ],
    "aten.select_scatter": [
        Own(
            made.select_scatter,
            applies=made.from_the_back,
            what="an index from the back",
            probe=_FROM_THE_BACK,
        )
    ],
    "aten.topk": [
        Own(made.topk_sorted, applies=made.in_any_order, what="an order that is left open")
    ],
    "transformers.grouped_mm_fallback": [
        Own(made.grouped_mm, "each expert computes all rows"),
    ],
}
