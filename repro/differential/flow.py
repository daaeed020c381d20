"""A program's flow IR as plain data: its dispatches, what each rests on, where it comes from."""

from __future__ import annotations

import math
import re

import msgspec

from iree_pilot.pipeline.program.program import ELEMENT_TYPES

_TENSOR = re.compile(r"tensor<((?:(?:\d+|\?)x)*)([\w<>]+)>")

#: Element types whose values come back from a run with their shape.
KEEPS_SHAPE = ("f16", "f32", "f64", "i8", "i16", "i32", "i64", "i1")

MADE = "made.mlir"


class FlowValue(msgspec.Struct, frozen=True, kw_only=True):
    """A tensor that can be taken out of the program and given to it: its number in the body,
    element type and shape (None: a dynamic dimension).
    """

    number: int
    dtype: str
    shape: tuple[int | None, ...]

    @property
    def bytes(self) -> int:
        """Its size, with dynamic dimensions counted as one."""
        return ELEMENT_TYPES[self.dtype].bytes(math.prod(d or 1 for d in self.shape))


class FlowStep(msgspec.Struct, frozen=True, kw_only=True):
    """One dispatch (or an operation that holds some, such as a loop).

    index: its place in the body. name: of its executable's export, or of the operation. results:
    numbers of the values that it makes and that can be taken out; rests_on: those that it is given,
    directly or through operations that only move data. operations: what its code consists of.
    places: (file, line) that its operations come from. text: the file with its code, in the
    directory of the description.
    """

    index: int
    name: str
    results: tuple[int, ...]
    rests_on: tuple[int, ...]
    operations: tuple[str, ...] = ()
    places: tuple[tuple[str, int], ...] = ()
    text: str = ""


class FlowBody(msgspec.Struct, frozen=True, kw_only=True):
    """A function, or all initializers of globals, which are run before: its dispatches in order.

    name: as the program's caller knows it; position: among the module's. arguments: the tensors
    that it takes, by position. values: all that can be taken out; returned: what it
    returns, whatever makes that, and ends: the values of dispatches that it comes from.
    """

    name: str
    position: int
    initializer: bool
    arguments: tuple[FlowValue, ...]
    values: tuple[FlowValue, ...]
    returned: tuple[FlowValue, ...]
    ends: tuple[int, ...]
    steps: tuple[FlowStep, ...]


class Flow(msgspec.Struct, frozen=True, kw_only=True):
    """notes: what of the program cannot be seen dispatch by dispatch."""

    bodies: tuple[FlowBody, ...]
    notes: tuple[str, ...] = ()

    @property
    def dispatches(self) -> int:
        return sum(len(body.steps) for body in self.bodies)


class FlowCut(msgspec.Struct, frozen=True, kw_only=True):
    """A function to make of the body at a position: it returns the values of `groups`.

    fed: values that it takes in place of making them; but the values of a group are made for it.
    """

    name: str
    body: int
    groups: tuple[tuple[int, ...], ...]
    fed: tuple[int, ...] = ()


class Interface(msgspec.Struct, frozen=True, kw_only=True):
    """Inputs of a function that was made: the body's arguments by position, then fed values."""

    arguments: tuple[int, ...]
    fed: tuple[int, ...]


class Lifted(msgspec.Struct, frozen=True, kw_only=True):
    """Inputs of a dispatch that was made a program of its own: values of its body, in order."""

    operands: tuple[FlowValue, ...]


class FlowBatch(msgspec.Struct, frozen=True, kw_only=True):
    """A job on the flow IR in the file `mlir`: describe it, or make a module of `cuts`.

    alone: without what the only cut does not need. lift: (position of a body, index of a dispatch)
    to make a program of, as it was before it was a dispatch.
    """

    mlir: str
    cuts: tuple[FlowCut, ...] = ()
    alone: bool = False
    lift: tuple[int, int] | None = None


def parse_type(text: str, number: int) -> FlowValue | None:
    """The type of a value that can be taken out; None for encoded tensors, for tensors of indices,
    which no function returns, and for what is no tensor."""
    match = _TENSOR.fullmatch(text)
    if match is None or match[2] == "index" or match[2] not in ELEMENT_TYPES:
        return None
    sizes = tuple(None if d == "?" else int(d) for d in match[1].split("x") if d)
    return FlowValue(number=number, dtype=match[2], shape=sizes)
