"""Structured operations: `linalg.generic` and all of linalg that has a body and indexing maps.

The iteration space is cut into boxes; in each of them the body is carried out once, on arrays with
an axis for each dimension. Where every result is reduced by an operation that numpy has, a box
holds many steps of the reduction, and a plain contraction is a matrix product; else one step.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from iree_pilot.pipeline.evaluate.arrays import affine, contraction
from iree_pilot.pipeline.evaluate.arrays.affine import Map
from iree_pilot.pipeline.evaluate.machine import elements
from iree_pilot.pipeline.evaluate.machine.elements import Array, Unknown, is_float
from iree_pilot.pipeline.evaluate.machine.ir import Block, Operation
from iree_pilot.pipeline.evaluate.machine.machine import Env, Handler, Machine, operands

#: Elements of a box: what is made of it for each operation of the body.
_BOX = 1 << 20
#: Boxes of one operation.
_MOST_BOXES = 1 << 18

#: Associative operations that a body may combine its result with, as numpy's.
REDUCTIONS: dict[str, Any] = {
    "arith.addf": np.add,
    "arith.addi": np.add,
    "arith.mulf": np.multiply,
    "arith.muli": np.multiply,
    "arith.maximumf": np.maximum,
    "arith.minimumf": np.minimum,
    "arith.maxnumf": np.fmax,
    "arith.minnumf": np.fmin,
    "arith.maxsi": np.maximum,
    "arith.minsi": np.minimum,
    "arith.andi": np.bitwise_and,
    "arith.ori": np.bitwise_or,
    "arith.xori": np.bitwise_xor,
    "complex.add": np.add,
}
_ROUNDS = ("arith.addf", "arith.mulf")


class Structured:
    """One operation to carry out: its operands, its iteration space, and what its body does."""

    def __init__(self, machine: Machine, op: Operation, known: Env) -> None:
        self.machine = machine
        self.op = op
        self.known = known
        self.block: Block = op.block
        values = operands(op, known)
        first = len(values) - len(op.results)
        self.maps = maps(op)
        self.bounds = affine.sizes(self.maps, [v.shape for v in values])
        self.inputs = values[:first]
        self.outputs = [v.copy() for v in values[first:]]
        machine.spend(sum(v.size for v in self.outputs))
        self._check_blank(first)
        kinds = iterators(op, self.maps[first:])
        self.reduced = [d for d, kind in enumerate(kinds) if kind == "reduction"]
        self.parallel = [d for d in range(len(kinds)) if d not in self.reduced]
        self._points = affine.mesh(self.bounds)
        self._views = [self.view(v, i) for i, v in enumerate(self.inputs)]
        self.written = [
            affine.view(v, m, self.bounds, writeable=True)
            for v, m in zip(self.outputs, self.maps[first:], strict=True)
        ]

    def view(self, values: Array, index: int) -> Array:
        """View of operand `index` over the iteration space."""
        return affine.view(values, self.maps[index], self.bounds)

    def run(self) -> list[Array]:
        if 0 not in self.bounds:
            if self.reduced and (how := combined(self.block, len(self.outputs))):
                self._reduce(how)
            else:
                boxes: Iterable[Any] = self._boxes(dict.fromkeys(self.reduced, 1))
                if self.reduced and len(self.outputs) > 1:
                    # Which value a reduction meets first is left open: its order is.
                    self.machine.choices[self.op.name] = None
                    boxes = reversed([*boxes]) if self.machine.mode.backwards else boxes
                for box in boxes:
                    self._step(box)
        return self.outputs

    def _check_blank(self, first: int) -> None:
        """Checks that uninitialised tensors are overwritten and not read."""
        read = {v for op in self.block.ops for v in op.operands}
        arguments = self.block.arguments[first:]
        for argument, value in zip(arguments, self.op.operands[first:], strict=False):
            if value in self.machine.blank and argument in read:
                self.machine.undefined("what is in a tensor that nothing was written to")

    def _boxes(self, most: dict[int, int]) -> Iterator[tuple[slice, ...]]:
        """Cuts of the iteration space in order. most: points of a dimension in one box."""
        lengths = [min(size, most.get(d, size)) for d, size in enumerate(self.bounds)]
        for d in [*self.parallel, *self.reduced]:
            while math.prod(lengths) > _BOX and lengths[d] > 1:
                lengths[d] = -(-lengths[d] // 2)
        counts = [-(-size // length) for size, length in zip(self.bounds, lengths, strict=True)]
        if math.prod(counts) > _MOST_BOXES:
            raise Unknown(f"too much to evaluate: {self.op.name} takes {math.prod(counts)} steps")
        for at in itertools.product(*map(range, counts)):
            self.machine.spend(*lengths)
            yield tuple(
                slice(i * length, min((i + 1) * length, size))
                for i, length, size in zip(at, lengths, self.bounds, strict=True)
            )

    def _carried_out(self, box: tuple[slice, ...], block: Block) -> list[Array]:
        arguments = [*self._views, *self.written]
        given = [affine.part(v, box) for v in arguments[: len(block.arguments)]]
        self.machine.indices.append([affine.part(p, box) for p in self._points])
        try:
            return self.machine.inside(block, self.known, given)
        finally:
            self.machine.indices.pop()

    def _step(self, box: tuple[slice, ...]) -> None:
        for written, made in zip(self.written, self._carried_out(box, self.block), strict=True):
            affine.part(written, box)[...] = made

    def _reduce(self, how: Sequence[tuple[str, int]]) -> None:
        """how: for each result the operation that combines, and what it combines with."""
        if len(how) == 1 and contraction.carry_out(self, how[0]):
            return
        body = _without_ends(self.block, [value for _, value in how])
        for box in self._boxes({}):
            points = [b.stop - b.start for b in box]
            made = self._carried_out(box, body)
            for kind, (name, _), written, value in zip(
                self.op.types, how, self.written, made, strict=True
            ):
                target = affine.part(written, box)
                whole = np.broadcast_to(value, points)
                element = self.machine.element(kind)
                target[...] = elements.fit(combine(name, target, whole, self.reduced), element)


def combine(name: str, start: Array, values: Array, axes: Sequence[int]) -> Array:
    """`values` reduced along axes, with `start`, which has size 1 there."""
    function = REDUCTIONS[name]
    if start.dtype == np.bool_ and name in ("arith.addi", "arith.muli"):
        function = np.bitwise_xor if name == "arith.addi" else np.bitwise_and
    if is_float(start) and start.dtype.itemsize < 4 and name in _ROUNDS:
        return _in_order(function, start, values, axes)
    reduced = function.reduce(values, axis=tuple(axes), dtype=values.dtype, keepdims=True)
    return function(start, reduced).astype(start.dtype)


def _in_order(function: Any, start: Array, values: Array, axes: Sequence[int]) -> Array:
    """One after the other: each step rounds to the type of 16 bits or fewer, as is written."""
    rows = np.moveaxis(values, axes, range(len(axes)))
    rows = rows.reshape(-1, *rows.shape[len(axes) :])
    total = np.moveaxis(start, axes, range(len(axes))).reshape(rows.shape[1:])
    for row in rows:
        total = function(total, row).astype(start.dtype)
    return total.reshape(start.shape)


def combined(block: Block, outputs: int) -> list[tuple[str, int]] | None:
    """(combining operation, combined value) of each result of a body, if all combine a value with
    the previous result and the values do not depend on that."""
    last = block.ops[-1]
    first = len(block.arguments) - outputs
    makers = {value: op for op in block.ops for value in op.results}
    count: dict[int, int] = {}
    for one in block.ops:
        for value in one.operands:
            count[value] = count.get(value, 0) + 1
    found: list[tuple[str, int]] = []
    for value, there in zip(last.operands, block.arguments[first:], strict=True):
        op = makers.get(value)
        if op is None or op.name not in REDUCTIONS or there not in op.operands:
            return None
        if op.types[0].element == "i1" and op.name in ("arith.maxsi", "arith.minsi"):
            return None  # true is the smaller one
        if count.get(there) != 1 or count[value] != 1 or any(o.regions for o in block.ops):
            return None
        (other,) = [v for v in op.operands if v != there] or [there]
        found.append((op.name, other))
    return found


def _without_ends(block: Block, values: Sequence[int]) -> Block:
    """The body without the operations that combine: it hands on what would be combined."""
    kept = Block(block.arguments, block.types)
    dropped = set(block.ops[-1].operands)
    kept.ops = [op for op in block.ops[:-1] if not dropped & set(op.results)]
    last = block.ops[-1]
    ending = Operation(last.raw, tuple(values), last.taken, (), ())
    kept.ops.append(ending)
    return kept


def maps(op: Operation) -> list[Map]:
    """The indexing maps of an operation. Raises Unknown."""
    from iree.compiler import ir
    from iree.compiler.dialects import linalg

    if "indexing_maps" in op.attributes:
        raw = list(op.attributes["indexing_maps"])
    else:
        raw = list(linalg.get_indexing_maps(op.raw) or ())
    if not raw:
        raise Unknown(f"{op.name} names no indexing maps")
    return [
        affine.read(ir.AffineMapAttr(one).value if not isinstance(one, ir.AffineMap) else one)
        for one in raw
    ]


def iterators(op: Operation, outputs: Sequence[Map]) -> list[str]:
    """`parallel` or `reduction` for each dimension."""
    if "iterator_types" in op.attributes:
        return [
            "parallel" if "parallel" in str(kind) else "reduction"
            for kind in op.attributes["iterator_types"]
        ]
    written = set.union(*(m.dims for m in outputs))
    return ["parallel" if d in written else "reduction" for d in range(outputs[0].count)]


def _generic(machine: Machine, op: Operation, known: Env) -> list[Array]:
    return Structured(machine, op, known).run()


def _index(machine: Machine, op: Operation, known: Env) -> list[Array]:
    return [machine.indices[-1][op.integer("dim")]]


def _softmax(machine: Machine, op: Operation, known: Env) -> list[Array]:
    """Softmax as linalg defines it: minus the maximum, in the type of the operand."""
    values = operands(op, known)[0]
    axis = op.integer("dimension")
    kind = values.dtype
    powers = np.exp((values - values.max(axis, keepdims=True)).astype(kind)).astype(kind)
    return [(powers / powers.sum(axis, keepdims=True)).astype(kind)]


def _pack(machine: Machine, op: Operation, known: Env) -> list[Array]:
    source, outer, inner, tiles = _tiling(machine, op, known)
    padding = [-size % tiles.get(d, 1) for d, size in enumerate(source.shape)]
    if any(padding):
        segments = op.integers("operandSegmentSizes")
        if len(segments) > 2 and not segments[2]:
            machine.undefined("what tensor.pack pads with")
            filling: Any = np.zeros((), source.dtype)
        else:
            filling = known[op.operands[2]]
        whole = [size + more for size, more in zip(source.shape, padding, strict=True)]
        filled = np.full(whole, filling, source.dtype)
        filled[tuple(slice(size) for size in source.shape)] = source
        source = filled
    split: list[int] = []
    place, within = {}, {}
    for d, size in enumerate(source.shape):
        place[d] = len(split)
        split.append(size // tiles.get(d, 1))
        if d in tiles:
            within[d] = len(split)
            split.append(tiles[d])
    order = [place[d] for d in outer] + [within[d] for d in inner]
    return [source.reshape(split).transpose(order)]


def _unpack(machine: Machine, op: Operation, known: Env) -> list[Array]:
    packed, outer, inner, tiles = _tiling(machine, op, known)
    target = known[op.operands[1]]
    order = []
    for d in range(len(outer)):
        order.append(outer.index(d))
        if d in tiles:
            order.append(len(outer) + inner.index(d))
    turned = packed.transpose(order)
    sizes = [packed.shape[outer.index(d)] * tiles.get(d, 1) for d in range(len(outer))]
    whole = turned.reshape(sizes)
    return [whole[tuple(slice(size) for size in target.shape)]]


def _tiling(
    machine: Machine, op: Operation, known: Env
) -> tuple[Array, list[int], list[int], dict[int, int]]:
    """(packed array, order of the outer dimensions, of the tiled ones, their tiles)."""
    source = operands(op, known)[0]
    inner = op.integers("inner_dims_pos")
    packs = op.name.endswith(".pack")
    made = known[op.operands[1]].shape if packs else source.shape
    rank = len(made) - len(inner)
    outer = op.integers("outer_dims_perm") or list(range(rank))
    return source, outer, inner, dict(zip(inner, made[rank:], strict=True))


OPERATIONS: dict[str, Handler] = {
    "linalg.*": _generic,
    "linalg.index": _index,
    "linalg.softmax": _softmax,
    "linalg.pack": _pack,
    "linalg.unpack": _unpack,
    "tensor.pack": _pack,
    "tensor.unpack": _unpack,
}
#: Operations that check by themselves what they read of their destination.
OVERWRITING = frozenset(
    {"linalg.pack", "linalg.unpack", "tensor.pack", "tensor.unpack", "linalg.softmax"}
)
