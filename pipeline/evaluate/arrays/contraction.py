"""Bodies that multiply two operands and add up: a matrix product for each point of the rest."""

from __future__ import annotations

import itertools
import math
from typing import Protocol

import numpy as np

from iree_pilot.pipeline.evaluate.arrays import affine, scalars
from iree_pilot.pipeline.evaluate.arrays.affine import Map
from iree_pilot.pipeline.evaluate.machine import elements
from iree_pilot.pipeline.evaluate.machine.elements import Array, Unknown, is_float
from iree_pilot.pipeline.evaluate.machine.ir import Block, Operation
from iree_pilot.pipeline.evaluate.machine.machine import Machine

_PRODUCTS = {"arith.addf": "arith.mulf", "arith.addi": "arith.muli", "complex.add": "complex.mul"}
_EXTENSIONS = ("arith.extf", "arith.extsi", "arith.extui", "arith.sitofp", "arith.uitofp")
#: Whole numbers below are exact in float64.
_EXACT_BITS = 53
_MOST_STEPS = 1 << 14
#: Limits for sums in narrow floats: products up to which each step is rounded by itself,
#: roundings in larger ones, and the most steps that are rounded together.
_EACH_STEP, _ROUNDINGS, _MOST_TOGETHER = 1 << 26, 1 << 29, 16


class StructuredWork(Protocol):
    """A structured operation, as `structured` has it: its body, operands and dimensions."""

    machine: Machine
    op: Operation
    block: Block
    maps: list[Map]
    bounds: list[int]
    inputs: list[Array]
    outputs: list[Array]
    written: list[Array]
    parallel: list[int]
    reduced: list[int]

    def view(self, values: Array, index: int) -> Array:
        """View of operand `index` over the iteration space."""


