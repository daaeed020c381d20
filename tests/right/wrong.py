"""Models of 50 to 250 operations to be made wrong: right ones to plant a fault in, and those with
what the compiler is known to get wrong in the middle. Some draw random numbers beside.

Imports torch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from right import floats
from right.steps import Chain, Draw, Right, Step, Tensor, chain, tame

#: Programs from this number on hold a known fault, the faults taking turns.
KNOWN = 1000
#: How many of the programs draw random numbers.
_NOISY = 0.3


class Noisy(Chain):
    """A chain with an output more, which is drawn about its result."""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        found = super().forward(x)
        return (*found, found[0] + torch.randn_like(found[0]))


def _pad(draw: Draw, x: Tensor) -> Step:
    return Step("shift by a negative pad", lambda _, x: x + F.pad(x, (0, 0, 1, -1)))


def _sort(draw: Draw, x: Tensor) -> Step:
    def call(_: Any, x: Tensor) -> Tensor:
        codes = torch.clamp(x * 60 + 128, 1, 254).to(torch.uint8)
        return x + torch.sort(codes, -1).values.to(x.dtype) / 128

    return Step("sort of uint8", call)


def _clamp(draw: Draw, x: Tensor) -> Step:
    def call(_: Any, x: Tensor) -> Tensor:
        holes = torch.where(x > 0.5, torch.nan, x)
        return x + torch.nan_to_num(torch.clamp(holes, -1.0, 1.0), nan=0.25)

    return Step("clamp of NaN", call)


def _floor_divide(draw: Draw, x: Tensor) -> Step:
    stamps = 1_764_339_542_123_456_789 + draw.whole(-(10**15), 10**15, x.shape[-1])

    def call(m: Any, x: Tensor) -> Tensor:
        place = torch.floor_divide(m.stamps, 7) % 97
        return x + place.to(x.dtype) / 97

    return Step("floor_divide of int64", call, stamps=stamps)


def _gelu(draw: Draw, x: Tensor) -> Step:
    return Step("gelu, tanh", lambda _, x: x + F.gelu(x, approximate="tanh"))


def _subnormals(draw: Draw, x: Tensor) -> Step:
    """What lies just under the smallest normal number of the type."""

    def call(_: Any, x: Tensor) -> Tensor:
        small = torch.sigmoid(x) * 2**-6
        return x + small.to(torch.float8_e4m3fn).to(x.dtype) * 2**6

    return Step("f8 subnormals", call)


def _segments(draw: Draw, x: Tensor) -> Step:
    rows = x.shape[1]
    ends = torch.linspace(0, rows, 5).to(torch.int64)

    def call(m: Any, x: Tensor) -> Tensor:
        place = torch.arange(rows)
        group = (place[:, None] >= m.ends[None, 1:]).sum(1)
        mask = torch.where(group[:, None] == group[None], 0.0, -1e9)
        return x + F.softmax(x @ x.transpose(1, 2) / x.shape[-1] + mask, -1) @ x

    return Step("segment mask", call, ends=ends)


def _strided(draw: Draw, x: Tensor) -> Step:
    layer = nn.Conv1d(x.shape[1], x.shape[1], 1, stride=2, groups=x.shape[1], bias=False)

    def call(m: Any, x: Tensor) -> Tensor:
        wide = x + 1
        return torch.cat([wide, m.layer(wide)], -1)

    return Step("strided depthwise convolution", call, layer=layer)


#: (the step, the operations of which one has to be in what is isolated).
FAULTS: tuple[tuple[Callable[[Draw, Tensor], Step], tuple[str, ...]], ...] = (
    (_pad, ("torch.aten.pad", "torch.aten.constant_pad_nd")),
    (_sort, ("torch.aten.sort",)),
    (_clamp, ("torch.aten.clamp",)),
    (_floor_divide, ("torch.aten.floor_divide", "torch.aten.div.Tensor_mode")),
    (_gelu, ("torch.aten.gelu",)),
    (_subnormals, ("torch.prims.convert_element_type",)),
    (_segments, ("torch.aten.eq.Tensor",)),
    (_strided, ("torch.aten.convolution",)),
)


def expected(number: int) -> tuple[str, ...]:
    """The operations of the known fault of a program; nothing where one is to be planted."""
    return FAULTS[(number - KNOWN) % len(FAULTS)][1] if number >= KNOWN else ()


def program(draw: Draw, number: int) -> Right:
    """Program `number`: a chain of 6 to 17 steps on [batch, length, width]."""
    x = draw.normal(2, draw.one((8, 16, 17, 64)), draw.one((8, 16, 32)))
    makers, dtype = floats.OF_SEQUENCES, draw.one((torch.float32,) * 3 + (torch.float16,))
    if number >= KNOWN:
        dtype = torch.float32
    x = x.to(dtype)

    def longer(start: Tensor, most: int) -> Chain:
        length = draw.one(range(3, most))
        return chain(draw, start, makers, length, _tame, lambda step: step.to(dtype))

    before = longer(x, 9)
    between: list[Step] = []
    middle = before(x)[0]
    if number >= KNOWN:
        between = [FAULTS[(number - KNOWN) % len(FAULTS)][0](draw, middle)]
        between[0].eval().requires_grad_(False)
        middle = between[0](middle)
    after = longer(middle, 9)
    steps = [*before.steps, *between, *after.steps]
    kind = Noisy if draw.chance(_NOISY) else Chain
    return Right(kind(steps, [*before.told]), (x,))


def _tame(x: Tensor) -> bool:
    """Three dimensions that what comes after can use, neither few nor many elements."""
    return x.dim() == 3 and x.shape[1] > 3 and x.shape[2] > 3 and x.numel() < 8000 and tame(x)
