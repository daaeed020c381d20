"""Occupancy of AMD GPUs: waves of a kernel that fit at once, and the limiting resource.

The rules are those by which LLVM's own code generator counts: `IsaInfo` in AMDGPUBaseInfo.cpp and
`getOccupancyWithWorkGroupSizes` in AMDGPUSubtarget.cpp (what `llvm-calc-occupancy` prints), with
the sizes of AMDGPU.td; LDS is allocated in blocks, as the "User Guide for AMDGPU Backend" says of
GRANULATED_LDS_SIZE (blocks of 1 KiB from gfx10.3 on, where half of that is encoded). Memory for
spilled registers is not counted. Chips that are not named here are not guessed at.
"""

from __future__ import annotations

import re

import msgspec

_KIB = 1024


class Occupancy(msgspec.Struct, frozen=True, kw_only=True):
    """Waves of a kernel that a SIMD holds at once, of the `most` that it can hold.

    limited_by: the resources that allow no more waves than that (vgprs, sgprs, lds, workgroup);
    none where it is full.
    """

    waves: int
    most: int
    limited_by: tuple[str, ...] = ()

    @property
    def idle(self) -> int:
        """Wave slots of a SIMD that stay empty."""
        return self.most - self.waves


class _Chip(msgspec.Struct, frozen=True, kw_only=True):
    """Resources of a SIMD, and of the CU or WGP that a workgroup shares. vgprs, granule: for waves
    of 32 lanes, waves of 64 have half; unified: for waves of 64, including accumulation registers.
    sgprs: True if they limit waves (from gfx10 on they do not).
    """

    waves: int
    vgprs: int
    granule: int
    lds: int = 64 * _KIB
    lds_granule: int
    sgprs: bool = False
    unified: bool = False


_CDNA = _Chip(waves=8, vgprs=512, granule=8, lds_granule=512, sgprs=True, unified=True)
_RDNA1 = _Chip(waves=20, vgprs=1024, granule=8, lds_granule=512)
_RDNA2 = _Chip(waves=16, vgprs=1024, granule=16, lds_granule=_KIB)
#: Half as many vector registers again.
_RDNA3 = _Chip(waves=16, vgprs=1536, granule=24, lds_granule=_KIB)
_CHIPS = {
    "gfx90a": _CDNA,
    "gfx942": _CDNA,
    "gfx950": msgspec.structs.replace(_CDNA, lds=160 * _KIB, lds_granule=1280),
    **dict.fromkeys(("gfx1010", "gfx1011", "gfx1012", "gfx1013"), _RDNA1),
    **dict.fromkeys((f"gfx103{n}" for n in range(7)), _RDNA2),
    **dict.fromkeys(("gfx1102", "gfx1103", "gfx1150", "gfx1152", "gfx1153"), _RDNA2),
    **dict.fromkeys(("gfx1100", "gfx1101", "gfx1151", "gfx1200", "gfx1201"), _RDNA3),
}
_CHIP = re.compile(r"-(gfx[0-9a-f]+)(?::|$)")
#: Waves of a SIMD by the scalar registers of each, before gfx10: at most so many registers.
_SGPR_WAVES = ((80, 10), (88, 9), (100, 8))
_FEWEST_SGPR_WAVES = 7


def chip_of(target: str) -> str:
    """The chip in a code object's target (`amdgcn-amd-amdhsa--gfx942:xnack-`); empty if none."""
    match = _CHIP.search(target)
    return match[1] if match else ""


class Needs(msgspec.Struct, frozen=True, kw_only=True):
    """Resources of a kernel. wavefront: lanes of a wave. vgprs: of a wave's lane, with accumulation
    registers where these are of one file. workgroup: work items. wgp: whether a workgroup may use
    both CUs of a WGP.
    """

    wavefront: int
    vgprs: int
    sgprs: int
    lds_bytes: int
    workgroup: int
    wgp: bool


def occupancy(chip: str, needs: Needs) -> Occupancy | None:
    """Occupancy of a kernel on a chip; None if the chip is unknown."""
    kind = _CHIPS.get(chip)
    if kind is None or needs.wavefront not in (32, 64) or not needs.workgroup:
        return None
    narrow = needs.wavefront == 32 or kind.unified
    total, granule = (kind.vgprs, kind.granule) if narrow else (kind.vgprs // 2, kind.granule // 2)
    limits = {"vgprs": min(max(total // _up(max(needs.vgprs, 1), granule), 1), kind.waves)}
    if kind.sgprs:
        waves = next((w for most, w in _SGPR_WAVES if needs.sgprs <= most), _FEWEST_SGPR_WAVES)
        limits["sgprs"] = min(waves, kind.waves)
    # A CU has four SIMDs before gfx10, two from then on, and a WGP two CUs.
    simds = 4 if kind.unified or needs.wgp else 2
    waves = -(-needs.workgroup // needs.wavefront)
    barriers = 32 if needs.wgp else 16  # a workgroup of one wave needs none
    slots = kind.waves * simds // waves
    groups = min(slots, barriers) if waves > 1 else slots
    limits["workgroup"] = _per_simd(groups * waves, simds, kind.waves)
    if needs.lds_bytes:
        room = kind.lds * (2 if needs.wgp else 1)
        held = min(groups, room // _up(needs.lds_bytes, kind.lds_granule))
        limits["lds"] = _per_simd(held * waves, simds, kind.waves)
        if limits["lds"] == limits["workgroup"]:
            del limits["lds"]  # it takes nothing away
    least = min(limits.values())
    binding = tuple(name for name, value in limits.items() if value == least < kind.waves)
    return Occupancy(waves=least, most=kind.waves, limited_by=binding)


def _up(value: int, granule: int) -> int:
    return -(-value // granule) * granule


def _per_simd(waves: int, simds: int, most: int) -> int:
    return min(max(-(-waves // simds), 1), most)
