"""Evaluation of arith, math and complex operations on numpy arrays of any shape.

Floats in the type of the operands, which is float64 where all are in double precision. What an
operation leaves undefined (a division by 0) is reported and filled with any number.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from iree_pilot.pipeline.evaluate.machine.elements import ElementKind, fit, zero_extended

Array = Any
#: Callback for undefined behaviour, which returns the value to use.
Undefined = Callable[[str], int]

_UNSIGNED = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}
_SIGNED = {1: np.int8, 2: np.int16, 4: np.int32, 8: np.int64}


def unsigned(values: Array) -> Array:
    """Same bits as unsigned integers; booleans become 0 and 1."""
    if values.dtype == np.bool_:
        return values.astype(np.uint8)
    return values.view(_UNSIGNED[values.dtype.itemsize])


def _signed(values: Array) -> Array:
    """Integers as signed ones: of one bit, true is -1."""
    if values.dtype == np.bool_:
        return -values.astype(np.int8)
    return values.view(_SIGNED[values.dtype.itemsize])


def _within(function: Callable[..., Array]) -> Callable[..., Array]:
    """Function that computes in the type of the operands: what numpy widens is rounded back."""

    def computed(*operands: Array) -> Array:
        return np.asarray(function(*operands)).astype(operands[0].dtype)

    return computed


def _wide(function: Callable[..., Array]) -> Callable[..., Array]:
    """Function that computes in double precision and rounds to the type of the operands, for those
    that numpy lacks for floats of 8 and 16 bits."""

    def computed(*operands: Array) -> Array:
        wide = function(*(o.astype(np.float64) for o in operands))
        return np.asarray(wide).astype(operands[0].dtype)

    return computed


def _as_unsigned(function: Callable[..., Array]) -> Callable[..., Array]:
    def computed(*operands: Array) -> Array:
        made = function(*(unsigned(o) for o in operands))
        return np.asarray(made).astype(unsigned(operands[0]).dtype).view(operands[0].dtype)

    return computed


def truncated(a: Array, b: Array) -> Array:
    """Division towards zero."""
    safe = np.where(b == 0, 1, b)
    quotient = np.floor_divide(a, safe)
    return quotient + ((quotient < 0) & (quotient * safe != a))


def _upwards(a: Array, b: Array) -> Array:
    safe = np.where(b == 0, 1, b)
    quotient = np.floor_divide(a, safe)
    return quotient + (quotient * safe != a)


def _each(function: Callable[[float], float]) -> Callable[[Array], Array]:
    return np.vectorize(function, otypes=[np.float64])


def _round(a: Array) -> Array:
    """Rounds to the nearest whole number, halves away from zero."""
    whole = np.trunc(a)
    return whole + np.where(np.abs(a - whole) >= 0.5, np.sign(a), 0)


def _counted(a: Array) -> Array:
    """The bits that are 1."""
    return np.bitwise_count(unsigned(a)).astype(a.dtype)


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
    "arith.divsi": _within(truncated),
    "arith.divui": _as_unsigned(lambda a, b: a // np.where(b == 0, 1, b)),
    "arith.ceildivui": _as_unsigned(_upwards),
    "arith.floordivsi": _within(lambda a, b: a // np.where(b == 0, 1, b)),
    "arith.ceildivsi": _within(_upwards),
    "arith.remsi": _within(lambda a, b: a - truncated(a, b) * b),
    "arith.remui": _as_unsigned(lambda a, b: a % np.where(b == 0, 1, b)),
    "arith.andi": _within(np.bitwise_and),
    "arith.ori": _within(np.bitwise_or),
    "arith.xori": _within(np.bitwise_xor),
    "arith.shli": _within(np.left_shift),
    "arith.shrsi": _within(np.right_shift),
    "arith.shrui": _as_unsigned(np.right_shift),
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
    "math.erf": _wide(_each(math.erf)),
    "math.exp": _wide(np.exp),
    "math.exp2": _wide(np.exp2),
    "math.expm1": _wide(np.expm1),
    "math.floor": _wide(np.floor),
    "math.fma": _wide(lambda a, b, c: a * b + c),
    "math.ipowi": _within(np.power),
    "math.acos": _wide(np.arccos),
    "math.acosh": _wide(np.arccosh),
    "math.asin": _wide(np.arcsin),
    "math.asinh": _wide(np.arcsinh),
    "math.atanh": _wide(np.arctanh),
    "math.cbrt": _wide(np.cbrt),
    "math.clampf": _within(lambda a, low, high: np.minimum(np.maximum(a, low), high)),
    "math.cosh": _wide(np.cosh),
    "math.ctpop": _counted,
    "math.erfc": _wide(_each(math.erfc)),
    "math.fpowi": lambda a, b: np.power(a.astype(np.float64), b).astype(a.dtype),
    "math.isfinite": lambda a: np.isfinite(a.astype(np.float64)),
    "math.isinf": lambda a: np.isinf(a.astype(np.float64)),
    "math.isnan": lambda a: np.isnan(a.astype(np.float64)),
    "math.log10": _wide(np.log10),
    "math.sinh": _wide(np.sinh),
    "math.log": _wide(np.log),
    "math.log1p": _wide(np.log1p),
    "math.log2": _wide(np.log2),
    "math.powf": _wide(np.power),
    "math.roundeven": _wide(np.rint),
    "math.round": _wide(lambda a: np.copysign(_round(a), a)),
    "math.rsqrt": _wide(lambda a: 1 / np.sqrt(a)),
    "math.sin": _wide(np.sin),
    "math.sqrt": _wide(np.sqrt),
    "math.tan": _wide(np.tan),
    "math.tanh": _wide(np.tanh),
    "math.trunc": _wide(np.trunc),
    "complex.abs": np.abs,
    "complex.add": _within(np.add),
    "complex.angle": np.angle,
    "complex.conj": np.conj,
    "complex.cos": np.cos,
    "complex.div": _within(np.divide),
    "complex.eq": np.equal,
    "complex.exp": np.exp,
    "complex.im": lambda a: a.imag,
    "complex.log": np.log,
    "complex.mul": _within(np.multiply),
    "complex.neg": np.negative,
    "complex.neq": np.not_equal,
    "complex.pow": _within(np.power),
    "complex.re": lambda a: a.real,
    "complex.sin": np.sin,
    "complex.sqrt": np.sqrt,
    "complex.sub": _within(np.subtract),
    "complex.tanh": np.tanh,
}
#: Operations that read integers as unsigned ones; comparisons do so by their predicate.
_OF_UNSIGNED = frozenset(
    f"arith.{name}" for name in ("divui", "remui", "shrui", "maxui", "minui", "ceildivui")
) | {"math.ctpop"}
_OF_BITS = frozenset(f"arith.{name}" for name in ("andi", "ori", "xori", "select"))
_DIVISIONS = frozenset(
    f"arith.{name}"
    for name in ("divsi", "divui", "floordivsi", "ceildivsi", "ceildivui", "remsi", "remui")
)
_SHIFTS = frozenset(f"arith.{name}" for name in ("shli", "shrsi", "shrui"))


def compute(
    name: str, operands: list[Array], source: ElementKind, result: ElementKind, undefined: Undefined
) -> Array:
    """One of OPERATIONS on operands of an element type, with a result of another."""
    if source.family == "bool" and name not in _OF_BITS:
        operands = [o.astype(np.int8) for o in operands]
        if name not in _OF_UNSIGNED:
            operands = [-o for o in operands]
    elif name in _OF_UNSIGNED:
        operands = [zero_extended(o, source) for o in operands]
    bad = None
    if name in _DIVISIONS:
        bad, why = operands[1] == 0, "a division by 0"
    elif name in _SHIFTS:
        bad, why = unsigned(operands[1]) >= source.bits, "a shift by all its bits or more"
        operands = [operands[0], np.where(bad, 0, operands[1]).astype(operands[1].dtype)]
    made = OPERATIONS[name](*operands)
    if bad is not None and np.any(bad):
        made = np.where(bad, undefined(why), made).astype(made.dtype)
    if result.family == "bool" and made.dtype != np.bool_:
        return (made & 1).astype(np.bool_)
    return fit(made, result)


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


_FROM_UNSIGNED = frozenset(f"arith.{name}" for name in ("extui", "uitofp", "index_castui"))
CASTS = _FROM_UNSIGNED | {
    f"arith.{name}"
    for name in (
        *("bitcast", "extsi", "sitofp", "index_cast", "extf", "truncf", "trunci"),
        *("fptosi", "fptoui"),
    )
}


def cast(
    name: str,
    values: Array,
    source: ElementKind,
    result: ElementKind,
    to: Any,
    undefined: Undefined,
) -> Array:
    """One of CASTS. to: numpy's type of the result, float64 where all floats are."""
    if name == "arith.bitcast":
        return values if source.dtype == result.dtype else values.view(to)
    if name in _FROM_UNSIGNED:
        return fit(unsigned(zero_extended(values, source)).astype(to), result)
    if name in ("arith.extsi", "arith.sitofp", "arith.index_cast"):
        return fit(_signed(values).astype(to), result)
    if name == "arith.trunci" and result.family == "bool":
        return (values & 1).astype(to)
    if name in ("arith.fptosi", "arith.fptoui"):
        return _whole(values, result, name == "arith.fptosi", undefined)
    return fit(values.astype(to), result)


def _whole(values: Array, result: ElementKind, signed: bool, undefined: Undefined) -> Array:
    """Floats as integers of a type, towards zero."""
    whole = np.trunc(values.astype(np.float64))
    low = -(2.0 ** (result.bits - 1)) if signed else 0.0
    high = 2.0 ** (result.bits - 1 if signed else result.bits)
    bad = ~((whole >= low) & (whole < high))
    if np.any(bad):
        filler = undefined(f"a number outside of {result.name} converted to it")
        whole = np.where(bad, filler, whole)
    if result.family == "bool":
        return whole.astype(np.int64) & 1 != 0
    wide = whole.astype(np.int64 if signed else np.uint64)
    return fit(wide.astype(_UNSIGNED[result.dtype.itemsize]).view(result.dtype), result)
