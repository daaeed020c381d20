"""TOSA, as its specification computes it; `resize` and what is rare is not here."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from iree_pilot.pipeline.evaluate.arrays import scalars, windows
from iree_pilot.pipeline.evaluate.arrays.contraction import multiplied
from iree_pilot.pipeline.evaluate.dialects import stablehlo
from iree_pilot.pipeline.evaluate.machine.elements import Array, ElementKind, Unknown, fit
from iree_pilot.pipeline.evaluate.machine.ir import Operation
from iree_pilot.pipeline.evaluate.machine.machine import Env, Handler, Machine, operands

#: Counterparts by name: for floats, integers, booleans. Operands of size 1 are broadcast.
_ELEMENTWISE: dict[str, tuple[str, str, str]] = {
    "abs": ("math.absf", "math.absi", ""),
    "add": ("arith.addf", "arith.addi", ""),
    "bitwise_and": ("", "arith.andi", ""),
    "bitwise_or": ("", "arith.ori", ""),
    "bitwise_xor": ("", "arith.xori", ""),
    "ceil": ("math.ceil", "", ""),
    "cos": ("math.cos", "", ""),
    "erf": ("math.erf", "", ""),
    "exp": ("math.exp", "", ""),
    "floor": ("math.floor", "", ""),
    "intdiv": ("", "arith.divsi", ""),
    "log": ("math.log", "", ""),
    "logical_and": ("", "", "arith.andi"),
    "logical_left_shift": ("", "arith.shli", ""),
    "logical_or": ("", "", "arith.ori"),
    "logical_right_shift": ("", "arith.shrui", ""),
    "logical_xor": ("", "", "arith.xori"),
    "maximum": ("arith.maximumf", "arith.maxsi", ""),
    "minimum": ("arith.minimumf", "arith.minsi", ""),
    "pow": ("math.powf", "", ""),
    "rsqrt": ("math.rsqrt", "", ""),
    "select": ("arith.select", "arith.select", "arith.select"),
    "sin": ("math.sin", "", ""),
    "sub": ("arith.subf", "arith.subi", ""),
    "tanh": ("math.tanh", "", ""),
}
_REDUCED: dict[str, Any] = {
    "reduce_all": np.logical_and,
    "reduce_any": np.logical_or,
    "reduce_max": np.maximum,
    "reduce_min": np.minimum,
    "reduce_product": np.multiply,
    "reduce_sum": np.add,
}
_COMPARED: dict[str, Callable[[Array, Array], Array]] = {
    "equal": np.equal,
    "greater": np.greater,
    "greater_equal": np.greater_equal,
}
_MOST_STEPS = 1 << 20


def _elementwise(machine: Machine, op: Operation, known: Env) -> list[Array]:
    source, result = machine.element(op.taken[-1]), machine.element(op.types[0])
    families = ("float", "int", "bool")
    own = ""
    if source.family in families:
        own = _ELEMENTWISE[op.name.partition(".")[2]][families.index(source.family)]
    if not own:
        raise Unknown(f"{op.name} of {source.name} is not evaluated")
    made = scalars.compute(own, operands(op, known), source, result, machine.undefined)
    return [np.asarray(made)]


def _compare(machine: Machine, op: Operation, known: Env) -> list[Array]:
    return [np.asarray(_COMPARED[op.name.partition(".")[2]](*operands(op, known)))]


def _not(machine: Machine, op: Operation, known: Env) -> list[Array]:
    return [np.invert(known[op.operands[0]])]


def _reciprocal(machine: Machine, op: Operation, known: Env) -> list[Array]:
    value = known[op.operands[0]]
    return [(1 / value.astype(np.float64)).astype(value.dtype)]


def _sigmoid(machine: Machine, op: Operation, known: Env) -> list[Array]:
    value = known[op.operands[0]]
    return [np.asarray(1 / (1 + np.exp(-value.astype(np.float64)))).astype(value.dtype)]


def _mul(machine: Machine, op: Operation, known: Env) -> list[Array]:
    a, b, *rest = operands(op, known)
    element = machine.element(op.types[0])
    shift = int(np.reshape(rest[0], -1)[0]) if rest else op.integer("shift", 0)
    if element.family == "float":
        return [(a * b).astype(machine.dtype(element))]
    made = a.astype(np.int64) * b.astype(np.int64)
    if shift:
        made = (made + (1 << (shift - 1))) >> shift
    return [fit(made.astype(element.dtype), element)]


def _zero_point(op: Operation, known: Env, index: int) -> int:
    """A zero point that is an operand; 0 where it is not given."""
    if index >= len(op.operands):
        return 0
    value = np.reshape(known[op.operands[index]], -1)
    return int(value[0])


def saturated(values: Array, element: ElementKind, unsigned: bool = False) -> Array:
    """Whole numbers of 64 bits as integers of a type, those outside of it at its ends."""
    bits = element.bits
    low, high = (0, (1 << bits) - 1) if unsigned else (-(1 << (bits - 1)), (1 << (bits - 1)) - 1)
    kept = np.clip(values, low, high)
    wide = kept.astype(np.uint64) if unsigned else kept
    return fit(wide.astype(f"uint{element.dtype.itemsize * 8}").view(element.dtype), element)


def _negate(machine: Machine, op: Operation, known: Env) -> list[Array]:
    value, element = known[op.operands[0]], machine.element(op.types[0])
    if element.family == "float":
        return [np.negative(value)]
    made = -(value.astype(np.int64) - _zero_point(op, known, 1)) + _zero_point(op, known, 2)
    return [saturated(made, element)]


def _clamp(machine: Machine, op: Operation, known: Env) -> list[Array]:
    value = known[op.operands[0]]
    low, high = (op.attributes[name].value for name in ("min_val", "max_val"))
    if "IGNORE" in op.text("nan_mode"):
        raise Unknown("tosa.clamp that ignores NaN is not evaluated")
    bounds = [np.asarray(b, np.float64 if isinstance(b, float) else np.int64) for b in (low, high)]
    low, high = (b.astype(value.dtype) for b in bounds)
    return [np.minimum(np.maximum(value, low), high).astype(value.dtype)]


def _shift(machine: Machine, op: Operation, known: Env) -> list[Array]:
    value, by = operands(op, known)
    made = value.astype(np.int64) >> by
    if op.flag("round"):
        made = made + np.where(by > 0, (value.astype(np.int64) >> np.maximum(by - 1, 0)) & 1, 0)
    return [np.asarray(made).astype(value.dtype)]


def _cast(machine: Machine, op: Operation, known: Env) -> list[Array]:
    """Floats to integers: to the nearest, and those outside of the type to its ends."""
    value = known[op.operands[0]]
    source, result = machine.element(op.taken[0]), machine.element(op.types[0])
    if source.family != "float" or result.family != "int":
        return [stablehlo.convert(machine, value, source, result)]
    wide = value.astype(np.float64)
    if np.isnan(wide).any():
        wide = np.where(np.isnan(wide), machine.undefined("a NaN converted to an integer"), wide)
    top = 2.0 ** (result.bits - 1)
    whole = np.rint(wide)
    inside = np.clip(whole, -top, np.nextafter(top, 0)).astype(np.int64)
    made = np.where(whole >= top, (1 << (result.bits - 1)) - 1, inside)
    return [saturated(made, result)]


def _rescale(machine: Machine, op: Operation, known: Env) -> list[Array]:
    value, multiplier, shift = operands(op, known)[:3]
    result, source = machine.element(op.types[0]), machine.element(op.taken[0])
    mode = op.text("rounding_mode")
    if "INEXACT" in mode:
        raise Unknown("tosa.rescale that may round in any way is not evaluated")
    if op.flag("input_unsigned"):
        value = scalars.unsigned(value)
    offset = _zero_point(op, known, 3)
    if op.flag("input_unsigned"):
        offset &= (1 << source.bits) - 1
    wide = value.astype(np.int64) - offset
    scale, by = multiplier.astype(np.int64), shift.astype(np.int64)
    rounding = np.int64(1) << (by - 1)
    if "DOUBLE" in mode:
        rounding = rounding + np.where(by > 31, np.where(wide >= 0, 1 << 30, -(1 << 30)), 0)
    made = (wide * scale + rounding) >> by
    added = _zero_point(op, known, 4)
    unsigned = op.flag("output_unsigned")
    if unsigned:
        added &= (1 << result.bits) - 1
    return [saturated(made + added, result, unsigned)]


def _table(machine: Machine, op: Operation, known: Env) -> list[Array]:
    value, table = operands(op, known)
    if value.dtype == np.int8:
        return [table[value.astype(np.int64) + 128]]
    if value.dtype != np.int16:
        raise Unknown(f"tosa.table of {op.taken[0].element} is not evaluated")
    wide, whole = value.astype(np.int64), table.astype(np.int64)
    place, rest = (wide >> 7) + 256, wide & 0x7F
    made = (whole[place] << 7) + (whole[place + 1] - whole[place]) * rest
    return [made.astype(np.int32)]


# -- reductions and products


def _reduce(machine: Machine, op: Operation, known: Env) -> list[Array]:
    value, axis = known[op.operands[0]], op.integer("axis")
    function = _REDUCED[op.name.partition(".")[2]]
    wide = value.dtype.itemsize < 4 and value.dtype.kind not in "biu" and function is np.add
    made = value.astype(np.float32) if wide else value
    reduced = function.reduce(made, axis, dtype=made.dtype, keepdims=True)
    return [fit(reduced.astype(value.dtype), machine.element(op.types[0]))]


def _argmax(machine: Machine, op: Operation, known: Env) -> list[Array]:
    value = known[op.operands[0]]
    whole = value if value.dtype.kind in "iu" else value.astype(np.float64)
    axis = op.integer("axis")
    machine.choices[op.name] = None
    if machine.mode.backwards:
        made = value.shape[axis] - 1 - np.argmax(np.flip(whole, axis), axis)
    else:
        made = np.argmax(whole, axis)
    return [made.astype(machine.element(op.types[0]).dtype)]


def _kind(machine: Machine, op: Operation) -> Any:
    """numpy's type that a product is accumulated in."""
    element = machine.element(op.types[0])
    kind = machine.dtype(element)
    if element.family == "float":
        return np.dtype(np.float32) if kind.itemsize < 4 else kind
    return np.dtype(np.int64)


