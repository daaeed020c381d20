"""What the code in a module for AMD GPUs needs: registers, memory and so on, kernel by kernel.

A module holds one ELF file for each executable, and that describes its kernels in a note, as LLVM's
"User Guide for AMDGPU Backend" says (NT_AMDGPU_METADATA, a MessagePack map).
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from pathlib import Path

import msgspec

from iree_pilot.pipeline.inspect.occupancy import Occupancy, chip_of, occupancy

_MAGIC = b"\x7fELF\x02\x01"  # 64 bits, little-endian
_MACHINE = 224
_NOTES = 4
_METADATA = 32


class Kernel(msgspec.Struct, frozen=True, kw_only=True):
    """One kernel. vgprs, sgprs: vector and scalar registers of a wave; spills: of both, those that
    are kept in memory for lack of room. lds_bytes: local memory of a workgroup; scratch_bytes:
    private memory of a work item. workgroup: work items of one at most. chip: what it is made for
    (`gfx942`). occupancy: None where the chip's sizes are not known.
    """

    name: str
    vgprs: int
    sgprs: int
    spills: int
    lds_bytes: int
    scratch_bytes: int
    workgroup: int
    chip: str = ""
    occupancy: Occupancy | None = None


class _Kernel(msgspec.Struct, rename=lambda name: f".{name}"):
    name: str
    vgpr_count: int = 0
    sgpr_count: int = 0
    vgpr_spill_count: int = 0
    sgpr_spill_count: int = 0
    group_segment_fixed_size: int = 0
    private_segment_fixed_size: int = 0
    max_flat_workgroup_size: int = 0
    wavefront_size: int = 0
    workgroup_processor_mode: int = 0


class _Metadata(msgspec.Struct):
    target: str = msgspec.field(name="amdhsa.target", default="")
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
            _kernel(kernel, chip_of(described.target))
            for start in _elfs(data)
            for described in [_described(data, start)]
            for kernel in described.kernels
        )


def _kernel(found: _Kernel, chip: str) -> Kernel:
    return Kernel(
        name=found.name,
        vgprs=found.vgpr_count,
        sgprs=found.sgpr_count,
        spills=found.vgpr_spill_count + found.sgpr_spill_count,
        lds_bytes=found.group_segment_fixed_size,
        scratch_bytes=found.private_segment_fixed_size,
        workgroup=found.max_flat_workgroup_size,
        chip=chip,
        occupancy=occupancy(
            chip,
            wavefront=found.wavefront_size,
            vgprs=found.vgpr_count,
            sgprs=found.sgpr_count,
            lds_bytes=found.group_segment_fixed_size,
            workgroup=found.max_flat_workgroup_size,
            wgp=bool(found.workgroup_processor_mode),
        ),
    )


def _elfs(data: mmap.mmap) -> Iterator[int]:
    """Where the ELF files of the GPU begin."""
    start = data.find(_MAGIC)
    while start >= 0:
        if data[start + 18 : start + 20] == _MACHINE.to_bytes(2, "little"):
            yield start
        start = data.find(_MAGIC, start + 1)


def _described(data: mmap.mmap, start: int) -> _Metadata:
    """What the notes of an ELF file describe; no kernels where they cannot be read."""
    try:
        (headers,) = struct.unpack_from("<Q", data, start + 32)
        size, count = struct.unpack_from("<HH", data, start + 54)
        for number in range(count):
            at = start + headers + number * size
            kind, _, offset, _, _, length = struct.unpack_from("<IIQQQQ", data, at)
            if kind == _NOTES:
                found = _notes(data[start + offset : start + offset + length])
                if found is not None:
                    return found
    except (struct.error, msgspec.MsgspecError):
        pass
    return _Metadata()


def _notes(notes: bytes) -> _Metadata | None:
    at = 0
    while at < len(notes):
        name_size, size, kind = struct.unpack_from("<III", notes, at)
        begin = at + 12 + (name_size + 3) // 4 * 4
        if kind == _METADATA and notes[at + 12 : at + 12 + name_size] == b"AMDGPU\0":
            return msgspec.msgpack.decode(notes[begin : begin + size], type=_Metadata)
        at = begin + (size + 3) // 4 * 4
    return None
