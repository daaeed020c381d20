"""The numbers of a tensor constant in MLIR, of every element type that PyTorch has.

The bindings read neither resources nor bf16 and narrower floats: those are read from text.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from iree_pilot.pipeline.toolchain import dialects

Number = bool | int | float

_BYTECODE = b"ML\xefR"
_RESOURCE = re.compile(r'^\s*"?([^\s":]+)"?: "0x([0-9A-Fa-f]*)"', re.MULTILINE)
_NAMED = re.compile(r'dense_resource<"?([^">]+)"?>')
_BYTES = re.compile(r'dense<"0x([0-9A-Fa-f]*)">')
_TOKEN = re.compile(r"0x[0-9A-Fa-f]+|-?\d[\d.]*(?:[eE][+-]?\d+)?")
#: A resource begins with its alignment.
_HEADER_BYTES = 4


def parsed(file: Path) -> tuple[Any, str]:
    """(the module in a file of MLIR, text or bytecode, by the bindings; its text).

    Raises ValueError for what cannot be parsed.
    """
    from iree.compiler import ir

    dialects.complete()
    raw = file.read_bytes()
    binary = raw.startswith(_BYTECODE)
    text = "" if binary else raw.decode(errors="replace")
    try:
        module = ir.Module.parse(raw if binary else text)
    except ir.MLIRError as fault:
        said = str(fault).splitlines()
        first = next((line for line in said if "error: " in line), said[0])
        raise ValueError(f"it cannot be parsed here: {first}") from fault
    return module, text or module.operation.get_asm()


def resources(mlir: str) -> dict[str, bytes]:
    """The named blobs at the end of a module's text."""
    end = mlir.rpartition("{-#")[2] if "{-#" in mlir else ""
    return {n: bytes.fromhex(text)[_HEADER_BYTES:] for n, text in _RESOURCE.findall(end)}


def splat(attribute: Any) -> Number | None:
    """The one number that all elements of a constant are; None where they differ."""
    if not getattr(attribute, "is_splat", False):
        return None
    number: Number = attribute.get_splat_value().value
    return number


def numbers(attribute: Any, dtype: Any, blobs: Mapping[str, bytes]) -> list[Number]:
    """All numbers of a constant of torch's `dtype`, row-major. Raises as `values` does."""
    found = values(attribute, dtype, blobs)
    # Python's numbers are of narrow floats what they are of f32: the same.
    listed: list[Number] = (found.float() if _narrow(dtype) else found).tolist()
    return listed


def values(attribute: Any, dtype: Any, blobs: Mapping[str, bytes]) -> Any:
    """All elements of a constant as a flat tensor of torch's `dtype`, row-major, bit by bit.

    Raises KeyError for a resource that is not among `blobs`.
    """
    import numpy as np
    import torch

    text = str(attribute)
    if match := _NAMED.match(text):
        return _decoded(blobs[match[1]], dtype)
    with contextlib.suppress(TypeError):
        return torch.from_numpy(np.array(attribute)).reshape(-1)
    if match := _BYTES.match(text):
        return _decoded(bytes.fromhex(match[1]), dtype)
    tokens = _TOKEN.findall(text.rpartition(" : ")[0])
    return _decoded(b"".join(_raw(token, dtype) for token in tokens), dtype)


def _raw(token: str, dtype: Any) -> bytes:
    """One narrow float as its bytes: written in hexadecimal, or as a number."""
    import torch

    if "x" in token:
        return int(token, 16).to_bytes(dtype.itemsize, "little")
    one = torch.tensor([float(token)]).to(dtype)
    return one.view(torch.uint8).numpy().tobytes()


def _decoded(raw: bytes, dtype: Any) -> Any:
    import torch

    return torch.frombuffer(bytearray(raw), dtype=dtype) if raw else torch.empty(0, dtype=dtype)


def _narrow(dtype: Any) -> bool:
    return bool(dtype.is_floating_point and dtype.itemsize < 4)
