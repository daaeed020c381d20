"""Operations on whole tensors: `tensor`, and those of `flow` that are like them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from iree_pilot.pipeline.evaluate.arrays import affine
from iree_pilot.pipeline.evaluate.machine import elements
from iree_pilot.pipeline.evaluate.machine.elements import Array, ElementKind, Unknown
from iree_pilot.pipeline.evaluate.machine.ir import Operation
from iree_pilot.pipeline.evaluate.machine.machine import Env, Handler, Machine, operands

#: Value that stands for a dynamic offset or size among static ones.
_DYNAMIC = -(2**63)


def _empty(machine: Machine, op: Operation, known: Env) -> list[Array]:
    (kind,) = op.types
    shape = machine.shape(kind, [known[v] for v in op.operands])
    machine.blank.add(op.results[0])
    dtype = machine.dtype(machine.element(kind))
    return [np.full(shape, machine.mode.filler, np.int8).astype(dtype)]


def _splat(machine: Machine, op: Operation, known: Env) -> list[Array]:
    value, *sizes = operands(op, known)
    shape = machine.shape(op.types[0], sizes)
    return [np.full(shape, value, value.dtype)]


def _from_elements(machine: Machine, op: Operation, known: Env) -> list[Array]:
    dtype = machine.dtype(machine.element(op.types[0]))
    values = np.array(operands(op, known), dtype)
    return [values.reshape(machine.shape(op.types[0], ()))]


def _generate(machine: Machine, op: Operation, known: Env) -> list[Array]:
    """The body once, on arrays of all indices."""
    shape = machine.shape(op.types[0], operands(op, known))
    (made,) = machine.inside(op.block, known, affine.mesh(shape))
    return [np.broadcast_to(made, shape).copy()]


def _dim(machine: Machine, op: Operation, known: Env) -> list[Array]:
    tensor, index = operands(op, known)
    if not 0 <= int(index) < tensor.ndim:
        raise Unknown(f"tensor.dim of dimension {index} of {tensor.ndim}")
    return [np.int64(tensor.shape[int(index)])]


def _rank(machine: Machine, op: Operation, known: Env) -> list[Array]:
    return [np.int64(known[op.operands[0]].ndim)]


def read_at(machine: Machine, tensor: Array, indices: Sequence[Array], what: str) -> Array:
    """Elements of a tensor, at indices of any shape; out of it they are undefined.

    Where a condition guards the reading, only what it lets through counts.
    """
    places, outside = [], np.False_
    for index, size in zip(indices, tensor.shape, strict=True):
        bad = (index < 0) | (index >= size)
        if np.any(bad):
            if not size:
                raise Unknown(f"{what} of an empty tensor")
            index = np.where(bad, 0, index)
            outside = outside | bad
        places.append(index)
    found = np.asarray(tensor[tuple(places)])
    counts = outside if machine.guard is None else outside & machine.guard
    if np.any(counts):
        filler = np.int8(machine.undefined(f"{what} outside of a tensor")).astype(found.dtype)
        found = np.where(outside, filler, found)
    return found


def _extract(machine: Machine, op: Operation, known: Env) -> list[Array]:
    tensor, *indices = operands(op, known)
    return [read_at(machine, tensor, indices, op.name)]


def _insert(machine: Machine, op: Operation, known: Env) -> list[Array]:
    value, tensor, *indices = operands(op, known)
    made = tensor.copy()
    place = tuple(int(i) for i in indices)
    if not all(0 <= i < size for i, size in zip(place, tensor.shape, strict=True)):
        made[...] = machine.undefined("writing outside of a tensor")
    else:
        made[place] = value
    return [made]


def _reassociated(op: Operation) -> list[list[int]]:
    return [[int(i.value) for i in group] for group in op.attributes["reassociation"]]


def _expand_shape(machine: Machine, op: Operation, known: Env) -> list[Array]:
    values = known[op.operands[0]]
    kind = op.types[0]
    sizes = op.integers("static_output_shape") or [
        _DYNAMIC if s is None else s for s in kind.shape or ()
    ]
    rest = iter(op.operands[1:])
    shape: list[int] = []
    for group, size in zip(_reassociated(op), values.shape, strict=True):
        wanted = [sizes[i] for i in group]
        if len(op.operands) == 1 and wanted.count(_DYNAMIC) == 1:
            # Without operands for them the one dynamic size of a group follows.
            static = math.prod(w for w in wanted if w != _DYNAMIC)
            wanted = [size // static if w == _DYNAMIC else w for w in wanted]
        shape += [int(known[next(rest)]) if w == _DYNAMIC else w for w in wanted]
    return [values.reshape(shape or machine.shape(kind, ()))]


def _collapse_shape(machine: Machine, op: Operation, known: Env) -> list[Array]:
    values = known[op.operands[0]]
    groups = _reassociated(op)
    return [values.reshape([math.prod(values.shape[i] for i in group) for group in groups])]


def _reshape(machine: Machine, op: Operation, known: Env) -> list[Array]:
    values, shape = operands(op, known)
    return [values.reshape([int(s) for s in shape])]


def _flow_reshape(machine: Machine, op: Operation, known: Env) -> list[Array]:
    values = known[op.operands[0]]
    source, result = op.taken[0], op.types[0]
    dynamic = (source.shape or ()).count(None)
    return [values.reshape(machine.shape(result, [known[v] for v in op.operands[1 + dynamic :]]))]


def _concat(machine: Machine, op: Operation, known: Env) -> list[Array]:
    return [np.concatenate(operands(op, known), op.integer("dim"))]


def places(
    op: Operation, known: Env, dynamic: Sequence[int]
) -> tuple[list[int], list[int], list[int]]:
    """(offsets, sizes, strides) of an operation, the dynamic ones by their values."""
    rest = iter(dynamic)

    def read(name: str) -> list[int]:
        return [int(known[next(rest)]) if s == _DYNAMIC else s for s in op.integers(name)]

    return read("static_offsets"), read("static_sizes"), read("static_strides")


def slices(shape: Sequence[int], where: tuple[list[int], list[int], list[int]]) -> Any:
    """Raises Unknown for a slice that leaves the tensor."""
    for size, offset, count, stride in zip(shape, *where, strict=True):
        last = offset + (count - 1) * stride
        if count and not (0 <= offset < size and 0 <= last < size):
            raise Unknown(f"a slice from {offset} to {last} of a dimension of size {size}")
    return tuple(
        slice(offset, offset + (count - 1) * stride + 1 if count else offset, stride)
        for offset, count, stride in zip(*where, strict=True)
    )


def _extract_slice(machine: Machine, op: Operation, known: Env) -> list[Array]:
    source = known[op.operands[0]]
    where = places(op, known, op.operands[1:])
    values = source[slices(source.shape, where)]
    return [values.reshape(_kept(op, values.shape))]


def _kept(op: Operation, sizes: Sequence[int]) -> list[int]:
    """The sizes of a slice without the dimensions that its type drops, which are 1 by what is
    written."""
    wanted = list(op.types[0].shape or ())
    kept: list[int] = []
    for written, size in zip(op.integers("static_sizes"), sizes, strict=True):
        one = wanted[len(kept)] if len(kept) < len(wanted) else -1
        if written == _DYNAMIC or one in (None, written):
            kept.append(size)
    return kept


def insert_slice(machine: Machine, op: Operation, known: Env) -> list[Array]:
    source, target = known[op.operands[0]], known[op.operands[1]]
    made = target.copy()
    where = slices(target.shape, places(op, known, op.operands[2:]))
    made[where] = source.reshape(made[where].shape)
    return [made]


def _pad(machine: Machine, op: Operation, known: Env) -> list[Array]:
    rest = iter(op.operands[1:])

    def read(name: str) -> list[int]:
        return [int(known[next(rest)]) if s == _DYNAMIC else s for s in op.integers(name)]

    low, high = read("static_low"), read("static_high")
    source = known[op.operands[0]]
    shape = [a + s + b for a, s, b in zip(low, source.shape, high, strict=True)]
    machine.spend(*shape)
    (filling,) = machine.inside(op.block, known, affine.mesh(shape))
    made = np.broadcast_to(filling, shape).astype(source.dtype)
    inner = tuple(slice(a, a + s) for a, s in zip(low, source.shape, strict=True))
    if min([*low, *high], default=0) < 0:
        raise Unknown("tensor.pad by less than nothing")
    made[inner] = source
    return [made]


def _bitcast(machine: Machine, op: Operation, known: Env) -> list[Array]:
    values = known[op.operands[0]]
    source, result = machine.element(op.taken[0]), machine.element(op.types[0])
    if machine.mode.wide and "float" in (source.family, result.family) and source != result:
        raise Unknown(f"{op.name} depends on the type of the program's own floats")
    if source.padded or result.padded or "bool" in (source.family, result.family):
        if source.bits != result.bits:
            raise Unknown(f"{op.name} from {source.name} to {result.name} is not evaluated")
        return [elements.fit(values.astype(result.dtype), result)]
    dynamic = [known[v] for v in op.operands[1 + (op.taken[0].shape or ()).count(None) :]]
    return [reinterpreted(op.name, values, result, machine.shape(op.types[0], dynamic))]


def reinterpreted(name: str, values: Array, result: ElementKind, shape: Sequence[int]) -> Array:
    """The bytes of an operation's operand read as elements of another type. Raises Unknown where
    there are too few."""
    stored = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
    size = math.prod(shape) * result.dtype.itemsize
    if stored.size < size:
        raise Unknown(f"{name} reads {size} bytes where there are {stored.size}")
    return stored[:size].view(result.dtype).reshape(shape)


def _gather(machine: Machine, op: Operation, known: Env) -> list[Array]:
    source, indices = operands(op, known)
    dims = op.integers("gather_dims")
    at = [indices[..., i] for i in range(len(dims))]
    flat = [np.reshape(one, -1) for one in at]
    rows = []
    for place in zip(*flat, strict=True):
        box = [slice(None)] * source.ndim
        for d, i in zip(dims, place, strict=True):
            if not 0 <= int(i) < source.shape[d]:
                raise Unknown(f"{op.name} outside of a tensor")
            box[d] = slice(int(i), int(i) + 1)
        rows.append(source[tuple(box)])
    shape = machine.shape(op.types[0], [indices.shape[i] for i in range(indices.ndim - 1)])
    return [np.stack(rows).reshape(shape)]


def _flow_slice(machine: Machine, op: Operation, known: Env) -> list[Array]:
    source, _, *given, _ = segments(op)
    offsets, lengths = ([int(known[v]) for v in group] for group in given)
    values = known[source[0]]
    return [values[slices(values.shape, (offsets, lengths, [1] * len(offsets)))]]


def _flow_update(machine: Machine, op: Operation, known: Env) -> list[Array]:
    target, _, starts, update, *_ = segments(op)
    made, value = known[target[0]].copy(), known[update[0]]
    offsets = [int(known[v]) for v in starts]
    made[slices(made.shape, (offsets, list(value.shape), [1] * len(offsets)))] = value
    return [made]


def segments(op: Operation) -> list[list[int]]:
    """The operands of an operation by the groups that it has them in."""
    rest = iter(op.operands)
    return [[next(rest) for _ in range(count)] for count in op.integers("operandSegmentSizes")]


def _flow_load(machine: Machine, op: Operation, known: Env) -> list[Array]:
    source, _, indices = segments(op)
    return [read_at(machine, known[source[0]], [known[v] for v in indices], op.name)]


OPERATIONS: dict[str, Handler] = {
    "tensor.empty": _empty,
    "flow.tensor.empty": _empty,
    "flow.tensor.alloca": _empty,
    "tensor.splat": _splat,
    "flow.tensor.splat": _splat,
    "tensor.from_elements": _from_elements,
    "tensor.generate": _generate,
    "tensor.dim": _dim,
    "tensor.rank": _rank,
    "tensor.extract": _extract,
    "tensor.insert": _insert,
    "tensor.expand_shape": _expand_shape,
    "tensor.collapse_shape": _collapse_shape,
    "tensor.reshape": _reshape,
    "tensor.concat": _concat,
    "tensor.extract_slice": _extract_slice,
    "tensor.insert_slice": insert_slice,
    "tensor.pad": _pad,
    "tensor.bitcast": _bitcast,
    "tensor.gather": _gather,
    "flow.tensor.bitcast": _bitcast,
    "iree_tensor_ext.bitcast": _bitcast,
    "flow.tensor.reshape": _flow_reshape,
    "flow.tensor.slice": _flow_slice,
    "flow.tensor.update": _flow_update,
    "flow.tensor.load": _flow_load,
}
#: Operations that only read a shape.
OVERWRITING = frozenset({"tensor.dim", "tensor.rank"})
