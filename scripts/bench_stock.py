"""Result of IREE's own tools for a program: does it compile, does it run?"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from iree_pilot.pipeline.processes import process
from iree_pilot.pipeline.processes.process import Limits
from iree_pilot.pipeline.toolchain.toolchain import Toolchain

#: Limits of one compile or call.
_LIMITS = Limits(seconds=120.0)
_WIDTHS = {"bf16": 16, "index": 64, "i1": 8}
_FP8 = "f8"
_SAFETENSORS = {"f64": "F64", "f32": "F32", "f16": "F16", "bf16": "BF16"} | {
    f"i{bits}": f"I{bits}" for bits in (8, 16, 32, 64)
}


class Call(msgspec.Struct, frozen=True):
    """A public function and its inputs as `iree-run-module` takes them after `--input=`."""

    function: str
    inputs: tuple[str, ...]


class Stock(msgspec.Struct, frozen=True, kw_only=True):
    """compiles: `iree-compile` takes it; runs: all functions can be called. said: why not."""

    compiles: bool
    runs: bool
    said: str = ""


def ask(
    mlir: Path,
    calls: Sequence[Call],
    archives: Mapping[str, Path],
    flags: Sequence[str],
    toolchain: Toolchain,
    place: Path,
) -> Stock:
    """Compiles a program and calls each of its functions. archives: by scope."""
    module = place / "stock.vmfb"
    said = _did([toolchain.compiler, mlir, *flags, "-o", module], place)
    if said is not None:
        return Stock(compiles=False, runs=False, said=said)
    run: list[str | Path] = [
        toolchain.tool("iree-run-module"),
        f"--module={module}",
        "--device=local-sync",
        *(f"--parameters={scope}={archive}" for scope, archive in archives.items()),
    ]
    for call in calls:
        named = f"--function={call.function}"
        said = _did([*run, named, *(f"--input={given}" for given in call.inputs)], place)
        if said is not None:
            return Stock(compiles=True, runs=False, said=f"{call.function}: {said}")
    return Stock(compiles=True, runs=bool(calls))


def _did(argv: Sequence[str | Path], place: Path) -> str | None:
    """Output of the command if it fails, else None."""
    stderr = place / "stock.stderr.txt"
    outcome = process.run(argv, stdout=place / "stock.stdout.txt", stderr=stderr, limits=_LIMITS)
    if outcome.ok:
        return None
    lines = stderr.read_text(errors="replace").splitlines()
    first = next((line for line in lines if " error: " in line), lines[0] if lines else "")
    return first or outcome.ended_by


def split(kind: str) -> tuple[tuple[int, ...], str]:
    """(shape, element type) of `4x8xf32`; of a scalar the shape is empty."""
    *sizes, dtype = kind.split("x") if not kind.startswith("index") else [kind]
    return tuple(map(int, sizes)), dtype


def width(dtype: str) -> int:
    """Bits that an element takes in a buffer."""
    if dtype.startswith(_FP8):
        return 8
    return _WIDTHS.get(dtype) or int(dtype[1:])


def values(kind: str, seed: int) -> bytes:
    """Seeded elements as they lie in a buffer: floats about 1 in size, integers from 0 to 7."""
    import ml_dtypes
    import numpy

    shape, dtype = split(kind)
    draw, count = numpy.random.default_rng(seed), math.prod(shape)
    if dtype == "i4":
        return bytes(draw.integers(0, 256, (count + 1) // 2, dtype=numpy.uint8))
    if dtype == "i1":
        return bytes(draw.integers(0, 2, count, dtype=numpy.uint8))
    if dtype[0] == "i":
        return draw.integers(0, 8, count).astype(f"int{width(dtype)}").tobytes()
    names = {"bf16": "bfloat16", "f8E4M3FN": "float8_e4m3fn", "f8E5M2": "float8_e5m2"}
    names |= {"f8E4M3FNUZ": "float8_e4m3fnuz", "f8E5M2FNUZ": "float8_e5m2fnuz"}
    name = names.get(dtype)
    made = numpy.dtype(getattr(ml_dtypes, name) if name else f"float{width(dtype)}")
    return draw.standard_normal(count).astype(made).tobytes()


def given(kind: str, file: Path, seed: int) -> str:
    """An input of a type, its values in `file`; a scalar is written out."""
    shape, dtype = split(kind)
    if not shape:
        return "1.5" if dtype[0] in "fb" else "1"
    file.write_bytes(values(kind, seed))
    return f"{kind}=@{file}"


def archive(file: Path, tensors: Mapping[str, str]) -> Path:
    """A safetensors file of tensors (types by name); what it has no name for as bytes."""
    header, data = {}, b""
    for name, kind in tensors.items():
        shape, dtype = split(kind)
        raw = values(kind, len(data))
        known = _SAFETENSORS.get(dtype)
        header[name] = {
            "dtype": known or "U8",
            "shape": shape if known or dtype != "i4" else (len(raw),),
            "data_offsets": (len(data), len(data) + len(raw)),
        }
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    file.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return file
