"""The values of stored tensors, and whether they are numbers; imports torch.

From safetensors, .irpa and .gguf files only. However large a file is, no more of it is in memory
than a tensor, or where values are only looked at, a piece of one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import torch

from iree_pilot.models.weights.checkpoints import CheckpointTensor
from iree_pilot.models.weights.compare import TensorFault
from iree_pilot.pipeline.program.archive import ArchiveEntry
from iree_pilot.pipeline.program.program import ELEMENT_TYPES

_PIECE_BYTES = 32 * 2**20


def not_finite(held: Mapping[str, CheckpointTensor]) -> tuple[TensorFault, ...]:
    """The tensors that hold NaN or infinite values; reads all of them, a piece at a time."""
    faults = []
    for name, one in held.items():
        if not _dtype(one.entry).is_floating_point:
            continue
        bad, first = 0, 0
        for begin, piece in _pieces(one):
            values = piece.float() if piece.dtype.itemsize == 1 else piece
            if bool(torch.stack(torch.aminmax(values)).isfinite().all()):  # one pass, no copy
                continue
            places = torch.nonzero(~torch.isfinite(values))
            first = first if bad else begin + int(places[0])
            bad += len(places)
        if bad:
            shape = one.entry.shape or ()
            index = [int(i) for i in torch.unravel_index(torch.tensor(first), shape)]
            faults.append(
                TensorFault(
                    kind="values",
                    tensor=name,
                    file=one.file,
                    expected="finite numbers",
                    found=f"{bad} NaN or infinite of {math.prod(shape)}, first at {index}",
                )
            )
    return tuple(faults)


def untied(
    held: Mapping[str, CheckpointTensor], ties: Iterable[Sequence[str]]
) -> tuple[TensorFault, ...]:
    """Tensors that are held twice with other values, though they are one in the model.

    held: by the model's names. ties: groups of names of one tensor.
    """
    faults = []
    for group in ties:
        first, *others = [name for name in group if name in held] or [""]
        faults += [
            TensorFault(
                kind="tied",
                tensor=name,
                file=held[name].file,
                expected=f"the values of {first}, with which it is tied",
                found="other values",
            )
            for name in others
            if not _equal(held[first], held[name])
        ]
    return tuple(faults)


def _equal(one: CheckpointTensor, other: CheckpointTensor) -> bool:
    """True if two tensors of one shape have the same values."""
    if one.entry.dtype != other.entry.dtype:
        return torch.equal(read(one).double(), read(other).double())
    pieces = zip(_pieces(one), _pieces(other), strict=True)
    return all(torch.equal(mine.double(), yours.double()) for (_, mine), (_, yours) in pieces)


def read(one: CheckpointTensor) -> torch.Tensor:
    """A tensor's value; raw bytes where its file tells no type."""
    if one.entry.offset is None:
        return _splat(one)
    with Path(one.file).open("rb") as file:
        file.seek(one.entry.offset)
        raw = bytearray(one.entry.bytes or 0)
        file.readinto(raw)
    if not raw:
        return torch.empty(one.entry.shape or (0,), dtype=_dtype(one.entry))
    value = torch.frombuffer(raw, dtype=_dtype(one.entry))
    return value if one.entry.shape is None else value.reshape(one.entry.shape)


def _pieces(one: CheckpointTensor) -> Iterator[tuple[int, torch.Tensor]]:
    """A tensor's values, flat, with the index of the first of each piece."""
    entry, dtype = one.entry, _dtype(one.entry)
    if entry.offset is None:
        value = _splat(one).reshape(-1)
        yield from [(0, value)] if len(value) else []
        return
    buffer = bytearray(min(_PIECE_BYTES, entry.bytes or 0))
    with Path(one.file).open("rb") as file:
        file.seek(entry.offset)
        done = 0
        while done < (entry.bytes or 0):
            size = min(len(buffer), (entry.bytes or 0) - done)
            file.readinto(memoryview(buffer)[:size])
            values = torch.frombuffer(buffer, dtype=dtype)
            yield done // dtype.itemsize, values[: size // dtype.itemsize]
            done += size


def _splat(one: CheckpointTensor) -> torch.Tensor:
    """A tensor of which its .irpa file holds one repeated pattern."""
    from iree.runtime import ParameterIndex

    index = ParameterIndex()
    index.load(one.file)
    stored = next(s for name, s in index.items() if name == one.name)
    raw = stored.splat_pattern * (stored.length // len(stored.splat_pattern))
    value = torch.frombuffer(bytearray(raw), dtype=_dtype(one.entry))
    return value if one.entry.shape is None else value.reshape(one.entry.shape)


def _dtype(entry: ArchiveEntry) -> torch.dtype:
    """ui8 where the file tells no type, or one that torch does not have."""
    known = ELEMENT_TYPES.get(entry.dtype or "") if entry.shape is not None else None
    dtype: torch.dtype = getattr(torch, (known or ELEMENT_TYPES["ui8"]).torch)
    return dtype