def _less(op: Operation, known: Env, index: int, zero: int, kind: Any) -> Array:
    """An operand less its zero point."""
    value = known[op.operands[index]].astype(kind)
    if zero >= len(op.operands):
        return value
    point = np.reshape(known[op.operands[zero]], -1)[0]
    return value - np.asarray(point).astype(kind)


def _matmul(machine: Machine, op: Operation, known: Env) -> list[Array]:
    kind = _kind(machine, op)
    a, b = _less(op, known, 0, 2, kind), _less(op, known, 1, 3, kind)
    machine.spend(a.shape[0], a.shape[1], b.shape[2])
    return [machine.finished(op, multiplied(a, b))]


def _convolution(machine: Machine, op: Operation, known: Env) -> list[Array]:
    """`conv2d`, `conv3d` (weights [results, spatial..., channels]) and `depthwise_conv2d`."""
    kind = _kind(machine, op)
    value, weights = _less(op, known, 0, 3, kind), _less(op, known, 1, 4, kind)
    groups = 1
    if "depthwise" in op.name:  # [spatial..., channels, multiples]
        groups = weights.shape[2]
        kernel = weights.reshape(*weights.shape[:2], 1, -1)
    else:
        kernel = np.moveaxis(weights, 0, -1)
    rank = value.ndim - 2
    pads = op.integers("pad")
    window = windows.plain(
        rank,
        sizes=kernel.shape[:rank],
        strides=op.integers("stride"),
        padding=[pads[2 * d : 2 * d + 2] for d in range(rank)],
        dilation=op.integers("dilation"),
    )
    made = windows.convolve(machine, value, kernel, window, groups, kind)
    return [machine.finished(op, made + known[op.operands[2]].astype(kind))]


