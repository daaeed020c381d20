"""StableHLO: products, convolutions, reductions, gather, scatter and sort."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from iree_pilot.pipeline.evaluate.arrays import windows
from iree_pilot.pipeline.evaluate.arrays.contraction import multiplied
from iree_pilot.pipeline.evaluate.dialects import linalg_ext, structured
from iree_pilot.pipeline.evaluate.machine.elements import Array, Unknown
from iree_pilot.pipeline.evaluate.machine.ir import Block, Operation
from iree_pilot.pipeline.evaluate.machine.machine import Env, Handler, Machine, operands

#: Bodies of one operation, as `structured` reduces them: (of floats and complex, of integers).
_BODIES = {
    "stablehlo.add": ("arith.addf", "arith.addi"),
    "stablehlo.multiply": ("arith.mulf", "arith.muli"),
    "stablehlo.maximum": ("arith.maximumf", "arith.maxsi"),
    "stablehlo.minimum": ("arith.minimumf", "arith.minsi"),
}
_ORDER = re.compile(r"\[([^\]]*)\]x\[([^\]]*)\]->\[([^\]]*)\]")


def _listed(text: str, name: str) -> list[int]:
    """A list of numbers in an attribute of StableHLO's."""
    match = re.search(rf"\b{name} = \[([^\]]*)\]", text)
    return [int(n) for n in match[1].split(",") if n.strip()] if match else []


def _number(text: str, name: str) -> int:
    match = re.search(rf"\b{name} = (\d+)", text)
    return int(match[1]) if match else 0


def _computed_in(machine: Machine, op: Operation, *values: Array) -> tuple[Any, list[Array]]:
    """(numpy's type that a product is computed in, the operands in it): narrow floats in f32."""
    element = machine.element(op.types[0])
    kind = machine.dtype(element)
    if element.family == "float" and kind.itemsize < 4:
        kind = np.dtype(np.float32)
    return kind, [v.astype(kind) for v in values]


def _dot_general(machine: Machine, op: Operation, known: Env) -> list[Array]:
    text = op.text("dot_dimension_numbers")
    names = (
        [_listed(text, f"{side}_{what}_dimensions") for side in ("lhs", "rhs")]
        for what in ("batching", "contracting")
    )
    batches, inners = names
    if op.name == "stablehlo.dot":
        rank = len(op.taken[0].shape or ())
        batches, inners = [[], []], [[rank - 1], [0]]
    _, (a, b) = _computed_in(machine, op, *operands(op, known))
    free = [
        [d for d in range(v.ndim) if d not in batch and d not in inner]
        for v, batch, inner in zip((a, b), batches, inners, strict=True)
    ]
    first = a.transpose([*batches[0], *free[0], *inners[0]])
    second = b.transpose([*batches[1], *inners[1], *free[1]])
    batch = [a.shape[d] for d in batches[0]]
    rows, columns = [a.shape[d] for d in free[0]], [b.shape[d] for d in free[1]]
    inner = math.prod(a.shape[d] for d in inners[0])
    machine.spend(*batch, *rows, *columns)
    made = multiplied(
        first.reshape(math.prod(batch), math.prod(rows), inner),
        second.reshape(math.prod(batch), inner, math.prod(columns)),
    )
    return [machine.finished(op, made.reshape([*batch, *rows, *columns]))]


def _convolution(machine: Machine, op: Operation, known: Env) -> list[Array]:
    match = _ORDER.search(op.text("dimension_numbers"))
    if match is None or op.integer("batch_group_count", 1) != 1:
        raise Unknown("a stablehlo.convolution with groups of batches is not evaluated")
    orders = [[part.strip() for part in group.split(",")] for group in match.groups()]
    spatial = [str(d) for d in range(len(orders[0]) - 2)]
    kind, (value, kernel) = _computed_in(machine, op, *operands(op, known))
    value = value.transpose([orders[0].index(n) for n in ("b", *spatial, "f")])
    kernel = kernel.transpose([orders[1].index(n) for n in (*spatial, "i", "o")])
    flipped = "window_reversal" in op.attributes and list(op.attributes["window_reversal"])
    if flipped:
        kernel = np.flip(kernel, tuple(d for d, one in enumerate(flipped) if one))
    padding = []
    if "padding" in op.attributes:
        padding = np.array(op.attributes["padding"]).reshape(-1, 2).tolist()
    window = windows.plain(
        len(spatial),
        sizes=kernel.shape[:-2],
        strides=op.integers("window_strides"),
        padding=padding,
        dilation=op.integers("rhs_dilation"),
        spread=op.integers("lhs_dilation"),
    )
    made = windows.convolve(
        machine, value, kernel, window, op.integer("feature_group_count", 1), kind
    )
    order = ["b", *spatial, "f"]
    return [machine.finished(op, made.transpose([order.index(n) for n in orders[2]]))]


