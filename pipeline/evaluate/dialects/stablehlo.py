"""StableHLO and what is common of CHLO: operations on single elements, shapes and control flow."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from iree_pilot.pipeline.evaluate.arrays import scalars
from iree_pilot.pipeline.evaluate.arrays.windows import padded
from iree_pilot.pipeline.evaluate.machine.elements import (
    Array,
    ElementKind,
    Unknown,
    fit,
    zero_extended,
)
from iree_pilot.pipeline.evaluate.machine.ir import Operation
from iree_pilot.pipeline.evaluate.machine.machine import Env, Handler, Machine, operands

#: Counterparts by name: for floats, signed and unsigned integers, booleans, complex numbers.
_ELEMENTWISE: dict[str, tuple[str, str, str, str, str]] = {
    "abs": ("math.absf", "math.absi", "", "", "complex.abs"),
    "add": ("arith.addf", "arith.addi", "arith.addi", "arith.ori", "complex.add"),
    "and": ("", "arith.andi", "arith.andi", "arith.andi", ""),
    "atan2": ("math.atan2", "", "", "", ""),
    "cbrt": ("math.cbrt", "", "", "", ""),
    "ceil": ("math.ceil", "", "", "", ""),
    "cosine": ("math.cos", "", "", "", "complex.cos"),
    "divide": ("arith.divf", "arith.divsi", "arith.divui", "", "complex.div"),
    "exponential": ("math.exp", "", "", "", "complex.exp"),
    "exponential_minus_one": ("math.expm1", "", "", "", ""),
    "floor": ("math.floor", "", "", "", ""),
    "imag": ("", "", "", "", "complex.im"),
    "is_finite": ("math.isfinite", "", "", "", ""),
    "log": ("math.log", "", "", "", "complex.log"),
    "log_plus_one": ("math.log1p", "", "", "", ""),
    "maximum": ("arith.maximumf", "arith.maxsi", "arith.maxui", "arith.ori", ""),
    "minimum": ("arith.minimumf", "arith.minsi", "arith.minui", "arith.andi", ""),
    "multiply": ("arith.mulf", "arith.muli", "arith.muli", "arith.andi", "complex.mul"),
    "negate": ("arith.negf", "", "", "", "complex.neg"),
    "or": ("", "arith.ori", "arith.ori", "arith.ori", ""),
    "popcnt": ("", "math.ctpop", "math.ctpop", "", ""),
    "power": ("math.powf", "math.ipowi", "", "", "complex.pow"),
    "real": ("", "", "", "", "complex.re"),
    "remainder": ("arith.remf", "arith.remsi", "arith.remui", "", ""),
    "round_nearest_afz": ("math.round", "", "", "", ""),
    "round_nearest_even": ("math.roundeven", "", "", "", ""),
    "rsqrt": ("math.rsqrt", "", "", "", ""),
    "sine": ("math.sin", "", "", "", "complex.sin"),
    "sqrt": ("math.sqrt", "", "", "", "complex.sqrt"),
    "subtract": ("arith.subf", "arith.subi", "arith.subi", "", "complex.sub"),
    "tan": ("math.tan", "", "", "", ""),
    "tanh": ("math.tanh", "", "", "", "complex.tanh"),
    "xor": ("", "arith.xori", "arith.xori", "arith.xori", ""),
}
_CHLO = {
    **{name: f"math.{name}" for name in ("acos", "acosh", "asin", "asinh", "atan", "atanh")},
    **{name: f"math.{name}" for name in ("cosh", "sinh", "tan", "erf", "erfc")},
}
_COMPARED: dict[str, Callable[[Array, Array], Array]] = {
    "EQ": np.equal,
    "NE": np.not_equal,
    "GE": np.greater_equal,
    "GT": np.greater,
    "LE": np.less_equal,
    "LT": np.less,
}
_FAMILIES = ("float", "int", "unsigned", "bool", "complex")
_MOST_STEPS = 1 << 20


def family(element: ElementKind) -> str:
    return "unsigned" if element.unsigned else element.family


def elementwise(machine: Machine, op: Operation, name: str, values: Sequence[Array]) -> Array:
    """One of the table above, by the element type of the last operand."""
    source, result = machine.element(op.taken[-1]), machine.element(op.types[0])
    own = _ELEMENTWISE[name][_FAMILIES.index(family(source))]
    if not own:
        raise Unknown(f"{op.name} of {source.name} is not evaluated")
    made = np.asarray(scalars.compute(own, list(values), source, result, machine.undefined))
    return made.astype(machine.dtype(result), copy=False)


def _elementwise(machine: Machine, op: Operation, known: Env) -> list[Array]:
    name = op.name.partition(".")[2].removeprefix("broadcast_")
    values = operands(op, known)
    if name == "negate" and machine.element(op.taken[0]).family == "int":
        return [fit(np.negative(values[0]), machine.element(op.taken[0]))]
    if name == "abs" and machine.element(op.taken[0]).unsigned:
        return [values[0]]
    if op.text("broadcast_dimensions"):
        values = _aligned(op, values)
    return [elementwise(machine, op, name, values)]


def _aligned(op: Operation, values: list[Array]) -> list[Array]:
    """The operand of lower rank of a CHLO operation along the dimensions that it names."""
    rank = max(v.ndim for v in values)
    dims = op.integers("broadcast_dimensions")
    made = []
    for value in values:
        if value.ndim < rank:
            shape = [1] * rank
            for d, size in zip(dims, value.shape, strict=True):
                shape[d] = size
            value = value.reshape(shape)
        made.append(value)
    return made


def _chlo(machine: Machine, op: Operation, known: Env) -> list[Array]:
    (value,) = operands(op, known)
    element = machine.element(op.taken[0])
    own = _CHLO[op.name.partition(".")[2]]
    if element.family != "float":
        raise Unknown(f"{op.name} of {element.name} is not evaluated")
    return [np.asarray(scalars.OPERATIONS[own](value))]


def _logistic(machine: Machine, op: Operation, known: Env) -> list[Array]:
    (value,) = operands(op, known)
    wide = value if value.dtype.kind == "c" else value.astype(np.float64)
    return [np.asarray(1 / (1 + np.exp(-wide))).astype(value.dtype)]


def _sign(machine: Machine, op: Operation, known: Env) -> list[Array]:
    (value,) = operands(op, known)
    if value.dtype.kind == "c":
        raise Unknown(f"{op.name} of complex numbers is not evaluated")
    return [
        np.sign(value if value.dtype.kind in "iu" else value.astype(np.float64)).astype(value.dtype)
    ]


def _not(machine: Machine, op: Operation, known: Env) -> list[Array]:
    return [np.invert(known[op.operands[0]])]


def _square(machine: Machine, op: Operation, known: Env) -> list[Array]:
    value = known[op.operands[0]]
    return [(value * value).astype(value.dtype)]


def _shift(machine: Machine, op: Operation, known: Env) -> list[Array]:
    """Shifts; by as many bits as there are or more, nothing is left, or only the sign."""
    value, by = operands(op, known)
    element = machine.element(op.taken[0])
    bits = element.bits
    over = scalars.unsigned(by) >= bits
    if op.name.endswith("arithmetic"):
        signed = value.view(f"int{value.itemsize * 8}")
        made = np.right_shift(signed, np.where(over, bits - 1, by).astype(signed.dtype))
        return [made.view(value.dtype)]
    small = np.where(over, 0, by).astype(value.dtype)
    if op.name.endswith("left"):
        return [fit(np.where(over, 0, np.left_shift(value, small)).astype(value.dtype), element)]
    raw = scalars.unsigned(zero_extended(value, element))
    made = np.where(over, 0, np.right_shift(raw, small.view(raw.dtype))).astype(raw.dtype)
    return [fit(made.view(value.dtype), element)]


def _compare(machine: Machine, op: Operation, known: Env) -> list[Array]:
    a, b = operands(op, known)
    if op.text("broadcast_dimensions"):
        a, b = _aligned(op, [a, b])
    match = re.search(r"comparison_direction (\w+)", op.text("comparison_direction"))
    if match is None or "TOTALORDER" in op.text("compare_type"):
        raise Unknown(f"{op.name} in total order is not evaluated")
    return [np.asarray(_COMPARED[match[1]](a, b))]


def _select(machine: Machine, op: Operation, known: Env) -> list[Array]:
    condition, a, b = operands(op, known)
    chosen: Array = np.where(condition, a, b)
    return [chosen.astype(a.dtype)]


def _clamp(machine: Machine, op: Operation, known: Env) -> list[Array]:
    low, value, high = operands(op, known)
    return [np.minimum(np.maximum(value, low), high).astype(value.dtype)]


def convert(machine: Machine, value: Array, source: ElementKind, result: ElementKind) -> Array:
    """A value of another element type, by the rules of StableHLO."""
    to = machine.dtype(result)
    if result.family == "bool":
        return np.asarray(value != 0)
    if source.family == "complex" and result.family != "complex":
        value = value.real
    if result.family == "float" and source.family == "float":
        return machine.rounds(value, result)
    if result.family == "int" and source.family in ("float", "complex"):
        name = "arith.fptoui" if result.unsigned else "arith.fptosi"
        return scalars.cast(name, value, source, result, to, machine.undefined)
    if result.family == "int":
        return fit(np.asarray(value).astype(to), result)
    if result.family == "float":
        return machine.rounds(np.asarray(value).astype(np.float64), result)
    return np.asarray(value).astype(to)


def _convert(machine: Machine, op: Operation, known: Env) -> list[Array]:
    (value,) = operands(op, known)
    return [convert(machine, value, machine.element(op.taken[0]), machine.element(op.types[0]))]


def _complex(machine: Machine, op: Operation, known: Env) -> list[Array]:
    real, imaginary = operands(op, known)
    return [(real + 1j * imaginary).astype(machine.dtype(machine.element(op.types[0])))]


def _leading_zeros(machine: Machine, op: Operation, known: Env) -> list[Array]:
    (value,) = operands(op, known)
    element = machine.element(op.taken[0])
    raw = scalars.unsigned(zero_extended(value, element)).astype(np.uint64)
    found = np.full(raw.shape, element.bits, np.int64)
    for bit in range(element.bits):
        found[(raw >> np.uint64(bit) & np.uint64(1)) != 0] = element.bits - 1 - bit
    return [found.astype(element.dtype)]


def _batch_norm(machine: Machine, op: Operation, known: Env) -> list[Array]:
    value, scale, offset, mean, variance = operands(op, known)
    axis, epsilon = op.integer("feature_index"), op.attributes["epsilon"].value
    shape = [-1 if d == axis else 1 for d in range(value.ndim)]
    wide = [v.astype(np.float64).reshape(shape) for v in (scale, offset, mean, variance)]
    made = (value.astype(np.float64) - wide[2]) / np.sqrt(wide[3] + epsilon) * wide[0] + wide[1]
    return [made.astype(value.dtype)]


# -- shapes


def _result_shape(machine: Machine, op: Operation, sizes: Array | None = None) -> list[int]:
    kind = op.types[0]
    if sizes is not None:
        shape = [int(s) for s in np.reshape(sizes, -1)]
        machine.spend(*shape)
        return shape
    if None in (kind.shape or ()):
        raise Unknown(f"{op.name} of dynamic shape {kind.text} is not evaluated")
    return machine.shape(kind, ())


def _broadcast_in_dim(machine: Machine, op: Operation, known: Env) -> list[Array]:
    value, *sizes = operands(op, known)
    shape = _result_shape(machine, op, *sizes)
    wanted = [1] * len(shape)
    for d, size in zip(op.integers("broadcast_dimensions"), value.shape, strict=True):
        wanted[d] = size
    return [np.broadcast_to(value.reshape(wanted), shape).copy()]


def _iota(machine: Machine, op: Operation, known: Env) -> list[Array]:
    shape = _result_shape(machine, op, *operands(op, known))
    axis = op.integer("iota_dimension")
    line = np.arange(shape[axis]).reshape([-1 if d == axis else 1 for d in range(len(shape))])
    whole = np.broadcast_to(line, shape)
    element = machine.element(op.types[0])
    return [fit(whole.astype(machine.dtype(element)), element)]


def _reshape(machine: Machine, op: Operation, known: Env) -> list[Array]:
    value, *sizes = operands(op, known)
    if not sizes and None in (op.types[0].shape or ()):
        raise Unknown(f"{op.name} to {op.types[0].text} is not evaluated")
    return [value.reshape(_result_shape(machine, op, *sizes))]


def _transpose(machine: Machine, op: Operation, known: Env) -> list[Array]:
    return [known[op.operands[0]].transpose(op.integers("permutation"))]


def _slice(machine: Machine, op: Operation, known: Env) -> list[Array]:
    bounds = (op.integers(n) for n in ("start_indices", "limit_indices", "strides"))
    return [known[op.operands[0]][tuple(slice(*b) for b in zip(*bounds, strict=True))]]


def _starts(value: Array, sizes: Sequence[int], given: Sequence[Array]) -> list[int]:
    """Start of a dynamic slice, moved so that it fits."""
    return [
        min(max(int(start), 0), whole - size)
        for start, whole, size in zip(given, value.shape, sizes, strict=True)
    ]


def _dynamic_slice(machine: Machine, op: Operation, known: Env) -> list[Array]:
    value, *given = operands(op, known)
    sizes = op.integers("slice_sizes")
    starts = _starts(value, sizes, given)
    return [value[tuple(slice(a, a + n) for a, n in zip(starts, sizes, strict=True))]]


def _dynamic_update_slice(machine: Machine, op: Operation, known: Env) -> list[Array]:
    value, update, *given = operands(op, known)
    starts = _starts(value, update.shape, given)
    made = value.copy()
    made[tuple(slice(a, a + n) for a, n in zip(starts, update.shape, strict=True))] = update
    return [made]


def _pad(machine: Machine, op: Operation, known: Env) -> list[Array]:
    value, filling = operands(op, known)
    low, high, gaps = (
        op.integers(n) for n in ("edge_padding_low", "edge_padding_high", "interior_padding")
    )
    sizes = zip(value.shape, low, high, gaps, strict=True)
    machine.spend(*(max(s + a + b + max(s - 1, 0) * g, 0) for s, a, b, g in sizes))
    return [padded(value, low, high, gaps, filling)]


def _concatenate(machine: Machine, op: Operation, known: Env) -> list[Array]:
    return [np.concatenate(operands(op, known), op.integer("dimension"))]


def _reverse(machine: Machine, op: Operation, known: Env) -> list[Array]:
    return [np.flip(known[op.operands[0]], tuple(op.integers("dimensions")))]


def _dimension_size(machine: Machine, op: Operation, known: Env) -> list[Array]:
    return [np.int32(known[op.operands[0]].shape[op.integer("dimension")])]


def _bitcast(machine: Machine, op: Operation, known: Env) -> list[Array]:
    (value,) = operands(op, known)
    source, result = machine.element(op.taken[0]), machine.element(op.types[0])
    if machine.mode.wide and "float" in (source.family, result.family) and source != result:
        raise Unknown(f"{op.name} depends on the type of the program's own floats")
    if source.dtype.itemsize != result.dtype.itemsize or source.padded or result.padded:
        raise Unknown(f"{op.name} from {source.name} to {result.name} is not evaluated")
    return [value.view(result.dtype)]


# -- control flow


def _while(machine: Machine, op: Operation, known: Env) -> list[Any]:
    condition, body = (region[0] for region in op.regions)
    carried = [known[v] for v in op.operands]
    for _ in range(_MOST_STEPS):
        machine.budget.spend(1)
        if not bool(machine.inside(condition, known, carried)[0]):
            return carried
        carried = machine.inside(body, known, carried)
    raise Unknown(f"a loop of more than {_MOST_STEPS} steps is not evaluated")


def _if(machine: Machine, op: Operation, known: Env) -> list[Any]:
    chosen = 0 if bool(known[op.operands[0]]) else 1
    return machine.inside(op.regions[chosen][0], known, ())


def _case(machine: Machine, op: Operation, known: Env) -> list[Any]:
    index = int(known[op.operands[0]])
    chosen = index if 0 <= index < len(op.regions) else len(op.regions) - 1
    return machine.inside(op.regions[chosen][0], known, ())


def _map(machine: Machine, op: Operation, known: Env) -> list[Array]:
    """The body once, on whole tensors, as it computes on single elements."""
    return machine.inside(op.block, known, operands(op, known))


def _constant_like(machine: Machine, op: Operation, known: Env) -> list[Array]:
    value = known[op.operands[0]]
    return [np.full(value.shape, op.attributes["value"].value, value.dtype)]


def _tested(machine: Machine, op: Operation, known: Env) -> list[Array]:
    value = known[op.operands[0]].astype(np.float64)
    sign = {"chlo.is_neg_inf": -math.inf, "chlo.is_pos_inf": math.inf}.get(op.name)
    return [np.isinf(value) if sign is None else np.asarray(value == sign)]


def _same(machine: Machine, op: Operation, known: Env) -> list[Any]:
    return [known[v] for v in op.operands]


OPERATIONS: dict[str, Handler] = {
    **{f"stablehlo.{name}": _elementwise for name in _ELEMENTWISE},
    **{f"chlo.broadcast_{name}": _elementwise for name in _ELEMENTWISE},
    **{f"chlo.{name}": _chlo for name in _CHLO},
    **{f"stablehlo.shift_{name}": _shift for name in ("left", "right_arithmetic", "right_logical")},
    "chlo.broadcast_compare": _compare,
    "chlo.broadcast_select": _select,
    "chlo.constant_like": _constant_like,
    "chlo.is_inf": _tested,
    "chlo.is_neg_inf": _tested,
    "chlo.is_pos_inf": _tested,
    "chlo.square": _square,
    "stablehlo.batch_norm_inference": _batch_norm,
    "stablehlo.bitcast_convert": _bitcast,
    "stablehlo.broadcast_in_dim": _broadcast_in_dim,
    "stablehlo.case": _case,
    "stablehlo.clamp": _clamp,
    "stablehlo.compare": _compare,
    "stablehlo.complex": _complex,
    "stablehlo.concatenate": _concatenate,
    "stablehlo.convert": _convert,
    "stablehlo.count_leading_zeros": _leading_zeros,
    "stablehlo.dynamic_broadcast_in_dim": _broadcast_in_dim,
    "stablehlo.dynamic_iota": _iota,
    "stablehlo.dynamic_reshape": _reshape,
    "stablehlo.dynamic_slice": _dynamic_slice,
    "stablehlo.dynamic_update_slice": _dynamic_update_slice,
    "stablehlo.get_dimension_size": _dimension_size,
    "stablehlo.if": _if,
    "stablehlo.iota": _iota,
    "stablehlo.logistic": _logistic,
    "stablehlo.map": _map,
    "stablehlo.not": _not,
    "stablehlo.optimization_barrier": _same,
    "stablehlo.pad": _pad,
    "stablehlo.reshape": _reshape,
    "stablehlo.reverse": _reverse,
    "stablehlo.select": _select,
    "stablehlo.sign": _sign,
    "stablehlo.slice": _slice,
    "stablehlo.transpose": _transpose,
    "stablehlo.while": _while,
}
