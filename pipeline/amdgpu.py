"""What the code in a module for AMD GPUs needs: registers, spills and memory, kernel by kernel.

A module holds one ELF file for each executable, and that describes its kernels in a note, as LLVM's
"User Guide for AMDGPU Backend" says (NT_AMDGPU_METADATA, a MessagePack map).
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from pathlib import Path

import msgspec

_MAGIC = b"\x7fELF\x02\x01"  # 64 bits, little-endian
_MACHINE = 224
_NOTES = 4
_METADATA = 32


class Kernel(msgspec.Struct, frozen=True, kw_only=True):
    """One kernel. vgprs, sgprs: vector and scalar registers of a wave; spills: of both, those that
    are kept in memory for lack of room. lds_bytes: local memory of a workgroup; scratch_bytes:
    private memory of a work item. workgroup: work items of one at most.
    """

    name: str
    vgprs: int
    sgprs: int
    spills: int
    lds_bytes: int
    scratch_bytes: int
    workgroup: int


class _Kernel(msgspec.Struct, rename=lambda name: f".{name}"):
    name: str
    vgpr_count: int = 0
    sgpr_count: int = 0
    vgpr_spill_count: int = 0
    sgpr_spill_count: int = 0
    group_segment_fixed_size: int = 0
    private_segment_fixed_size: int = 0
    max_flat_workgroup_size: int = 0


class _Metadata(msgspec.Struct):
    kernels: list[_Kernel] = msgspec.field(name="amdhsa.kernels", default_factory=list)


def kernels(module: Path) -> tuple[Kernel, ...]:
    """The kernels of a compiled module, in its order; none where it has no code for AMD GPUs.

    Raises OSError where the file cannot be read.
    """
    if module.stat().st_size == 0:
        return ()
    with (
        module.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
    ):
        return tuple(
            Kernel(
                name=kernel.name,
                vgprs=kernel.vgpr_count,
                sgprs=kernel.sgpr_count,
                spills=kernel.vgpr_spill_count + kernel.sgpr_spill_count,
                lds_bytes=kernel.group_segment_fixed_size,
                scratch_bytes=kernel.private_segment_fixed_size,
                workgroup=kernel.max_flat_workgroup_size,
            )
            for start in _elfs(data)
            for kernel in _described(data, start)
        )


def _elfs(data: mmap.mmap) -> Iterator[int]:
    """Where the ELF files of the GPU begin."""
    start = data.find(_MAGIC)
    while start >= 0:
        if data[start + 18 : start + 20] == _MACHINE.to_bytes(2, "little"):
            yield start
        start = data.find(_MAGIC, start + 1)


def _described(data: mmap.mmap, start: int) -> list[_Kernel]:
    """The kernels that the notes of an ELF file describe; none where they cannot be read."""
    try:
        (headers,) = struct.unpack_from("<Q", data, start + 32)
        size, count = struct.unpack_from("<HH", data, start + 54)
        for number in range(count):
            at = start + headers + number * size
            kind, _, offset, _, _, length = struct.unpack_from("<IIQQQQ", data, at)
            if kind == _NOTES:
                found = _notes(data[start + offset : start + offset + length])
                if found is not None:
                    return found.kernels
    except (struct.error, msgspec.MsgspecError):
        pass
    return []


def _notes(notes: bytes) -> _Metadata | None:
    at = 0
    while at < len(notes):
        name_size, size, kind = struct.unpack_from("<III", notes, at)
        begin = at + 12 + (name_size + 3) // 4 * 4
        if kind == _METADATA and notes[at + 12 : at + 12 + name_size] == b"AMDGPU\0":
            return msgspec.msgpack.decode(notes[begin : begin + size], type=_Metadata)
        at = begin + (size + 3) // 4 * 4
    return None