def _simple(block: Block, values: Sequence[Array]) -> str:
    """The operation of a body that is nothing else, as `structured.REDUCTIONS` names it."""
    if len(block.ops) != 2 or block.ops[0].name not in _BODIES or len(values) != 1:
        return ""
    if set(block.ops[0].operands) != set(block.arguments) or values[0].dtype == np.bool_:
        return ""
    return _BODIES[block.ops[0].name][values[0].dtype.kind in "iu"]


def _reduce(machine: Machine, op: Operation, known: Env) -> list[Array]:
    given = operands(op, known)
    count = len(given) // 2
    values, starts = given[:count], given[count:]
    axes = op.integers("dimensions")
    kept = [size for d, size in enumerate(values[0].shape) if d not in axes]
    name = _simple(op.block, values)
    if name:
        ones = [1 if d in axes else size for d, size in enumerate(values[0].shape)]
        start = np.full(ones, starts[0], values[0].dtype)
        if 0 in values[0].shape:
            return [start.reshape(kept)]
        return [structured.combine(name, start, values[0], axes).reshape(kept)]
    rows = [np.moveaxis(v, axes, range(len(axes))).reshape(-1, *kept) for v in values]
    if count > 1:
        machine.choices[op.name] = None
        rows = [v[::-1] for v in rows] if machine.mode.backwards else rows
    made = [np.full(kept, start, v.dtype) for v, start in zip(values, starts, strict=True)]
    for step in zip(*rows, strict=True):
        machine.spend(made[0].size)
        made = machine.inside(op.block, known, [*made, *step])
    return made


def _reduce_window(machine: Machine, op: Operation, known: Env) -> list[Array]:
    given = operands(op, known)
    count = len(given) // 2
    values, starts = given[:count], given[count:]
    padding = []
    if "padding" in op.attributes:
        padding = np.array(op.attributes["padding"]).reshape(-1, 2).tolist()
    window = windows.plain(
        values[0].ndim,
        sizes=op.integers("window_dimensions"),
        strides=op.integers("window_strides"),
        padding=padding,
        dilation=op.integers("window_dilations"),
        spread=op.integers("base_dilations"),
    )
    return windows.reduce(
        machine,
        values,
        starts,
        window,
        lambda made, part: machine.inside(op.block, known, [*made, *part]),
    )


class _Places:
    """Positions that gather reads and scatter writes: an index for each dimension of the operand,
    with the batch dimensions first and then those of the window."""

    def __init__(self, text: str, indices: Array, operand: Sequence[int], window: Sequence[int]):
        mapped = _listed(text, "start_index_map") or _listed(text, "scatter_dims_to_operand_dims")
        gone = _listed(text, "collapsed_slice_dims") + _listed(text, "inserted_window_dims")
        batching = _listed(text, "operand_batching_dims") or _listed(text, "input_batching_dims")
        own = _listed(text, "start_indices_batching_dims") or _listed(
            text, "scatter_indices_batching_dims"
        )
        axis = _number(text, "index_vector_dim")
        held = np.moveaxis(indices, axis, -1) if axis < indices.ndim else indices[..., None]
        self.batch = held.shape[:-1]
        self.kept = [d for d in range(len(operand)) if d not in gone and d not in batching]
        rank = len(self.batch) + len(self.kept)
        ones = (1,) * len(self.kept)
        starts: list[Any] = [np.int64(0)] * len(operand)
        for k, d in enumerate(mapped):
            starts[d] = held[..., k].astype(np.int64).reshape(*self.batch, *ones)
        for d, axis in zip(batching, own, strict=True):
            shape = [1] * rank
            axis -= axis > _number(text, "index_vector_dim")
            shape[axis] = operand[d]
            starts[d] = np.arange(operand[d]).reshape(shape)
        self.starts = starts
        self.steps: list[Any] = [np.int64(0)] * len(operand)
        for position, d in enumerate(self.kept):
            shape = [1] * rank
            shape[len(self.batch) + position] = window[d]
            self.steps[d] = np.arange(window[d]).reshape(shape)


