"""What random programs are put together from: steps, and the choices of one program.

Imports torch.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

Tensor = torch.Tensor
#: 1, primes, numbers beside powers of two, and what a vector register holds.
SIZES = (1, 2, 3, 5, 7, 8, 13, 16, 17, 31, 32, 33)
_LARGEST_ELEMENTS = 16_384


class Step(nn.Module):
    """One step, `call(self, x)`, which holds `parts`: layers, and constants that are no weights."""

    def __init__(
        self, name: str, call: Callable[[Any, Tensor], Tensor], **parts: nn.Module | Tensor
    ) -> None:
        super().__init__()
        self.name = name
        self._call = call
        for key, part in parts.items():
            if isinstance(part, nn.Module):
                self.add_module(key, part)
            else:
                self.register_buffer(key, part)

    def forward(self, x: Tensor) -> Tensor:
        return self._call(self, x)

    def __repr__(self) -> str:
        return self.name


class Chain(nn.Module):
    """Steps one after the other, and those of their results that are given out as well."""

    def __init__(self, steps: Sequence[Step], told: Sequence[int]) -> None:
        super().__init__()
        self.steps = nn.ModuleList(steps)
        self.told = tuple(told)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """The last result and those told."""
        found = []
        for number, step in enumerate(self.steps):
            x = step(x)
            if number in self.told:
                found.append(x)
        return (x, *found)

    def __repr__(self) -> str:
        return " ; ".join(repr(step) for step in self.steps)


@dataclass(frozen=True)
class Right:
    """A program: its module, example inputs, and `torch.export`'s dynamic shapes of them."""

    module: Chain
    inputs: tuple[Tensor, ...]
    dynamic_shapes: Any = None


class Draw:
    """The choices of one program, all from its seed."""

    def __init__(self, seed: str) -> None:
        self.random = random.Random(seed)
        self.torch = torch.Generator().manual_seed(self.random.getrandbits(48))

    def size(self, most: int = SIZES[-1]) -> int:
        return self.random.choice([s for s in SIZES if s <= most])

    def one(self, choices: Sequence[Any]) -> Any:
        return self.random.choice(choices)

    def chance(self, probability: float) -> bool:
        return self.random.random() < probability

    def normal(self, *shape: int, scale: float = 1.0) -> Tensor:
        return torch.randn(shape, generator=self.torch) * scale

    def whole(self, low: int, high: int, *shape: int) -> Tensor:
        """int64 from low to high, exclusive."""
        return torch.randint(low, high, shape, generator=self.torch)

    def seed_torch(self) -> None:
        """Seeds what layers draw their weights from."""
        torch.manual_seed(self.random.getrandbits(48))


Maker = Callable[[Draw, Tensor], Step | None]


def chain(
    draw: Draw,
    x: Tensor,
    makers: Sequence[Maker],
    length: int,
    fits: Callable[[Tensor], bool],
    finish: Callable[[Step], Step] = lambda step: step,
) -> Chain:
    """`length` steps from `x` on, each made by one of `makers` for the value that is there.

    A step whose result does not fit (see `tame`) is drawn again. A maker gives None where it has
    nothing to do with such a value. finish: what becomes of a step before it is used.
    """
    steps: list[Step] = []
    told: list[int] = []
    while len(steps) < length:
        draw.seed_torch()
        made = draw.one(makers)(draw, x)
        if made is None:
            continue
        step = finish(made.eval().requires_grad_(False))
        try:
            result = step(x)
        except (RuntimeError, NotImplementedError):  # what this size or type does not have
            continue
        if 0 < result.numel() <= _LARGEST_ELEMENTS and fits(result):
            if steps and draw.chance(0.15):
                told.append(len(steps) - 1)
            steps.append(step)
            x = result
    return Chain(steps, told)


def tame(x: Tensor) -> bool:
    """Whether numbers are of the size that networks keep theirs at: nothing overflows or drowns."""
    if not bool(torch.isfinite(x).all()):
        return False
    wide = x.double()
    if x.numel() > 1 and wide.max() == wide.min():
        return False
    root = float(wide.square().mean().sqrt())
    return 0.05 < root < 50 and float(wide.abs().max()) < 1000
