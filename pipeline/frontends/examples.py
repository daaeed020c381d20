"""Example inputs for programs that bring none, and the user's own from files. Uses numpy."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pipeline.errors import UsageError
from pipeline.program import ELEMENT_TYPES, Dim, Function, Tensor, TensorType

#: Size of a dynamic dimension of which nothing is known but that it is dynamic.
DYNAMIC = 4
_RAW = re.compile(r"((?:\d+x)*)([a-zA-Z][\w<>]*)=(?:@(.+)|(-?\d[\d.e+-]*))")


def random(function: Function, seed: int, directory: Path) -> tuple[Tensor, ...]:
    """Seeded values for each input, written under `directory`/data.

    Floats are standard normal, integers small and not negative (they may be indices), dynamic
    dimensions as small as their bounds allow but at least 4 where they may be.
    """
    import numpy

    generator = numpy.random.default_rng(seed)
    (directory / "data").mkdir(exist_ok=True)
    tensors = []
    for index, want in enumerate(function.inputs):
        shape = tuple(_size(d) for d in want.shape)
        values = _values(generator, want, shape)
        file = Path("data") / f"{function.name}.in{index}.bin"
        (directory / file).write_bytes(values.tobytes())
        tensors.append(Tensor(dtype=want.dtype, shape=shape, file=str(file)))
    return tuple(tensors)


def _size(dim: int | Dim) -> int:
    if isinstance(dim, int):
        return dim
    size = max(dim.min, DYNAMIC)
    return size if dim.max is None else min(size, dim.max)


def _values(generator: Any, want: TensorType, shape: tuple[int, ...]) -> Any:
    element = ELEMENT_TYPES[want.dtype]
    dtype = numpy_dtype(want.dtype)
    if element.family == "bool":
        return generator.integers(0, 2, shape).astype(dtype)
    if element.family == "int":
        return generator.integers(0, 8, shape).astype(dtype)
    values = generator.standard_normal(shape)
    if element.family == "complex":
        values = values + 1j * generator.standard_normal(shape)
    return values.astype(dtype)


def numpy_dtype(name: str) -> Any:
    """numpy's or ml_dtypes' dtype of an element type."""
    import ml_dtypes
    import numpy

    known = ELEMENT_TYPES[name].numpy
    return numpy.dtype(getattr(ml_dtypes, known, None) or known)


def ones(dtype: str, count: int) -> bytes:
    """So many ones of an element type, as raw bytes."""
    import numpy

    return numpy.ones(count, numpy_dtype(dtype)).tobytes()


def from_files(specs: tuple[str, ...], directory: Path) -> tuple[Tensor, ...]:
    """The user's inputs: `@file.npy`, `file.npy`, raw bytes as `2x3xbf16=@file.bin`, or one number
    throughout as `2x3xbf16=1`.

    Values without a raw file of the user's are written to one in `directory`. Raises UsageError for
    what cannot be read.
    """
    return tuple(_from_file(spec, index, directory) for index, spec in enumerate(specs))


def _from_file(spec: str, index: int, directory: Path) -> Tensor:
    raw = _RAW.fullmatch(spec)
    if raw is None and not spec.endswith(".npy"):
        raise UsageError(
            f"--input {spec} is neither an .npy file nor SHAPExDTYPE=@FILE or =NUMBER",
            advice="For example --input x.npy, --input 2x64xbf16=@x.bin or --input 4xf32=1",
        )
    if raw is not None and raw[4]:
        return _from_number(spec, raw, index, directory)
    path = Path(raw[3] if raw else spec.removeprefix("@"))
    if not path.is_file():
        raise UsageError(f"--input {spec}: no file {path}", advice="Check the path.")
    if raw is None:
        return _from_npy(path, index, directory)
    shape, dtype = _spelled(spec, raw)
    tensor = Tensor(dtype=dtype, shape=shape, file=str(path.resolve()))
    if path.stat().st_size != tensor.bytes:
        raise UsageError(
            f"--input {spec}: {path} has {path.stat().st_size} bytes, {tensor} needs "
            f"{tensor.bytes}",
            advice="Write the elements row-major and little-endian, without a header.",
        )
    return tensor


def _from_number(spec: str, raw: re.Match[str], index: int, directory: Path) -> Tensor:
    import numpy

    shape, dtype = _spelled(spec, raw)
    try:
        values = numpy.full(shape, float(raw[4])).astype(numpy_dtype(dtype))
    except ValueError as fault:
        raise UsageError(f"--input {spec}: {raw[4]} is not a number") from fault
    out = directory / f"input{index}.bin"
    out.write_bytes(values.tobytes())
    return Tensor(dtype=dtype, shape=shape, file=str(out.resolve()))


def _spelled(spec: str, raw: re.Match[str]) -> tuple[tuple[int, ...], str]:
    """(shape, dtype) of `2x3xbf16=...`."""
    dims, dtype = raw[1], raw[2]
    if dtype not in ELEMENT_TYPES:
        raise UsageError(
            f"--input {spec}: unknown element type {dtype}",
            advice=f"Known: {', '.join(ELEMENT_TYPES)}.",
        )
    return tuple(int(d) for d in dims.split("x") if d), dtype


def _from_npy(path: Path, index: int, directory: Path) -> Tensor:
    import numpy

    try:
        values = numpy.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as fault:
        raise UsageError(f"--input {path}: not a readable .npy file: {fault}") from fault
    by_numpy = {e.numpy: e.name for e in ELEMENT_TYPES.values()}
    dtype = by_numpy.get(values.dtype.name)
    if dtype is None:
        raise UsageError(
            f"--input {path}: dtype {values.dtype} has no IREE element type",
            advice=f"Known: {', '.join(by_numpy)}.",
        )
    out = directory / f"input{index}.bin"
    out.write_bytes(values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes())
    return Tensor(dtype=dtype, shape=tuple(values.shape), file=str(out.resolve()))