def _gather(machine: Machine, op: Operation, known: Env) -> list[Array]:
    operand, indices, *more = operands(op, known)
    sizes = op.integers("slice_sizes") or [int(s) for s in np.reshape(more[0], -1)]
    text = op.text("dimension_numbers")
    where = _Places(text, indices, operand.shape, sizes)
    machine.spend(*where.batch, *(sizes[d] for d in where.kept))
    places = [
        np.clip(start, 0, whole - size) + step
        for start, step, whole, size in zip(
            where.starts, where.steps, operand.shape, sizes, strict=True
        )
    ]
    made = operand[tuple(np.broadcast_arrays(*places))] if places else operand
    full = (*where.batch, *(sizes[d] for d in where.kept))
    made = np.broadcast_to(made, full)
    offsets = _listed(text, "offset_dims")
    count = len(where.batch)
    order: list[int] = []
    batch = iter(range(count))
    window = iter(range(count, count + len(where.kept)))
    for d in range(len(full)):
        order.append(next(window) if d in offsets else next(batch))
    return [made.transpose(order)]


def _scatter(machine: Machine, op: Operation, known: Env) -> list[Array]:
    """One update after the other; what would be written outside is left out."""
    given = operands(op, known)
    count = len(given) // 2
    made = [v.copy() for v in given[:count]]
    indices, updates = given[count], given[count + 1 :]
    text = op.text("scatter_dimension_numbers")
    inside_of = _listed(text, "update_window_dims")
    shape = made[0].shape
    outside = [d for d in range(updates[0].ndim) if d not in inside_of]
    turned = [u.transpose([*outside, *inside_of]) for u in updates]
    sizes = [1] * len(shape)
    gone = _listed(text, "inserted_window_dims") + _listed(text, "input_batching_dims")
    for d, size in zip(
        [d for d in range(len(shape)) if d not in gone],
        turned[0].shape[len(outside) :],
        strict=True,
    ):
        sizes[d] = size
    where = _Places(text, indices, shape, sizes)
    full = (*where.batch, *(sizes[d] for d in where.kept))
    places = [
        np.broadcast_to(start + step, full)
        for start, step in zip(where.starts, where.steps, strict=True)
    ]
    fits = np.ones(full, np.bool_)
    for place, size in zip(places, shape, strict=True):
        fits &= (place >= 0) & (place < size)
    for at in np.ndindex(*where.batch):
        machine.budget.spend(1)
        good = fits[at]
        spot = tuple(np.asarray(place[at])[good] for place in places)
        old = [v[spot] for v in made]
        new = [np.asarray(u[at])[good] for u in turned]
        for target, value in zip(made, machine.inside(op.block, known, [*old, *new]), strict=True):
            target[spot] = value
    return made


def _sort(machine: Machine, op: Operation, known: Env) -> list[Array]:
    values = operands(op, known)
    axis = op.integer("dimension", values[0].ndim - 1)
    rows = [np.moveaxis(v, axis, -1).copy() for v in values]
    return [np.moveaxis(v, -1, axis) for v in linalg_ext.sort_rows(machine, op, known, rows)]


def _top_k(machine: Machine, op: Operation, known: Env) -> list[Array]:
    (values,) = operands(op, known)
    count = op.integer("k")
    whole = values.astype(np.float64) if values.dtype.kind not in "iu" else values.astype(np.int64)
    order = np.argsort(-whole, -1, kind="stable")[..., :count]
    return [np.take_along_axis(values, order, -1), order.astype(np.int32)]


OPERATIONS: dict[str, Handler] = {
    "chlo.top_k": _top_k,
    "stablehlo.convolution": _convolution,
    "stablehlo.dot": _dot_general,
    "stablehlo.dot_general": _dot_general,
    "stablehlo.dynamic_gather": _gather,
    "stablehlo.gather": _gather,
    "stablehlo.reduce": _reduce,
    "stablehlo.reduce_window": _reduce_window,
    "stablehlo.scatter": _scatter,
    "stablehlo.sort": _sort,
}
