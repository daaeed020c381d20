"""Random programs on int32, int64 and booleans, and 8-bit quantised linears.

Imports torch.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

from right.steps import Draw, Right, Step, Tensor, chain

_POINTWISE: dict[str, Callable[[Tensor], Tensor]] = {
    "x * 3 - 7": lambda x: x * 3 - 7,
    "abs": torch.abs,
    "neg": torch.neg,
    "sign": torch.sign,
    "x // 5": lambda x: torch.div(x, 5, rounding_mode="floor"),
    "trunc x / 5": lambda x: torch.div(x, 5, rounding_mode="trunc"),
    "x % 11": lambda x: torch.remainder(x, 11),
    "x & 29": lambda x: torch.bitwise_and(x, 29),
    "x | flipped": lambda x: torch.bitwise_or(x, x.flip(-1)),
    "x ^ flipped": lambda x: torch.bitwise_xor(x, x.flip(0)),
    "not x": torch.bitwise_not,
    "x >> 0 to 3": lambda x: torch.bitwise_right_shift(x, torch.remainder(x, 4)),
    "x << 0 to 3": lambda x: torch.bitwise_left_shift(x, torch.remainder(x, 4)),
    "clamp": lambda x: torch.clamp(x, -40, 60),
    "square": lambda x: x * x,
    "greater": lambda x: (x > 3).to(x.dtype),
    "even": lambda x: (x % 2 == 0).to(x.dtype),
    "within": lambda x: torch.logical_and(x > -20, x <= 30).to(x.dtype) + x,
    "where": lambda x: torch.where(x >= 0, x, x * -2 + 1),
    "to int8 and back": lambda x: torch.remainder(x, 100).to(torch.int8).to(x.dtype),
    "to int16 and back": lambda x: torch.clamp(x, -3000, 3000).to(torch.int16).to(x.dtype),
    "floor of half": lambda x: torch.floor(x.float() * 0.5).to(x.dtype),
    "maximum": lambda x: torch.maximum(x, x.flip(-1)),
    "minimum": lambda x: torch.minimum(x, x.flip(-1) + 3),
    "masked_fill": lambda x: x.masked_fill(x < -10, -1),
}


def _pointwise(draw: Draw, x: Tensor) -> Step:
    name = draw.one([*_POINTWISE])
    return Step(name, lambda _, x: _POINTWISE[name](x))


def _reduction(draw: Draw, x: Tensor) -> Step:
    axis = draw.one(range(x.dim()))
    name = draw.one(("sum", "amax", "amin", "any", "all", "argmax", "argmin"))

    def call(_: Step, x: Tensor) -> Tensor:
        if name in ("any", "all"):
            return getattr(x > 0, name)(axis, keepdim=True).to(x.dtype) + x
        return x - getattr(x, name)(axis, keepdim=True).to(x.dtype)

    return Step(f"x - {name} {axis}", call)


def _running(draw: Draw, x: Tensor) -> Step:
    axis = draw.one(range(x.dim()))
    return Step(f"cumsum {axis}", lambda _, x: torch.cumsum(x, axis).to(x.dtype))


def _order(draw: Draw, x: Tensor) -> Step:
    axis, down = draw.one(range(x.dim())), draw.chance(0.5)
    if draw.chance(0.3):
        many = max(1, x.shape[-1] // 2)
        return Step(f"topk {many}", lambda _, x: torch.topk(x, many, -1, largest=down).values)
    if draw.chance(0.3):
        # Without equal elements there is one order.
        def order(_: Step, x: Tensor) -> Tensor:
            told = x * x.shape[axis] + _places(x, axis)
            return torch.argsort(told, axis, descending=down).to(x.dtype)

        return Step(f"argsort {axis}", order)
    return Step(f"sort {axis}", lambda _, x: torch.sort(x, axis, descending=down).values)


def _places(x: Tensor, axis: int) -> Tensor:
    shape = [1] * x.dim()
    shape[axis] = x.shape[axis]
    return torch.arange(x.shape[axis], dtype=x.dtype).reshape(shape)


def _gather(draw: Draw, x: Tensor) -> Step:
    axis = draw.one(range(x.dim()))
    index = draw.whole(0, x.shape[axis], draw.size(17))
    if draw.chance(0.5):
        return Step(f"index_select {axis}", lambda m, x: x.index_select(axis, m.index), index=index)
    spread = draw.whole(0, x.shape[axis], *x.shape)
    return Step(f"gather {axis}", lambda m, x: torch.gather(x, axis, m.index), index=spread)


def _lookup(draw: Draw, x: Tensor) -> Step:
    table = draw.whole(-50, 50, 23).to(x.dtype)
    return Step("table[x % 23]", lambda m, x: m.table[torch.remainder(x, 23).long()], table=table)


def _one_hot(draw: Draw, x: Tensor) -> Step:
    return Step(
        "one_hot, summed",
        lambda _, x: F.one_hot(torch.remainder(x, 7).long(), 7).sum(-2).to(x.dtype),
    )


def _product(draw: Draw, x: Tensor) -> Step:
    other = draw.whole(-3, 4, x.shape[-1], draw.size(17)).to(x.dtype)
    return Step("matmul", lambda m, x: x @ m.other, other=other)


def _triangle(draw: Draw, x: Tensor) -> Step:
    def call(_: Step, x: Tensor) -> Tensor:
        rows, columns = torch.arange(x.shape[0]), torch.arange(x.shape[1])
        return torch.where(rows[:, None] >= columns[None], x, -1)

    return Step("triangle", call)


def _layout(draw: Draw, x: Tensor) -> Step:
    last = x.shape[-1]
    calls: dict[str, Callable[[Tensor], Tensor]] = {
        "flip": lambda x: x.flip(0),
        "roll": lambda x: torch.cat([x[..., last // 2 :], x[..., : last // 2]], -1),
        "cat": lambda x: torch.cat([x, x + 1], -1),
        "pad": lambda x: F.pad(x, (2, 1), value=-3),
        "transpose": lambda x: x.transpose(0, 1),
        "stride": lambda x: x[:, ::2],
    }
    name = draw.one([*calls])
    return Step(name, lambda _, x: calls[name](x))


def _quantized(draw: Draw, x: Tensor) -> Step:
    """A linear as 8-bit hardware has it: int8 operands, a sum in int32, a shift back."""
    weight = draw.whole(-127, 128, x.shape[-1], draw.size(17)).to(torch.int8)

    def call(m: Step, x: Tensor) -> Tensor:
        codes = torch.clamp(x, -128, 127).to(torch.int8)
        total = codes.to(torch.int32) @ m.weight.to(torch.int32)
        return torch.div(total, 128, rounding_mode="floor").to(x.dtype)

    return Step("int8 linear", call, weight=weight)


_MAKERS = (
    _pointwise,
    _pointwise,
    _pointwise,
    _reduction,
    _running,
    _order,
    _order,
    _gather,
    _lookup,
    _one_hot,
    _product,
    _triangle,
    _layout,
    _quantized,
)


def program(draw: Draw) -> Right:
    """A program of 2 to 8 steps on [rows, columns] of int32 or int64."""
    dtype = draw.one((torch.int32, torch.int64))
    x = draw.whole(-100, 100, draw.size(), draw.size()).to(dtype)

    def fits(x: Tensor) -> bool:
        # Beyond 100,000 the next product could leave int32; all equal, nothing could be wrong.
        return bool((x.abs() < 100_000).all()) and (x.numel() == 1 or bool((x != x[0, 0]).any()))

    module = chain(draw, x, _MAKERS, draw.one(range(2, 9)), fits)
    dynamic = x.shape[0] > 1 and draw.chance(0.25)
    return Right(module, (x,), ({0: torch.export.Dim.AUTO},) if dynamic else None)
