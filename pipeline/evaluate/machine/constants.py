"""Constants of MLIR as numpy arrays, of every element type."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from iree_pilot.pipeline.evaluate.machine import elements
from iree_pilot.pipeline.evaluate.machine.elements import Array, ElementKind, Unknown
from iree_pilot.pipeline.evaluate.machine.ir import read_type

_RESOURCE = re.compile(r'dense_resource<"?([^">]+)"?>')
_HEX = re.compile(r'dense<"0x([0-9A-Fa-f]*)"> : ')
_TOKEN = re.compile(r"0x[0-9A-Fa-f]+|-?\d[\d.]*(?:[eE][+-]?\d+)?|true|false")


def values(attribute: Any, blobs: Mapping[str, bytes]) -> tuple[Array, ElementKind]:
    """(a constant in its own type, that type). Raises Unknown.

    blobs: the module's resources, see `torch_dialect.literals.resources`.
    """
    from iree.compiler import ir

    if isinstance(attribute, ir.BoolAttr):
        return np.bool_(attribute.value), elements.of("i1")
    if isinstance(attribute, ir.FloatAttr):
        element = elements.of(str(attribute.type))
        return np.asarray(attribute.value, np.float64).astype(element.dtype), element
    if isinstance(attribute, ir.IntegerAttr):
        element = elements.of(str(attribute.type))
        return _integer(attribute.value, element), element
    kind = read_type(attribute.type) if hasattr(attribute, "type") else None
    if kind is None or kind.shape is None:
        raise Unknown(f"the constant {str(attribute)[:80]} is not evaluated")
    element = elements.of(kind.element)
    shape = tuple(size or 0 for size in kind.shape)
    if getattr(attribute, "is_splat", False):
        return _splat(attribute, shape, element), element
    text = str(attribute)
    if match := _RESOURCE.match(text):
        if match[1] not in blobs:
            raise Unknown(f"the resource {match[1]} is not in the file")
        return _decoded(blobs[match[1]], shape, element), element
    if match := _HEX.match(text):
        return _decoded(bytes.fromhex(match[1]), shape, element), element
    try:
        found = np.array(attribute)
    except (TypeError, ValueError):
        found = _listed(text, element)
    made = np.asarray(found)
    if made.dtype == object or made.size != int(np.prod(shape, dtype=np.int64)):
        raise Unknown(f"the constant {text[:80]} is not evaluated")
    return made.reshape(shape).astype(element.dtype), element


def _integer(value: int, element: ElementKind) -> Array:
    bits = element.dtype.itemsize * 8
    raw = np.array(value & ((1 << bits) - 1), f"uint{bits}")
    return elements.fit(raw.view(element.dtype), element)


def _splat(attribute: Any, shape: tuple[int, ...], element: ElementKind) -> Array:
    text = str(attribute)
    if element.family == "complex":
        parts = _TOKEN.findall(text.rpartition(" : ")[0])
        return np.full(shape, complex(*map(float, parts)), element.dtype)
    one = attribute.get_splat_value().value
    if element.family == "int":
        return np.full(shape, _integer(int(one), element), element.dtype)
    return np.full(shape, np.asarray(one, np.float64).astype(element.dtype), element.dtype)


def _decoded(raw: bytes, shape: tuple[int, ...], element: ElementKind) -> Array:
    count = int(np.prod(shape, dtype=np.int64))
    if element.family == "bool":
        packed = len(raw) < count
        held = np.frombuffer(raw, np.uint8)
        flags = np.unpackbits(held, bitorder="little")[:count] if packed else held != 0
        return flags.astype(np.bool_).reshape(shape)
    found = np.frombuffer(raw, element.dtype)
    if found.size == 1 and count != 1:
        return np.full(shape, found[0], element.dtype)
    return elements.fit(found, element).reshape(shape)


def _listed(text: str, element: ElementKind) -> Array:
    tokens = _TOKEN.findall(text.rpartition(" : ")[0])
    if element.family == "complex":
        pairs = zip(tokens[::2], tokens[1::2], strict=True)
        return np.array([complex(float(a), float(b)) for a, b in pairs], element.dtype)
    return np.array([_read(token, element) for token in tokens], element.dtype)


def _read(token: str, element: ElementKind) -> Any:
    if token in ("true", "false"):
        return token == "true"
    if element.family == "int":
        return _integer(int(token, 0), element)
    if token.startswith("0x"):
        raw = int(token, 16).to_bytes(element.dtype.itemsize, "little")
        return np.frombuffer(raw, element.dtype)[0]
    return np.asarray(float(token), np.float64).astype(element.dtype)