def carry_out(work: StructuredWork, how: tuple[str, int]) -> bool:
    """Evaluates a contraction; False if the body is not one."""
    chosen = _factors(work.block, how)
    output = work.outputs[0]
    if chosen is None or output.dtype == np.bool_:
        return False
    windows = _windows(work)
    cuts = dict.fromkeys(windows, 1)
    kind = output.dtype
    if is_float(output) and output.dtype.itemsize < 4:
        kind = np.dtype(np.float32)
        block = _rounded(work, windows, cuts)
        if not block:
            return False
    counts = [-(-size // cuts.get(d, size)) if size else 0 for d, size in enumerate(work.bounds)]
    if math.prod(counts) > _MOST_STEPS:
        return False
    factors = [_converted(work, chain, argument) for argument, chain in chosen]
    element = work.machine.element(work.op.types[0])
    total = work.written[0].astype(kind)
    for at in itertools.product(*(range(counts[d]) for d in cuts)):
        box = [slice(None)] * len(work.bounds)
        for (d, length), i in zip(cuts.items(), at, strict=True):
            box[d] = slice(i * length, (i + 1) * length)
        first, second = (affine.part(f, tuple(box)).astype(kind, copy=False) for f in factors)
        work.machine.spend(output.size)
        product = _product(first, second, work)
        total += product
        if kind != output.dtype:
            total = total.astype(output.dtype).astype(kind)
    work.written[0][...] = elements.fit(total.astype(output.dtype), element)
    return True


def _rounded(work: StructuredWork, windows: list[int], cuts: dict[int, int]) -> int:
    """Number of steps of a sum that are rounded to its type of 16 bits or fewer together; 0 if each
    is rounded by itself.

    Otherwise a large product would take minutes. Rounding errors of so few steps hardly add up;
    the dimension that is cut for this is added to `cuts`.
    """
    plain = [d for d in work.reduced if d not in windows]
    total = math.prod(work.bounds)
    if not plain or total <= _EACH_STEP:
        return 0
    longest = max(plain, key=lambda d: work.bounds[d])
    rest = math.prod(work.bounds[d] for d in plain if d != longest)
    block = -(-total // _ROUNDINGS)
    if rest * block > _MOST_TOGETHER:
        raise Unknown(f"too much to evaluate: {total} products that are summed up in narrow floats")
    cuts[longest] = block
    return block


def _factors(block: Block, how: tuple[str, int]) -> list[tuple[int, list[Operation]]] | None:
    """The two arguments that are multiplied, each with the conversions that it goes through."""
    name, value = how
    makers = {v: op for op in block.ops for v in op.results}
    product = makers.get(value)
    if product is None or product.name != _PRODUCTS.get(name):
        return None
    found = []
    for operand in product.operands:
        chain: list[Operation] = []
        while operand in makers and makers[operand].name in _EXTENSIONS:
            chain.insert(0, makers[operand])
            operand = makers[operand].operands[0]
        if operand not in block.arguments[:-1]:
            return None
        found.append((block.arguments.index(operand), chain))
    counted = 2 + sum(len(chain) for _, chain in found) + 1
    return found if len(block.ops) == counted or len({a for a, _ in found}) == 1 else None


def _converted(work: StructuredWork, chain: list[Operation], argument: int) -> Array:
    values = work.inputs[argument]
    machine = work.machine
    for op in chain:
        source, result = machine.element(op.taken[0]), machine.element(op.types[0])
        to = machine.dtype(result)
        values = scalars.cast(op.name, values, source, result, to, machine.undefined)
    return work.view(values, argument)


def _windows(work: StructuredWork) -> list[int]:
    """Reduced dimensions that only shift where an operand is read: those of a convolution."""
    mixed = {
        d
        for one in work.maps
        for e in one.results
        if e.dim is None and e.linear is not None
        for d, factor in enumerate(e.linear[0])
        if factor
    }
    return [d for d in work.reduced if d in mixed]


def _product(a: Array, b: Array, work: StructuredWork) -> Array:
    """The sum over the reduced dimensions of a * b, with axes of size 1 for them."""
    rank = len(work.bounds)
    for d in work.reduced:  # what only one of them has is summed up before
        if a.shape[d] != b.shape[d]:
            if a.shape[d] == 1:
                b = b.sum(d, keepdims=True, dtype=b.dtype)
            else:
                a = a.sum(d, keepdims=True, dtype=a.dtype)
    inner = [d for d in work.reduced if a.shape[d] > 1]
    batch = [d for d in work.parallel if a.shape[d] > 1 and b.shape[d] > 1]
    left = [d for d in work.parallel if a.shape[d] > 1 and b.shape[d] == 1]
    right = [d for d in work.parallel if a.shape[d] == 1 and b.shape[d] > 1]
    rest = [d for d in range(rank) if d not in (*inner, *batch, *left, *right)]

    def size(values: Array, dims: list[int]) -> int:
        return math.prod(values.shape[d] for d in dims)

    first = a.transpose([*batch, *left, *inner, *right, *rest])
    second = b.transpose([*batch, *inner, *right, *left, *rest])
    shape = [*(a.shape[d] for d in (*batch, *left)), *(b.shape[d] for d in right)]
    first = first.reshape(size(a, batch), size(a, left), size(a, inner))
    second = second.reshape(size(b, batch), size(b, inner), size(b, right))
    made = multiplied(first, second)
    made = made.reshape([*shape, *(1 for _ in (*inner, *rest))])
    order = [*batch, *left, *right, *inner, *rest]
    return made.transpose([order.index(d) for d in range(rank)])


def multiplied(a: Array, b: Array) -> Array:
    """A batch of matrix products; of integers through floats where those are exact."""
    if a.dtype.kind not in "iu":
        return np.matmul(a, b)
    largest = [max(abs(int(v.max(initial=0))), abs(int(v.min(initial=0)))) for v in (a, b)]
    if math.prod(largest) * a.shape[-1] < 1 << _EXACT_BITS:
        made = np.matmul(a.astype(np.float64), b.astype(np.float64))
        return made.astype(np.int64).astype(a.dtype)
    return np.matmul(a, b)
