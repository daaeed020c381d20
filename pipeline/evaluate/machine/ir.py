"""A function of a module as plain data: its operations, their values by number.

Read from the compiler's bindings; only attributes are still theirs.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

#: Names of operations that end a block and hand its values on.
RETURNS = (
    "util.return",
    "func.return",
    "stablehlo.return",
    "tensor.yield",
    "linalg.yield",
    "tm_tensor.yield",
    "iree_linalg_ext.yield",
    "scf.yield",
    "tosa.yield",
    "flow.return",
)


class Type(msgspec.Struct, frozen=True):
    """A value's type. shape: of a tensor (None: dynamic); None for a scalar and all else.

    element: the element type's name, of a scalar its own; "" for what is neither.
    """

    shape: tuple[int | None, ...] | None
    element: str
    text: str

    @property
    def is_tensor(self) -> bool:
        return self.shape is not None


class Operation:
    """One operation: the numbers of its operands and results, its regions.

    raw: the bindings' operation.
    """

    __slots__ = ("name", "operands", "raw", "regions", "results", "taken", "types")

    def __init__(
        self,
        raw: Any,
        operands: tuple[int, ...],
        taken: tuple[Type, ...],
        results: tuple[int, ...],
        types: tuple[Type, ...],
    ) -> None:
        self.raw = raw
        self.name: str = raw.name
        self.operands = operands
        self.taken = taken
        self.results = results
        self.types = types
        self.regions: tuple[tuple[Block, ...], ...] = ()

    @property
    def attributes(self) -> Any:
        return self.raw.attributes

    def integers(self, name: str) -> list[int]:
        """An attribute that is an array of integers, however it is spelled; [] without it."""
        if name not in self.attributes:
            return []
        held = self.attributes[name]
        return [int(one.value) if hasattr(one, "value") else int(one) for one in held]

    def integer(self, name: str, default: int | None = None) -> int:
        if name not in self.attributes and default is not None:
            return default
        return int(self.attributes[name].value)

    def flag(self, name: str) -> bool:
        """A boolean or unit attribute; False without it."""
        if name not in self.attributes:
            return False
        return bool(getattr(self.attributes[name], "value", True))

    def text(self, name: str) -> str:
        """An attribute as it is printed; "" without it."""
        return str(self.attributes[name]) if name in self.attributes else ""

    @property
    def block(self) -> Block:
        """The only block of its only region."""
        return self.regions[0][0]


class Block:
    """A block: its arguments, operations, and the values from outside that are used in it."""

    __slots__ = ("__dict__", "arguments", "ops", "types")

    def __init__(self, arguments: tuple[int, ...], types: tuple[Type, ...]) -> None:
        self.arguments = arguments
        self.types = types
        self.ops: list[Operation] = []

    @functools.cached_property
    def captured(self) -> frozenset[int]:
        inside = set(self.arguments)
        used: set[int] = set()
        for op in self.ops:
            used.update(op.operands)
            inside.update(op.results)
            for region in op.regions:
                for block in region:
                    used |= block.captured
        return frozenset(used - inside)

    @functools.cached_property
    def last_uses(self) -> list[list[int]]:
        """The values that are used last by each operation, or never."""
        found: dict[int, int] = {}
        for index, op in enumerate(self.ops):
            for value in (*op.results, *uses(op)):
                found[value] = index
        by_op: list[list[int]] = [[] for _ in self.ops]
        for value, index in found.items():
            by_op[index].append(value)
        return by_op


def uses(op: Operation) -> Iterator[int]:
    """The values that an operation takes, those of its regions among them."""
    yield from op.operands
    for region in op.regions:
        for block in region:
            yield from block.captured


class Reader:
    """Numbers the values of one function."""

    def __init__(self) -> None:
        self._numbers: dict[Any, int] = {}
        self._types: dict[Any, Type] = {}
        self._blocks: dict[Any, Block] = {}

    def region(self, region: Any) -> tuple[Block, ...]:
        raws = list(region.blocks)
        blocks = []
        for raw in raws:
            arguments = list(raw.arguments)
            blocks.append(
                Block(
                    tuple(self._number(a) for a in arguments),
                    tuple(self._type(a.type) for a in arguments),
                )
            )
        for raw, block in zip(raws, blocks, strict=True):
            block.ops = [self._op(op.operation) for op in raw.operations]
        if len(raws) > 1:
            for raw, block in zip(raws, blocks, strict=True):
                self._blocks[raw] = block
        return tuple(blocks)

    def successors(self, op: Operation) -> Sequence[Block]:
        """Successor blocks of a branch."""
        return [self._blocks[raw] for raw in op.raw.successors]

    def _op(self, raw: Any) -> Operation:
        operands, results = list(raw.operands), list(raw.results)
        made = Operation(
            raw,
            tuple(self._number(v) for v in operands),
            tuple(self._type(v.type) for v in operands),
            tuple(self._number(v) for v in results),
            tuple(self._type(v.type) for v in results),
        )
        made.regions = tuple(self.region(region) for region in raw.regions)
        return made

    def _number(self, value: Any) -> int:
        return self._numbers.setdefault(value, len(self._numbers))

    def _type(self, raw: Any) -> Type:
        known = self._types.get(raw)
        if known is None:
            known = self._types[raw] = read_type(raw)
        return known


def read_type(raw: Any) -> Type:
    """A type of the bindings."""
    from iree.compiler import ir

    text = str(raw)
    if isinstance(raw, ir.RankedTensorType | ir.VectorType):
        shape = tuple(
            None if raw.is_dynamic_dim(i) else int(raw.get_dim_size(i)) for i in range(raw.rank)
        )
        return Type(shape, str(raw.element_type), text)
    if text.startswith("!torch."):
        return _of_torch(text)
    if isinstance(raw, ir.IntegerType | ir.FloatType | ir.IndexType | ir.ComplexType):
        return Type(None, text, text)
    return Type(None, "", text)


def _of_torch(text: str) -> Type:
    from iree_pilot.pipeline.torch_dialect.walk import TENSOR

    match = TENSOR.fullmatch(text)
    if match:
        sizes = tuple(None if s == "?" else int(s) for s in match[1].split(",") if s)
        return Type(sizes, match[2], text)
    scalars = {"!torch.int": "i64", "!torch.float": "f64", "!torch.bool": "i1"}
    return Type(None, scalars.get(text, ""), text)
