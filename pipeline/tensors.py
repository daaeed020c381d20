"""Tensors in their raw files: whole arrays, or pieces as numbers that numpy computes with."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.program import ELEMENT_TYPES, Program, Tensor

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

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

    dtype = numpy_dtype(tensor.dtype)
    return np.fromfile(directory / tensor.file, dtype).reshape(tensor.shape)


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
    (directory / file).write_bytes(values.tobytes())
    dtype = next(e.name for e in ELEMENT_TYPES.values() if e.numpy == values.dtype.name)
    return Tensor(dtype=dtype, shape=values.shape, file=file)


def length(tensor: Tensor) -> int:
    """How many numbers the pieces of a tensor have; a complex element counts as two."""
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
    values = np.fromfile(file, dtype, count=PIECE, offset=start * dtype.itemsize)
    if family == "bool":
        return values != 0
    return values if family == "int" else values.astype(np.float64)


def place(tensor: Tensor, position: int) -> tuple[int, ...]:
    """The index in the tensor of a number of its pieces."""
    rest = position // 2 if ELEMENT_TYPES[tensor.dtype].family == "complex" else position
    index = []
    for size in reversed(tensor.shape):
        rest, i = divmod(rest, size)
        index.append(i)
    return tuple(reversed(index))


def step(values: Floats, dtype: str) -> Floats:
    """The distance between neighbouring numbers of a floating-point type around each value."""
    import ml_dtypes
    import numpy as np

    real = {"complex<f32>": "f32", "complex<f64>": "f64"}.get(dtype, dtype)
    info = ml_dtypes.finfo(numpy_dtype(real))
    lowest = int(np.frexp(float(info.smallest_subnormal))[1]) - 1
    exponent = np.frexp(np.where(np.isfinite(values), values, 0.0))[1] - 1 - info.nmant
    distance: Floats = np.ldexp(1.0, np.where(values == 0, lowest, np.maximum(exponent, lowest)))
    return distance
