"""Resource usage of code for AMD GPUs: registers, memory and so on, kernel by kernel.

A module holds one ELF file for each executable, and that describes its kernels in a note, as LLVM's
"User Guide for AMDGPU Backend" says (NT_AMDGPU_METADATA, a MessagePack map).
"""

from __future__ import annotations

import io
import mmap
from collections.abc import Iterator
from pathlib import Path

import msgspec

from iree_pilot.pipeline.inspect.occupancy import Needs, Occupancy, chip_of, occupancy

_MAGIC = b"\x7fELF\x02\x01"  # 64 bits, little-endian
_MACHINE = 224
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
            for described in map(_described, _elfs(data))
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
            Needs(
                wavefront=found.wavefront_size,
                vgprs=found.vgpr_count,
                sgprs=found.sgpr_count,
                lds_bytes=found.group_segment_fixed_size,
                workgroup=found.max_flat_workgroup_size,
                wgp=bool(found.workgroup_processor_mode),
            ),
        ),
    )


def _elfs(data: mmap.mmap) -> Iterator[bytes]:
    """The ELF files of the GPU, each with what there is up to the next one."""
    start = data.find(_MAGIC)
    while start >= 0:
        following = data.find(_MAGIC, start + 1)
        if data[start + 18 : start + 20] == _MACHINE.to_bytes(2, "little"):
            yield data[start : following if following >= 0 else len(data)]
        start = following


def _described(code: bytes) -> _Metadata:
    """Metadata in the notes of an ELF file; without kernels if they cannot be read."""
    # Only where there is code for AMD GPUs: it takes 50 ms to import.
    from elftools.common.exceptions import ELFError
    from elftools.construct import ConstructError
    from elftools.elf.elffile import ELFFile

    try:
        for segment in ELFFile(io.BytesIO(code)).iter_segments("PT_NOTE"):
            for note in segment.iter_notes():
                if note["n_name"] == "AMDGPU" and note["n_type"] == _METADATA:
                    return msgspec.msgpack.decode(note["n_descdata"], type=_Metadata)
    except (ELFError, ConstructError, OverflowError, ValueError, msgspec.MsgspecError):
        pass
    return _Metadata()
