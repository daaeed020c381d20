"""Operations of `iree_linalg_ext` and `tm_tensor`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from iree_pilot.pipeline.evaluate.dialects import structured
from iree_pilot.pipeline.evaluate.machine.elements import Array, Unknown
from iree_pilot.pipeline.evaluate.machine.ir import Operation
from iree_pilot.pipeline.evaluate.machine.machine import Env, Handler, Machine, operands


def _sort(machine: Machine, op: Operation, known: Env) -> list[Array]:
    """Rows one after the other, by the comparator of its region."""
    axis = op.integer("dimension")
    made = [np.moveaxis(v, axis, -1).copy() for v in operands(op, known)]
    return [np.moveaxis(v, -1, axis) for v in sort_rows(machine, op, known, made)]


def sort_rows(machine: Machine, op: Operation, known: Env, made: list[Array]) -> list[Array]:
    """Tensors sorted along their last axis, of equal elements the first comes first."""
    stable = op.flag("is_stable")
    backwards = machine.mode.backwards and not stable
    if not stable:
        machine.choices[op.name] = None

    def before(a: tuple[Array, ...], b: tuple[Array, ...]) -> bool:
        given = [np.asarray(v) for pair in zip(a, b, strict=True) for v in pair]
        return bool(machine.inside(op.block, known, given)[0])

    order: Callable[[Any, Any], int] = lambda a, b: (  # noqa: E731
        -1 if before(a, b) else 1 if before(b, a) else 0
    )
    for row in np.ndindex(made[0].shape[:-1]):
        machine.spend(made[0].shape[-1])
        elements = list(zip(*(values[row] for values in made), strict=True))
        elements = sorted(
            elements[::-1] if backwards else elements, key=functools.cmp_to_key(order)
        )
        for values, column in zip(made, zip(*elements, strict=True), strict=False):
            values[row] = np.array(column, values.dtype)
    return made


def _scan(machine: Machine, op: Operation, known: Env) -> list[Array]:
    """An inclusive or exclusive scan, with the accumulator to begin with."""
    values, output, carried = operands(op, known)
    axis, inclusive = op.integer("dimension"), op.flag("inclusive")
    rows, made = np.moveaxis(values, axis, 0), np.moveaxis(output.copy(), axis, 0)
    total = carried
    for i, row in enumerate(rows):
        machine.spend(row.size)
        if inclusive:
            (total,) = machine.inside(op.block, known, [total, row]) if i else [row]
            made[i] = total
        else:
            made[i] = total
            (total,) = machine.inside(op.block, known, [total, row])
    return [np.moveaxis(made, 0, axis), np.asarray(total)]


def _boxes(
    machine: Machine, op: Operation, parts: Array, indices: Array, whole: Array
) -> Iterator[tuple[tuple[int, ...], tuple[Any, ...] | None]]:
    """(where a part and its indices are, where it is in the whole: None outside of it) of each."""
    dims = op.integers("dimension_map")
    for at in np.ndindex(*indices.shape[: parts.ndim - (whole.ndim - len(dims))]):
        machine.budget.spend(1)
        box: list[Any] = [slice(None)] * whole.ndim
        for d, i in zip(dims, np.reshape(indices[at], -1), strict=True):
            box[d] = int(i)
        inside = all(0 <= box[d] < whole.shape[d] for d in dims)
        yield at, tuple(box) if inside else None


def _scatter(machine: Machine, op: Operation, known: Env) -> list[Array]:
    """One update after the other, in order."""
    updates, indices, original = operands(op, known)[:3]
    made = original.copy()
    for at, place in _boxes(machine, op, updates, indices, original):
        if place is None:
            made[...] = machine.undefined(f"{op.name} outside of a tensor")
            continue
        update = updates[at]
        where = tuple(slice(size) for size in np.shape(update))
        part = made[place]
        there = part[where] if np.ndim(update) else part
        (value,) = machine.inside(op.block, known, [np.asarray(update), np.asarray(there)])
        if np.ndim(update):
            part[where] = value
        else:
            made[place] = value
    return [made]


def _gather(machine: Machine, op: Operation, known: Env) -> list[Array]:
    source, indices, output = operands(op, known)[:3]
    made = output.copy()
    for at, place in _boxes(machine, op, output, indices, source):
        if place is not None:
            made[at] = source[place]
        else:
            made[at] = machine.undefined(f"{op.name} outside of a tensor")
    return [made]


def _topk(machine: Machine, op: Operation, known: Env) -> list[Array]:
    """The first of each row in the order of the region; of equal ones the first."""
    values = operands(op, known)
    axis, count = op.integer("dimension"), len(op.results)
    given = values[:-count]
    rows = np.moveaxis(given[0], axis, -1)
    if len(given) > 1:
        indices = np.moveaxis(given[1], axis, -1)
    else:
        indices = np.broadcast_to(np.arange(rows.shape[-1], dtype=np.int32), rows.shape)
    machine.choices[op.name] = None
    made = [np.moveaxis(v.copy(), axis, -1) for v in values[-count:]]
    wanted = made[0].shape[-1]

    def before(a: int, b: int, row: Array) -> int:
        if bool(machine.inside(op.block, known, [row[a], row[b]])[0]):
            return -1
        return 1 if bool(machine.inside(op.block, known, [row[b], row[a]])[0]) else 0

    for at in np.ndindex(rows.shape[:-1]):
        machine.spend(rows.shape[-1])
        row = [np.asarray(v) for v in rows[at]]
        key = functools.cmp_to_key(functools.partial(before, row=row))
        places = range(len(row))
        backwards = machine.mode.backwards
        order = sorted(reversed(places) if backwards else places, key=key)[:wanted]
        made[0][at] = rows[at][order]
        if count > 1:
            made[1][at] = indices[at][order]
    return [np.moveaxis(v, -1, axis) for v in made]


def _arg_compare(machine: Machine, op: Operation, known: Env) -> list[Array]:
    """The value that its region prefers to all before it, and where that is."""
    values = operands(op, known)
    sizes = op.integers("operandSegmentSizes")
    count = sizes[0] if sizes else len(values) - len(op.results)
    given, started = values[:count], values[-2:]
    base = values[count] if len(values) > count + 2 else 0
    axis = op.integer("dimension")
    rows = np.moveaxis(given[0], axis, 0)
    best, place = (v.copy() for v in started)
    blank = op.operands[-2] in machine.blank
    machine.choices[op.name] = None
    steps = list(enumerate(rows))
    for step, (i, row) in enumerate(steps[::-1] if machine.mode.backwards else steps):
        machine.spend(row.size)
        (better,) = machine.inside(op.block, known, [row, best])
        if blank and not step:
            better = np.ones(row.shape, np.bool_)
        at = np.moveaxis(given[1], axis, 0)[i] if count > 1 else i + base
        best = np.where(better, row, best).astype(row.dtype)
        place = np.where(better, at, place).astype(place.dtype)
    return [best, place]


def _attention(machine: Machine, op: Operation, known: Env) -> list[Array]:
    """softmax(scale * q @ k^T + mask) @ v by its indexing maps, computed in f32 or wider."""
    values = operands(op, known)
    maps = structured.maps(op)
    query, key, value, scale = values[:4]
    mask = values[4] if len(values) > len(op.results) + 4 else None
    kind = np.float64 if machine.mode.wide else np.float32

    def names(index: int) -> str:
        dims = [e.dim for e in maps[index].results]
        if None in dims:
            raise Unknown("an attention that does not index by dimensions is not evaluated")
        return "".join(chr(ord("a") + (d or 0)) for d in dims)

    q, k, v, made = names(0), names(1), names(2), names(len(maps) - 1)
    rows = "".join(c for c in q if c in made)
    columns = "".join(c for c in k if c in v and c not in q)
    scored = "".join(dict.fromkeys((*rows, *columns)))
    machine.spend(
        *(dict(zip((*q, *k), (*query.shape, *key.shape), strict=True))[c] for c in scored)
    )
    scores = np.einsum(f"{q},{k}->{scored}", query.astype(kind), key.astype(kind), optimize=True)
    scores = scores * np.asarray(scale).astype(kind)
    if mask is not None:
        m = names(4)
        if mask.dtype == np.bool_:
            mask = np.where(mask, 0, -np.inf)
        ones = dict(zip(m, mask.shape, strict=True))
        order = [m.index(c) for c in scored if c in m]
        scores = scores + mask.astype(kind).transpose(order).reshape(
            [ones.get(c, 1) for c in scored]
        )
    if len(op.regions) and op.regions[0] and len(op.block.ops) > 1:
        (scores,) = machine.inside(op.block, known, [scores.astype(kind)])
    axes = tuple(scored.index(c) for c in columns)
    powers = np.exp(scores - scores.max(axes, keepdims=True))
    weights = powers / powers.sum(axes, keepdims=True)
    found = np.einsum(f"{scored},{v}->{made}", weights, value.astype(kind), optimize=True)
    return [found.astype(values[len(values) - 1].dtype)]


OPERATIONS: dict[str, Handler] = {
    "iree_linalg_ext.sort": _sort,
    "tm_tensor.sort": _sort,
    "iree_linalg_ext.scan": _scan,
    "tm_tensor.scan": _scan,
    "iree_linalg_ext.scatter": _scatter,
    "tm_tensor.scatter": _scatter,
    "iree_linalg_ext.gather": _gather,
    "iree_linalg_ext.topk": _topk,
    "iree_linalg_ext.arg_compare": _arg_compare,
    "iree_linalg_ext.attention": _attention,
}
OVERWRITING = frozenset(OPERATIONS)
