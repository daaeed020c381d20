"""Example inputs for programs that bring none, and the user's own from files. Uses numpy."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import msgspec

from iree_pilot.pipeline.errors import UsageError
from iree_pilot.pipeline.processes import process
from iree_pilot.pipeline.program import tensors
from iree_pilot.pipeline.program.program import (
    ELEMENT_TYPES,
    NUMPY_ELEMENT_TYPES,
    Dim,
    Function,
    MadeUp,
    Passing,
    Tensor,
    TensorType,
)

#: Size of a dynamic dimension of which nothing is known but that it is dynamic.
DYNAMIC = 4
#: What numpy can have, and sizes in 64 bits.
_MOST_DIMENSIONS, _MOST_DIGITS = 64, 18
_RAW = re.compile(r"&?((?:\d+x)*)([a-zA-Z][\w<>]*)=(?:@(.+)|(.*))", re.DOTALL)
#: Without values: zeros. A type on its own, without `=`, is none.
_ZEROS = re.compile(r"&?((?:\d+x)+)([a-zA-Z][\w<>]*)()()")
_TRUTH = {"true": "1", "false": "0"}
#: The runtime's and MLIR's words for element types that have another name here.
_WORDS = {"cf64": "complex<f32>", "cf128": "complex<f64>"} | {
    f"si{bits}": f"i{bits}" for bits in (2, 4, 8, 16, 32, 64)
}


def random(
    function: Function, seed: int, directory: Path, chosen: MadeUp | None = None
) -> tuple[Tensor, ...]:
    """Seeded values for each input, whose types are known, written under `directory`/data.

    chosen: more of them, where the function needs it; its seed counts then.

    Floats are standard normal, integers small and not negative (they may be indices), dynamic
    dimensions as small as their bounds allow but at least 4 where they may be.
    """
    import numpy

    chosen = chosen or MadeUp(seed=seed)
    generator = numpy.random.default_rng(chosen.seed)
    (directory / "data").mkdir(exist_ok=True)
    made = []
    for index, want in enumerate(function.inputs):
        shape = tuple(size(d, chosen) for d in want.shape)
        values = _values(generator, want, shape, chosen)
        file = Path("data") / f"{function.name}.in{index}.bin"
        (directory / file).write_bytes(tensors.encoded(values, want.dtype))
        made.append(Tensor(dtype=want.dtype, shape=shape, file=str(file), passed=want.passed))
    return tuple(made)


def size(dim: int | Dim, chosen: MadeUp) -> int:
    """The size that a dimension gets."""
    if isinstance(dim, int):
        return dim
    if dim.symbol in chosen.sizes:
        return chosen.sizes[dim.symbol]
    least = max(dim.min, DYNAMIC)
    return least if dim.max is None else min(least, dim.max)


def _values(generator: Any, want: TensorType, shape: tuple[int, ...], chosen: MadeUp) -> Any:
    import numpy

    element = ELEMENT_TYPES[want.dtype]
    dtype = numpy_dtype(want.dtype)
    if want.name in chosen.numbers and want.passed == "scalar":
        return numpy.full(shape, chosen.numbers[want.name]).astype(dtype)
    if element.family == "bool":
        return generator.integers(0, 2, shape).astype(dtype)
    if element.family == "int":
        signed = not element.name.startswith("u")
        most = 1 << (element.bits - signed) if element.bits else 1 << 7
        least = min(max(chosen.least, -most if signed else 0), most - 1)
        return generator.integers(least, min(most, least + chosen.integers), shape).astype(dtype)
    values = generator.standard_normal(shape)
    if element.family == "complex":
        values = values + 1j * generator.standard_normal(shape)
    if element.name == "f8E8M0FNU":  # powers of two only
        values = numpy.exp2(values)
    return numpy.asarray(values).astype(dtype)


def numpy_dtype(name: str) -> Any:
    """numpy's or ml_dtypes' dtype of an element type."""
    import ml_dtypes
    import numpy

    known = ELEMENT_TYPES[name].numpy
    return numpy.dtype(getattr(ml_dtypes, known, None) or known)


def ones(dtype: str, count: int) -> bytes:
    """`count` ones of an element type, as raw bytes."""
    import numpy

    return tensors.encoded(numpy.ones(count, numpy_dtype(dtype)), dtype)


def from_files(
    specs: tuple[str, ...], directory: Path, seed: int | None = None
) -> tuple[Tensor, ...]:
    """The user's inputs: `@file.npy`, `file.npy`, raw bytes as `2x3xbf16=@file.bin`, numbers as
    `2x3xbf16=1` (one throughout, or all of them) or `2x3xbf16` (zeros); for a function that takes
    numbers on their own `5` or `0.5`, for a `!hal.buffer` an `&` in front; `(null)`.

    A number on its own is i64 or f64 until it is known what the function takes. Values without a
    raw file of the user's are written to one in `directory`. seed: a type without values stands for
    random ones of this seed, as `random` makes them, instead of zeros. Raises UsageError for what
    cannot be read.
    """
    made = [_from_file(spec, index, directory) for index, spec in enumerate(specs)]
    if seed is None:
        return tuple(made)
    wanted = Function(
        name="given",
        inputs=tuple(TensorType(name="", dtype=one.dtype, shape=one.shape) for one in made),
        outputs=(),
    )
    drawn = random(wanted, seed, directory)
    return tuple(
        msgspec.structs.replace(own, file=str((directory / one.file).resolve()))
        if _ZEROS.fullmatch(spec)
        else own
        for spec, own, one in zip(specs, made, drawn, strict=True)
    )


def file_of(spec: str) -> Path | None:
    """The file that an input is read from; None for one without."""
    raw = _raw(spec)
    if raw is None:
        return Path(spec.removeprefix("@")) if _names_npy(spec) else None
    return Path(raw[3]) if raw[3] else None


def _names_npy(spec: str) -> bool:
    return spec.lower().endswith(".npy")


def _raw(spec: str) -> re.Match[str] | None:
    """An input that begins with its type, in parts; None for any other."""
    raw = _RAW.fullmatch(spec) or _ZEROS.fullmatch(spec)
    named = raw is not None and _names_npy(spec) and not _is_type(raw[2])
    return None if named else raw


def _from_file(spec: str, index: int, directory: Path) -> Tensor:
    if spec == "(null)":
        return null(directory)
    raw = _raw(spec)
    if raw is None:
        word = _TRUTH.get(spec, spec)
        if _real(word) is not None:
            return _alone(word, index, directory)
    if raw is None and not _names_npy(spec):
        raise UsageError(
            f"--input {spec} is neither an .npy file, nor SHAPExDTYPE=@FILE or =NUMBERS, "
            "nor a number",
            advice="For example --input x.npy, --input 2x64xbf16=@x.bin, --input 4xf32=1 or "
            "--input 5",
        )
    passed: Passing = "buffer" if spec.startswith("&") else "view"
    if raw is not None and not raw[3]:
        return _from_numbers(spec, raw, index, directory)
    path = Path(raw[3] if raw else spec.removeprefix("@"))
    if not path.is_file():
        what = f"{path} is not a file" if path.exists() else f"no file {path}"
        raise UsageError(f"--input {spec}: {what}", advice="Check the path.")
    if raw is None:
        return _from_npy(path, index, directory)
    shape, dtype = _spelled(spec, raw)
    tensor = Tensor(dtype=dtype, shape=shape, file=str(path.resolve()), passed=passed)
    if path.stat().st_size != tensor.bytes:
        raise UsageError(
            f"--input {spec}: {path} has {path.stat().st_size} bytes, {tensor} needs "
            f"{tensor.bytes}",
            advice="Write the elements row-major and little-endian, without a header.",
        )
    return tensor


def _from_numbers(spec: str, raw: re.Match[str], index: int, directory: Path) -> Tensor:
    import numpy

    shape, dtype = _spelled(spec, raw)
    words = re.sub(r"[,\[\]]", " ", raw[4]).split() or ["0"]
    tensor = Tensor(dtype=dtype, shape=shape, file="")
    if tensor.bytes > (available := process.available_bytes()):
        raise UsageError(
            f"--input {spec}: {tensor} has {tensor.bytes:,} bytes, and {available:,} bytes of "
            "memory are available here",
            advice="Give the shape that the function takes.",
        )
    count = math.prod(shape)
    if any(_real(word) is None for word in words):
        raise UsageError(
            f"--input {spec}: {raw[4]} is not a number, or numbers between spaces",
            advice="For example --input 4xf32=1 or --input '4xf32=1 2 3 4'.",
        )
    if len(words) not in (1, count):
        raise UsageError(
            f"--input {spec}: {len(words)} numbers where {count} are needed",
            advice="Give all of them, or one that they all are.",
        )
    element = ELEMENT_TYPES[dtype]
    exact = element.family in ("int", "bool")
    bits = element.bits or 8 * element.size
    held = [n for n in map(_integer if exact else _real, words) if n is not None]
    if len(held) != len(words):
        raise UsageError(
            f"--input {spec}: {raw[4]} is not of type {dtype}",
            advice="Give whole numbers, or another dtype.",
        )
    # Types without sign hold numbers of either kind, and a bool is true for any but 0.
    if element.family == "int" and not all(-(1 << bits - 1) <= n < 1 << bits for n in held):
        raise UsageError(
            f"--input {spec}: {dtype} cannot hold {raw[4]}",
            advice="Give numbers that it can hold, or another dtype.",
        )
    wide = "uint64" if exact and max(held) >= 1 << 63 else "int64" if exact else "float64"
    values = numpy.array(held, wide).astype(numpy_dtype(dtype))
    values = numpy.broadcast_to(values, count) if len(words) == 1 else values
    out = directory / f"input{index}.bin"
    out.write_bytes(tensors.encoded(values, dtype))
    passed: Passing = "buffer" if spec.startswith("&") else "view"
    return Tensor(dtype=dtype, shape=shape, file=str(out.resolve()), passed=passed)


def _integer(word: str) -> int | None:
    """The integer that a word is, or None: `+1`, `0x10`, `010`."""
    try:
        return None if "_" in word else int(word, 16 if _is_hexadecimal(word) else 10)
    except ValueError:
        return None


def _real(word: str) -> float | None:
    """The number that a word is, or None, as C writes them: `+1`, `1e-3`, `0x1p3`, `-nan`."""
    try:
        if "_" in word:  # which Python allows
            return None
        return float.fromhex(word) if _is_hexadecimal(word) else float(word)
    except (ValueError, OverflowError):
        return None


def _is_hexadecimal(word: str) -> bool:
    return "0x" in word.lower()


def _alone(word: str, index: int, directory: Path) -> Tensor:
    """A number on its own."""
    import numpy

    number = _integer(word)
    try:
        value = numpy.asarray(_real(word) if number is None else number)
        value = value.astype("float64" if number is None else "int64", casting="safe")
    except (OverflowError, TypeError) as fault:
        raise UsageError(
            f"--input {word}: it does not fit into 64 bits",
            advice="Give a smaller number, or the bytes as SHAPExDTYPE=@FILE.",
        ) from fault
    out = directory / f"input{index}.bin"
    out.write_bytes(value.tobytes())
    dtype = NUMPY_ELEMENT_TYPES[value.dtype.name]
    return Tensor(dtype=dtype, shape=(), file=str(out.resolve()), passed="scalar")


def null(directory: Path) -> Tensor:
    """A null reference, for a fence."""
    out = directory / "null.bin"
    out.write_bytes(b"")
    return Tensor(dtype="i1", shape=(0,), file=str(out.resolve()), passed="null")


def _is_type(word: str) -> bool:
    return _WORDS.get(word, word) in ELEMENT_TYPES


def _spelled(spec: str, raw: re.Match[str]) -> tuple[tuple[int, ...], str]:
    """(shape, dtype) of `2x3xbf16=...`."""
    dims, dtype = raw[1], _WORDS.get(raw[2], raw[2])
    if dtype not in ELEMENT_TYPES:
        known = ", ".join(ELEMENT_TYPES)
        raise UsageError(f"--input {spec}: unknown element type {dtype}", advice=f"Known: {known}.")
    sizes = [d for d in dims.split("x") if d]
    if len(sizes) > _MOST_DIMENSIONS or any(len(d.lstrip("0")) > _MOST_DIGITS for d in sizes):
        shown = spec if len(spec) <= 80 else f"{spec[:80]}..."
        raise UsageError(
            f"--input {shown}: no array has such a shape",
            advice=f"Give at most {_MOST_DIMENSIONS} dimensions below 10^{_MOST_DIGITS}.",
        )
    return tuple(int(d) for d in sizes), dtype


def _from_npy(path: Path, index: int, directory: Path) -> Tensor:
    import numpy

    try:
        values = numpy.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as fault:
        why = fault.strerror if isinstance(fault, OSError) else ""
        raise UsageError(
            f"--input {path}: not a readable .npy file of numbers{f': {why}' if why else ''}",
            advice="Write it with numpy.save; raw bytes are given as SHAPExDTYPE=@FILE.",
        ) from fault
    dtype = NUMPY_ELEMENT_TYPES.get(values.dtype.name)
    if dtype is None:
        raise UsageError(
            f"--input {path}: dtype {values.dtype} has no IREE element type",
            advice=f"Known: {', '.join(NUMPY_ELEMENT_TYPES)}.",
        )
    out = directory / f"input{index}.bin"
    values = values.astype(values.dtype.newbyteorder("<"), copy=False)
    out.write_bytes(tensors.encoded(values, dtype))
    return Tensor(dtype=dtype, shape=tuple(values.shape), file=str(out.resolve()))
