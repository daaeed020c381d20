"""Tensors in their raw files: whole arrays, or pieces as numbers that numpy computes with."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iree_pilot.pipeline.program.program import ELEMENT_TYPES, NUMPY_ELEMENT_TYPES, Program, Tensor

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

#: The type of the numbers of a complex one.
_REAL = {"complex<f32>": "f32", "complex<f64>": "f64"}
#: Elements of a piece.
PIECE = 1 << 20


def numpy_dtype(name: str) -> np.dtype[Any]:
    """numpy's or ml_dtypes' type for an element type of IREE's name."""
    import ml_dtypes
    import numpy as np

    word = ELEMENT_TYPES[name].numpy
    return np.dtype(getattr(ml_dtypes, word, None) or word)


def load(directory: Path, tensor: Tensor) -> NDArray[Any]:
    """The whole tensor, in its own type; its file is relative to `directory`."""
    import numpy as np

    file = directory / tensor.file
    if not ELEMENT_TYPES[tensor.dtype].bits:
        return np.fromfile(file, numpy_dtype(tensor.dtype)).reshape(tensor.shape)
    elements = decoded(file.read_bytes(), tensor.dtype)
    return elements[: math.prod(tensor.shape)].reshape(tensor.shape)


def decoded(raw: bytes, dtype: str) -> NDArray[Any]:
    """The elements in raw bytes, in a row; of packed ones, all that fit into the bytes."""
    import numpy as np

    bits = ELEMENT_TYPES[dtype].bits
    if not bits:
        return np.frombuffer(bytearray(raw), numpy_dtype(dtype))
    packed = np.frombuffer(raw, np.uint8)
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    apart = ((packed[:, None] >> shifts) & ((1 << bits) - 1)).reshape(-1)
    # A conversion to a signed type saturates or wraps by release: the sign is set here.
    low = apart.astype(np.int8) - ((apart >> (bits - 1)).astype(np.int8) << bits)
    return (apart if dtype.startswith("u") else low).astype(numpy_dtype(dtype))


def encoded(values: NDArray[Any], dtype: str) -> bytes:
    """An array in its own type as raw bytes, packed where the type is."""
    import numpy as np

    bits = ELEMENT_TYPES[dtype].bits
    if not bits:
        return values.tobytes()
    per = 8 // bits
    apart = values.reshape(-1).astype(np.int8).astype(np.uint8) & ((1 << bits) - 1)
    apart = np.concatenate([apart, np.zeros(-len(apart) % per, np.uint8)]).reshape(-1, per)
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    packed: bytes = (apart << shifts).sum(axis=1).astype(np.uint8).tobytes()
    return packed


def examples(program: Program, directory: Path) -> dict[str, dict[str, NDArray[Any]]]:
    """The example inputs of a program's functions, by function and name."""
    return {
        function.name: {
            kind.name: load(directory, value)
            for kind, value in zip(function.inputs, function.example or (), strict=False)
        }
        for function in program.functions
    }


def save(values: NDArray[Any], directory: Path, file: str) -> Tensor:
    """Writes an array, in its own type, to a file of `directory`."""
    dtype = NUMPY_ELEMENT_TYPES[values.dtype.name]
    (directory / file).write_bytes(encoded(values, dtype))
    return Tensor(dtype=dtype, shape=values.shape, file=file)


def length(tensor: Tensor) -> int:
    """Number of scalars in the pieces of a tensor; a complex element counts as two."""
    return math.prod(tensor.shape) * (2 if ELEMENT_TYPES[tensor.dtype].family == "complex" else 1)


def read(file: Path, tensor: Tensor, start: int) -> Any:
    """A piece of a flattened tensor: PIECE numbers from `start`, or what is left.

    Floats of all widths become float64, complex elements two of these; integers and booleans stay.
    """
    import numpy as np

    family = ELEMENT_TYPES[tensor.dtype].family
    if family == "complex":
        dtype = np.dtype(np.float32 if tensor.dtype == "complex<f32>" else np.float64)
    elif family == "bool":
        dtype = np.dtype(np.uint8)
    else:
        dtype = numpy_dtype(tensor.dtype)
    if bits := ELEMENT_TYPES[tensor.dtype].bits:
        raw = np.fromfile(file, np.uint8, count=PIECE * bits // 8, offset=start * bits // 8)
        return decoded(raw.tobytes(), tensor.dtype)[: length(tensor) - start].astype(np.int8)
    values = np.fromfile(file, dtype, count=PIECE, offset=start * dtype.itemsize)
    if family == "bool":
        return values != 0
    return values if family == "int" else values.astype(np.float64)


def held(values: NDArray[Any], dtype: str) -> NDArray[Any]:
    """Numbers of a piece as a type that may be narrower holds them, in the form of `read`."""
    import numpy as np

    if ELEMENT_TYPES[dtype].family in ("int", "bool"):
        return values.astype(numpy_dtype(dtype))
    with np.errstate(over="ignore"):
        return values.astype(numpy_dtype(_REAL.get(dtype, dtype))).astype(np.float64)


def place(tensor: Tensor, position: int) -> tuple[int, ...]:
    """The index in the tensor of a number of its pieces."""
    rest = position // 2 if ELEMENT_TYPES[tensor.dtype].family == "complex" else position
    index = []
    for size in reversed(tensor.shape):
        rest, i = divmod(rest, size)
        index.append(i)
    return tuple(reversed(index))


def largest(dtype: str) -> float:
    """The largest finite number of a type of floats or complex numbers; infinite for others."""
    import ml_dtypes

    name = _REAL.get(dtype, dtype)
    known = ELEMENT_TYPES[name]
    return float(ml_dtypes.finfo(numpy_dtype(name)).max) if known.family == "float" else math.inf


def smallest_normal(dtype: str) -> float:
    """The smallest number that a floating-point type holds with all its digits."""
    import ml_dtypes

    return float(ml_dtypes.finfo(numpy_dtype(_REAL.get(dtype, dtype))).smallest_normal)


def step(values: Floats, dtype: str) -> Floats:
    """The distance between neighbouring numbers of a floating-point type around each value."""
    import ml_dtypes
    import numpy as np

    info = ml_dtypes.finfo(numpy_dtype(_REAL.get(dtype, dtype)))
    lowest = int(np.frexp(float(info.smallest_subnormal))[1]) - 1
    exponent = np.frexp(np.where(np.isfinite(values), values, 0.0))[1] - 1 - info.nmant
    distance: Floats = np.ldexp(1.0, np.where(values == 0, lowest, np.maximum(exponent, lowest)))
    return distance