def _transposed_convolution(machine: Machine, op: Operation, known: Env) -> list[Array]:
    kind = _kind(machine, op)
    value, weights = _less(op, known, 0, 3, kind), _less(op, known, 1, 4, kind)
    kernel = np.flip(np.moveaxis(weights, 0, -1), (0, 1))
    pads, sizes = op.integers("out_pad"), kernel.shape[:2]
    window = windows.plain(
        2,
        sizes=sizes,
        spread=op.integers("stride"),
        padding=[[sizes[d] - 1 + pads[2 * d], sizes[d] - 1 + pads[2 * d + 1]] for d in range(2)],
    )
    made = windows.convolve(machine, value, kernel, window, 1, kind)
    return [machine.finished(op, made + known[op.operands[2]].astype(kind))]


def _pool_window(op: Operation) -> windows.Window:
    pads = op.integers("pad")
    return windows.plain(
        4,
        sizes=[1, *op.integers("kernel"), 1],
        strides=[1, *op.integers("stride"), 1],
        padding=[[0, 0], pads[:2], pads[2:], [0, 0]],
    )


def _max_pool(machine: Machine, op: Operation, known: Env) -> list[Array]:
    value = known[op.operands[0]]
    if "IGNORE" in op.text("nan_mode"):
        raise Unknown("tosa.max_pool2d that ignores NaN is not evaluated")
    whole = value.dtype.kind in "iu"
    low = np.iinfo(value.dtype).min if whole else -math.inf
    start = np.asarray(low, np.int64 if whole else np.float64).astype(value.dtype)
    (made,) = windows.reduce(
        machine,
        [value],
        [start],
        _pool_window(op),
        lambda made, part: [np.maximum(made[0], part[0])],
    )
    return [made]


