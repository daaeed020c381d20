"""PyTorch's tensors in raw files, as `program.Tensor` describes them. Imports torch."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import torch

from iree_pilot.pipeline.errors import UsageError
from iree_pilot.pipeline.program.program import ELEMENT_TYPES, TORCH_ELEMENT_TYPES, Tensor

_HERE = Path()
#: Alignment of torch's own tensors: the kernels' results may depend on it.
_ALIGNMENT = 64


def element_type(dtype: torch.dtype, name: str) -> str:
    """IREE's name of a dtype. Raises UsageError, with the tensor's name, where it has none."""
    known = TORCH_ELEMENT_TYPES.get(str(dtype).removeprefix("torch."))
    if known is None:
        raise UsageError(
            f"tensor {name} has dtype {dtype}, which IREE programs cannot take or return",
            advice=f"Known: {', '.join(TORCH_ELEMENT_TYPES)}.",
        )
    return known


def save(value: torch.Tensor, directory: Path, file: str) -> Tensor:
    """Writes a tensor to a file of `directory`."""
    raw = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    with (directory / file).open("wb") as out:
        raw.numpy().tofile(out)
    dtype = element_type(value.dtype, Path(file).stem)
    return Tensor(dtype=dtype, shape=tuple(value.shape), file=file)


class TensorFiles(NamedTuple):
    """Files of a directory, the names of which all begin alike."""

    directory: Path
    stem: str

    def save(self, values: Iterable[torch.Tensor], what: str) -> tuple[Tensor, ...]:
        """Writes tensors that are of one kind, such as a function's outputs."""
        names = (f"{self.stem}{what}{index}.bin" for index in itertools.count())
        return tuple(save(v, self.directory, name) for v, name in zip(values, names, strict=False))


def load(tensor: Tensor, directory: Path = _HERE) -> torch.Tensor:
    """Reads a tensor whole."""
    raw = bytearray((directory / tensor.file).read_bytes())
    dtype = _torch(tensor.dtype)
    if not raw:
        return torch.empty(tensor.shape, dtype=dtype)
    return torch.frombuffer(raw, dtype=dtype).reshape(tensor.shape)


def mapped(file: Path, dtype: str, shape: tuple[int, ...], offset: int = 0) -> torch.Tensor:
    """A tensor whose bytes begin at `offset` of a file, read as they are used. Not to write to."""
    count = math.prod(shape) * ELEMENT_TYPES[dtype].size
    if not count:
        return torch.empty(shape, dtype=_torch(dtype))
    whole = torch.from_file(str(file), shared=False, size=offset + count, dtype=torch.uint8)
    raw = whole[offset:]
    if raw.data_ptr() % _ALIGNMENT:
        raw = raw.clone()
    return raw.view(_torch(dtype)).reshape(shape)


def _torch(dtype: str) -> torch.dtype:
    name = ELEMENT_TYPES[dtype].torch
    if not name:
        raise UsageError(f"PyTorch does not compute with {dtype}")
    known: torch.dtype = getattr(torch, name)
    return known
