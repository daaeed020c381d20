"""Element types of MLIR as numpy holds them.

Integers of a width that numpy lacks lie sign-extended in the next wider type; `fit` brings results
back to their width. Without a sign of their own (`i8`) they are held signed.
"""

from __future__ import annotations

import functools
import re
from typing import Any, Literal

import ml_dtypes
import msgspec
import numpy as np

Array = Any
Family = Literal["float", "int", "bool", "complex"]

_INTEGER = re.compile(r"(s|u)?i(\d+)")
FLOATS = {
    "f64": "float64",
    "f32": "float32",
    "f16": "float16",
    "bf16": "bfloat16",
    "f8E3M4": "float8_e3m4",
    "f8E4M3": "float8_e4m3",
    "f8E4M3FN": "float8_e4m3fn",
    "f8E4M3FNUZ": "float8_e4m3fnuz",
    "f8E4M3B11FNUZ": "float8_e4m3b11fnuz",
    "f8E5M2": "float8_e5m2",
    "f8E5M2FNUZ": "float8_e5m2fnuz",
    "f8E8M0FNU": "float8_e8m0fnu",
    "f6E2M3FN": "float6_e2m3fn",
    "f6E3M2FN": "float6_e3m2fn",
    "f4E2M1FN": "float4_e2m1fn",
}
_COMPLEX = {"complex<f32>": "complex64", "complex<f64>": "complex128"}


class Unknown(Exception):
    """Something that cannot be evaluated; the message is the reason."""


class ElementKind(msgspec.Struct, frozen=True):
    """One element type. bits: of an integer's value, else of its storage. unsigned: by its type."""

    name: str
    family: Family
    bits: int
    dtype: Any
    unsigned: bool = False

    @property
    def narrow(self) -> bool:
        """True if it is a float of 8 bits or fewer, to which programs round on purpose."""
        return self.family == "float" and self.dtype.itemsize == 1

    @property
    def wide(self) -> Any:
        """numpy's type that it is computed in where all floats are in double precision."""
        kinds = {"float": np.float64, "complex": np.complex128}
        return np.dtype(kinds.get(self.family, self.dtype))

    @property
    def padded(self) -> bool:
        """True if its values have fewer bits than what they lie in."""
        return self.family == "int" and self.bits != self.dtype.itemsize * 8


@functools.cache
def of(name: str) -> ElementKind:
    """The element type of that name. Raises Unknown."""
    if name == "i1":
        return ElementKind(name, "bool", 1, np.dtype(np.bool_))
    if name == "index":
        return ElementKind(name, "int", 64, np.dtype(np.int64))
    if match := _INTEGER.fullmatch(name):
        bits, unsigned = int(match[2]), match[1] == "u"
        held = next((width for width in (8, 16, 32, 64) if bits <= width), None)
        if held is not None:
            dtype = np.dtype(f"{'u' if unsigned else ''}int{held}")
            return ElementKind(name, "int", bits, dtype, unsigned)
    if name in FLOATS:
        word = FLOATS[name]
        dtype = np.dtype(getattr(ml_dtypes, word, None) or word)
        return ElementKind(name, "float", dtype.itemsize * 8, dtype)
    if name in _COMPLEX:
        dtype = np.dtype(_COMPLEX[name])
        return ElementKind(name, "complex", dtype.itemsize * 8, dtype)
    raise Unknown(f"elements of type {name} are not evaluated")


def fit(values: Array, element: ElementKind) -> Array:
    """Integers cut to the width of their type."""
    if not element.padded:
        return values
    by = element.dtype.itemsize * 8 - element.bits
    return (values << by) >> by


def zero_extended(values: Array, element: ElementKind) -> Array:
    """Same bits of narrow integers, padded with 0."""
    if element.family == "bool":
        return values.astype(np.int8)
    return values & ((1 << element.bits) - 1) if element.padded else values


def is_float(values: Array) -> bool:
    """True if an array is of floats; narrow ones are of no kind that numpy knows."""
    return values.dtype.kind not in "biuc"
