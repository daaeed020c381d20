"""The values of stored tensors, one at a time, and whether they are numbers; imports torch.

From safetensors, .irpa and .gguf files only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import safetensors
import torch

from models.checkpoints import Held
from models.weights import Fault
from pipeline.archive import Entry
from pipeline.program import ELEMENT_TYPES


def not_finite(held: Mapping[str, Held]) -> tuple[Fault, ...]:
    """The tensors that hold NaN or infinite values; reads all of them, one at a time."""
    faults = []
    for name, value in read(held):
        if not value.is_floating_point():
            continue
        bad = ~torch.isfinite(value.float() if value.dtype.itemsize == 1 else value)
        if bool(bad.any()):
            first = torch.nonzero(bad)[0].tolist()
            faults.append(
                Fault(
                    tensor=name,
                    file=held[name].file,
                    expected="finite numbers",
                    found=f"{int(bad.sum())} NaN or infinite of {value.numel()}, first at {first}",
                )
            )
    return tuple(faults)


def read(held: Mapping[str, Held]) -> Iterator[tuple[str, torch.Tensor]]:
    """The values of tensors by name, file by file."""
    files: dict[str, list[str]] = {}
    for name, one in held.items():
        files.setdefault(one.file, []).append(name)
    for file, names in files.items():
        if file.endswith(".safetensors"):
            with safetensors.safe_open(file, framework="pt") as opened:
                for name in names:
                    yield name, opened.get_tensor(name)
        else:
            yield from _read_archive(file, {name: held[name].entry for name in names})


def _read_archive(file: str, entries: Mapping[str, Entry]) -> Iterator[tuple[str, torch.Tensor]]:
    """From .irpa and .gguf, as IREE's runtime reads them; raw bytes where no type is told."""
    from iree.runtime import ParameterIndex

    index = ParameterIndex()
    index.load(file)
    for name, stored in index.items():
        if name not in entries:
            continue
        entry = entries[name]
        if stored.is_file:
            raw = bytes(stored.file_view)
        else:
            raw = stored.splat_pattern * (stored.length // len(stored.splat_pattern))
        value = torch.frombuffer(bytearray(raw), dtype=torch.uint8)
        if entry.shape is not None:
            dtype = getattr(torch, ELEMENT_TYPES[entry.dtype or "ui8"].torch)
            value = value.view(dtype).reshape(entry.shape)
        yield name, value