def _sum(made: list[Array], part: list[Array]) -> list[Array]:
    return [made[0] + part[0]]


def _avg_pool(machine: Machine, op: Operation, known: Env) -> list[Array]:
    """Over what of each window is not padding."""
    kind, element = _kind(machine, op), machine.element(op.types[0])
    value = _less(op, known, 0, 1, kind)
    window, zero = _pool_window(op), np.zeros((), kind)
    (total,) = windows.reduce(machine, [value], [zero], window, _sum)
    (count,) = windows.reduce(machine, [np.ones_like(value)], [zero], window, _sum)
    if element.family == "float":
        return [(total / count).astype(machine.dtype(element))]
    bits = np.ceil(np.log2(np.maximum(count, 1))).astype(np.int64)
    scale = (((np.int64(1) << 30) + 1) << bits) // count
    by = 30 + bits
    made = (total * scale + (np.int64(1) << (by - 1))) >> by
    return [saturated(made + _zero_point(op, known, 2), element)]


# -- shapes


def _sizes(known: Env, value: int) -> list[int]:
    return [int(size) for size in np.reshape(known[value], -1)]


def _reshape(machine: Machine, op: Operation, known: Env) -> list[Array]:
    value = known[op.operands[0]]
    shape = _sizes(known, op.operands[1]) if len(op.operands) > 1 else op.integers("new_shape")
    return [value.reshape(shape)]


def _transpose(machine: Machine, op: Operation, known: Env) -> list[Array]:
    order = op.integers("perms") or _sizes(known, op.operands[1])
    return [known[op.operands[0]].transpose(order)]


def _concat(machine: Machine, op: Operation, known: Env) -> list[Array]:
    return [np.concatenate(operands(op, known), op.integer("axis"))]


def _pad(machine: Machine, op: Operation, known: Env) -> list[Array]:
    value = known[op.operands[0]]
    around = np.reshape(_sizes(known, op.operands[1]), (-1, 2)).tolist()
    filling: Any = np.zeros((), value.dtype)
    if len(op.operands) > 2:
        filling = np.reshape(known[op.operands[2]], -1)[0]
    shape = [size + a + b for size, (a, b) in zip(value.shape, around, strict=True)]
    machine.spend(*shape)
    low, high = [a for a, _ in around], [b for _, b in around]
    return [windows.padded(value, low, high, [0] * value.ndim, filling)]


def _slice(machine: Machine, op: Operation, known: Env) -> list[Array]:
    value = known[op.operands[0]]
    if len(op.operands) > 1:
        starts, sizes = (_sizes(known, v) for v in op.operands[1:3])
    else:
        starts, sizes = op.integers("start"), op.integers("size")
    box = tuple(slice(a, None if n == -1 else a + n) for a, n in zip(starts, sizes, strict=True))
    return [value[box]]


