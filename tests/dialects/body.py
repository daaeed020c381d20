"""What random programs of every dialect are written with: values, the lines of one function."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

#: A size, or None where it is dynamic.
Shape = tuple[int | None, ...]

FLOATS = ("f32", "f32", "f16", "bf16", "f64")
INTEGERS = ("i32", "i32", "i8", "i16", "i64")
FP8 = ("f8E4M3FN", "f8E4M3FNUZ", "f8E5M2")
#: Sizes of dimensions: small, so that a program compiles in a second.
SIZES = (2, 3, 4, 5, 8, 16)


@dataclass(frozen=True)
class Value:
    """An SSA value: a tensor."""

    name: str
    dtype: str
    shape: Shape

    @property
    def floating(self) -> bool:
        return self.dtype[0] in "fb"

    @property
    def integer(self) -> bool:
        return self.dtype[0] == "i" and self.dtype != "i1"

    @property
    def static(self) -> bool:
        return None not in self.shape


@dataclass
class Body:
    """The lines of a function. words: how the dialect writes a type of (dtype, shape)."""

    draw: random.Random
    words: Callable[[str, Shape], str]
    lines: list[str] = field(default_factory=list)
    names: int = 0

    def type(self, value: Value) -> str:
        return self.words(value.dtype, value.shape)

    def line(self, text: str) -> str:
        """Adds `%n = text`; returns `%n`."""
        name = f"%v{self.names}"
        self.names += 1
        self.lines.append(f"  {name} = {text}")
        return name

    def value(self, text: str, dtype: str, shape: Shape) -> Value:
        return Value(self.line(text), dtype, shape)

    def one(self, choices: Sequence[str]) -> str:
        return self.draw.choice(choices)


#: One step: from a value to the next, None where the dialect has none for such a value.
Maker = Callable[[Body, Value], Value | None]


def builtin(dtype: str, shape: Shape) -> str:
    """`tensor<4x?xf32>`."""
    return f"tensor<{spelled(dtype, shape)}>"


def spelled(dtype: str, shape: Shape) -> str:
    """`4x?xf32`."""
    return "x".join([*("?" if size is None else str(size) for size in shape), dtype])


def torch_type(dtype: str, shape: Shape) -> str:
    """`!torch.vtensor<[4,?],f32>`."""
    sizes = ",".join("?" if size is None else str(size) for size in shape)
    return f"!torch.vtensor<[{sizes}],{signed(dtype)}>"


def signed(dtype: str) -> str:
    """The torch dialect's integers have a sign."""
    return f"s{dtype}" if dtype[0] == "i" and dtype != "i1" else dtype


def number(draw: random.Random, dtype: str) -> str:
    """A constant that every type of its kind holds."""
    if dtype == "i1":
        return draw.choice(("true", "false"))
    if dtype[0] == "i":
        return str(draw.randint(1, 3))
    return draw.choice(("0.5", "1.0", "1.5", "2.0", "-0.75"))


def steps(body: Body, value: Value, makers: Sequence[Maker], count: int) -> Value:
    """`count` steps from `value` on."""
    made = 0
    for _ in range(20 * count):
        following = body.draw.choice(makers)(body, value)
        if following is not None:
            value, made = following, made + 1
        if made == count:
            break
    return value
