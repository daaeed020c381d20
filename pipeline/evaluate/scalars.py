"""What arith and math operations compute, on numpy arrays of any shape, in the types of the IR."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Array = Any
_UNSIGNED = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}
_SIGNED = {1: np.int8, 2: np.int16, 4: np.int32, 8: np.int64}


def unsigned(values: Array) -> Array:
    """The same bits as unsigned integers; booleans become 0 and 1."""
    if values.dtype == np.bool_:
        return values.astype(np.uint8)
    return values.view(_UNSIGNED[values.dtype.itemsize])


def _signed(values: Array) -> Array:
    """Integers as signed ones: of one bit, true is -1."""
    if values.dtype == np.bool_:
        return -values.astype(np.int8)
    return values.view(_SIGNED[values.dtype.itemsize])


def _within(function: Callable[..., Array]) -> Callable[..., Array]:
    """In the type of the operands: what numpy widens is rounded back."""

    def computed(*operands: Array) -> Array:
        return np.asarray(function(*operands)).astype(operands[0].dtype)

    return computed


def _wide(function: Callable[..., Array]) -> Callable[..., Array]:
    """In double precision, then in the type of the operands: for what float types of 8 and 16 bits
    have no function of their own for."""

    def computed(*operands: Array) -> Array:
        wide = function(*(o.astype(np.float64) for o in operands))
        return np.asarray(wide).astype(operands[0].dtype)

    return computed


def _as_unsigned(function: Callable[..., Array]) -> Callable[..., Array]:
    def computed(*operands: Array) -> Array:
        made = function(*(unsigned(o) for o in operands))
        return np.asarray(made).astype(unsigned(operands[0]).dtype).view(operands[0].dtype)

    return computed


def _truncated(a: Array, b: Array) -> Array:
    """Division towards zero."""
    safe = np.where(b == 0, 1, b)
    quotient = np.floor_divide(a, safe)
    return quotient + ((quotient < 0) & (quotient * safe != a))


def _upwards(a: Array, b: Array) -> Array:
    safe = np.where(b == 0, 1, b)
    quotient = np.floor_divide(a, safe)
    return quotient + (quotient * safe != a)


def _erf(x: Array) -> Array:
    import math

    return np.vectorize(math.erf, otypes=[np.float64])(x)


def _bits(function: Callable[[Array, Array], Array]) -> Callable[..., Array]:
    """A shift: by as many bits as there are or more gives anything, here 0."""

    def computed(a: Array, b: Array) -> Array:
        width = a.dtype.itemsize * 8
        return np.where(unsigned(b) < width, function(a, np.where(b < width, b, 0)), 0)

    return computed


def _select(condition: Array, a: Array, b: Array) -> Array:
    chosen: Array = np.where(condition, a, b)
    return chosen.astype(a.dtype)


OPERATIONS: dict[str, Callable[..., Array]] = {
    "arith.addf": _within(np.add),
    "arith.subf": _within(np.subtract),
    "arith.mulf": _within(np.multiply),
    "arith.divf": _within(np.divide),
    "arith.remf": _wide(np.fmod),
    "arith.negf": _within(np.negative),
    "arith.maximumf": _within(np.maximum),
    "arith.minimumf": _within(np.minimum),
    "arith.maxnumf": _within(np.fmax),
    "arith.minnumf": _within(np.fmin),
    "arith.addi": _within(np.add),
    "arith.subi": _within(np.subtract),
    "arith.muli": _within(np.multiply),
    "arith.divsi": _within(_truncated),
    "arith.divui": _as_unsigned(lambda a, b: a // np.where(b == 0, 1, b)),
    "arith.floordivsi": _within(lambda a, b: a // np.where(b == 0, 1, b)),
    "arith.ceildivsi": _within(_upwards),
    "arith.remsi": _within(lambda a, b: a - _truncated(a, b) * b),
    "arith.remui": _as_unsigned(lambda a, b: a % np.where(b == 0, 1, b)),
    "arith.andi": _within(np.bitwise_and),
    "arith.ori": _within(np.bitwise_or),
    "arith.xori": _within(np.bitwise_xor),
    "arith.shli": _within(_bits(np.left_shift)),
    "arith.shrsi": _within(_bits(np.right_shift)),
    "arith.shrui": _as_unsigned(_bits(np.right_shift)),
    "arith.maxsi": _within(np.maximum),
    "arith.minsi": _within(np.minimum),
    "arith.maxui": _as_unsigned(np.maximum),
    "arith.minui": _as_unsigned(np.minimum),
    "arith.select": _select,
    "math.absf": _within(np.abs),
    "math.absi": _within(np.abs),
    "math.atan": _wide(np.arctan),
    "math.atan2": _wide(np.arctan2),
    "math.ceil": _wide(np.ceil),
    "math.cos": _wide(np.cos),
    "math.copysign": _wide(np.copysign),
    "math.erf": _wide(_erf),
    "math.exp": _wide(np.exp),
    "math.exp2": _wide(np.exp2),
    "math.expm1": _wide(np.expm1),
    "math.floor": _wide(np.floor),
    "math.fma": _wide(lambda a, b, c: a * b + c),
    "math.ipowi": _within(np.power),
    "math.isnan": lambda a: np.isnan(a.astype(np.float64)),
    "math.log": _wide(np.log),
    "math.log1p": _wide(np.log1p),
    "math.log2": _wide(np.log2),
    "math.powf": _wide(np.power),
    "math.roundeven": _wide(np.rint),
    "math.round": _wide(lambda a: np.copysign(np.floor(np.abs(a) + 0.5), a)),
    "math.rsqrt": _wide(lambda a: 1 / np.sqrt(a)),
    "math.sin": _wide(np.sin),
    "math.sqrt": _wide(np.sqrt),
    "math.tan": _wide(np.tan),
    "math.tanh": _wide(np.tanh),
    "math.trunc": _wide(np.trunc),
}

#: Predicates of arith.cmpf: those that hold where an operand is NaN begin with `u`.
_COMPARED: dict[str, Callable[[Array, Array], Array]] = {
    "eq": np.equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "lt": np.less,
    "le": np.less_equal,
    "ne": np.not_equal,
}
_FLOATS = "false oeq ogt oge olt ole one ord ueq ugt uge ult ule une uno true"
_INTEGERS = "eq ne slt sle sgt sge ult ule ugt uge"


def compare_floats(predicate: int, a: Array, b: Array) -> Array:
    name = _FLOATS.split()[predicate]
    a, b = a.astype(np.float64), b.astype(np.float64)
    nan = np.isnan(a) | np.isnan(b)
    if name in ("false", "true"):
        return np.full(nan.shape, name == "true")
    if name in ("ord", "uno"):
        return nan if name == "uno" else ~nan
    found = _COMPARED[name[1:]](a, b)
    return found | nan if name[0] == "u" else found & ~nan


def compare_integers(predicate: int, a: Array, b: Array) -> Array:
    name = _INTEGERS.split()[predicate]
    if name in ("eq", "ne"):
        return _COMPARED[name](a, b)
    bits = unsigned if name[0] == "u" else _signed
    return _COMPARED[name[1:]](bits(a), bits(b))


CASTS = frozenset(
    f"arith.{name}"
    for name in (
        *("bitcast", "extui", "uitofp", "index_castui", "extsi", "sitofp", "index_cast"),
        *("extf", "truncf", "trunci", "fptosi", "fptoui"),
    )
)


def cast(name: str, values: Array, to: Any) -> Array:
    """The conversions of arith; raises KeyError for anything else."""
    if name == "arith.bitcast":
        return values.view(to)
    if name in ("arith.extui", "arith.uitofp", "arith.index_castui"):
        return unsigned(values).astype(to)
    if name in ("arith.extsi", "arith.sitofp", "arith.index_cast"):
        return _signed(values).astype(to)
    if name == "arith.trunci" and to == np.bool_:
        return (values & 1).astype(to)
    if name in ("arith.extf", "arith.truncf", "arith.trunci"):
        return values.astype(to)
    if name in ("arith.fptosi", "arith.fptoui"):
        whole = np.trunc(values.astype(np.float64))
        return np.nan_to_num(whole, posinf=0, neginf=0).astype(np.int64).astype(to)
    raise KeyError(name)