def _tile(machine: Machine, op: Operation, known: Env) -> list[Array]:
    value = known[op.operands[0]]
    times = _sizes(known, op.operands[1]) if len(op.operands) > 1 else op.integers("multiples")
    machine.spend(*(size * n for size, n in zip(value.shape, times, strict=True)))
    return [np.tile(value, times)]


def _reverse(machine: Machine, op: Operation, known: Env) -> list[Array]:
    return [np.flip(known[op.operands[0]], op.integer("axis"))]


def _inside(indices: Array, size: int) -> None:
    if indices.size and (indices.min() < 0 or indices.max() >= size):
        raise Unknown("its indices lie outside of the tensor")


def _gather(machine: Machine, op: Operation, known: Env) -> list[Array]:
    values, indices = operands(op, known)
    _inside(indices, values.shape[1])
    return [np.take_along_axis(values, indices.astype(np.int64)[..., None], 1)]


def _scatter(machine: Machine, op: Operation, known: Env) -> list[Array]:
    values, indices, given = operands(op, known)
    _inside(indices, values.shape[1])
    made = values.copy()
    np.put_along_axis(made, indices.astype(np.int64)[..., None], given, 1)
    return [made]


def _dim(machine: Machine, op: Operation, known: Env) -> list[Array]:
    return [np.array([known[op.operands[0]].shape[op.integer("axis")]])]


def _const(machine: Machine, op: Operation, known: Env) -> list[Array]:
    from iree_pilot.pipeline.evaluate.machine import constants

    name = "values" if "values" in op.attributes else "value"
    values, element = constants.values(op.attributes[name], machine.module.blobs)
    return [machine.held(values, element)]


def _same(machine: Machine, op: Operation, known: Env) -> list[Any]:
    return [known[v] for v in op.operands]


# -- control flow


def _if(machine: Machine, op: Operation, known: Env) -> list[Any]:
    condition, *given = operands(op, known)
    chosen = op.regions[0 if bool(np.reshape(condition, -1)[0]) else 1][0]
    return machine.inside(chosen, known, given)


def _while(machine: Machine, op: Operation, known: Env) -> list[Any]:
    condition, body = (region[0] for region in op.regions)
    carried: Sequence[Any] = [known[v] for v in op.operands]
    for _ in range(_MOST_STEPS):
        machine.budget.spend(1)
        if not bool(np.reshape(machine.inside(condition, known, carried)[0], -1)[0]):
            return list(carried)
        carried = machine.inside(body, known, carried)
    raise Unknown(f"a loop of more than {_MOST_STEPS} steps is not evaluated")


_TABLE: dict[str, Handler] = {
    **dict.fromkeys(_ELEMENTWISE, _elementwise),
    **dict.fromkeys(_COMPARED, _compare),
    **dict.fromkeys(_REDUCED, _reduce),
    "argmax": _argmax,
    "arithmetic_right_shift": _shift,
    "avg_pool2d": _avg_pool,
    "bitwise_not": _not,
    "cast": _cast,
    "clamp": _clamp,
    "concat": _concat,
    "cond_if": _if,
    "const": _const,
    "const_shape": _const,
    "conv2d": _convolution,
    "conv3d": _convolution,
    "depthwise_conv2d": _convolution,
    "dim": _dim,
    "gather": _gather,
    "identity": _same,
    "logical_not": _not,
    "matmul": _matmul,
    "max_pool2d": _max_pool,
    "mul": _mul,
    "negate": _negate,
    "pad": _pad,
    "reciprocal": _reciprocal,
    "rescale": _rescale,
    "reshape": _reshape,
    "reverse": _reverse,
    "scatter": _scatter,
    "sigmoid": _sigmoid,
    "slice": _slice,
    "table": _table,
    "tile": _tile,
    "transpose": _transpose,
    "transpose_conv2d": _transposed_convolution,
    "while_loop": _while,
}
OPERATIONS: dict[str, Handler] = {f"tosa.{name}": handler for name, handler in _TABLE.items()}
