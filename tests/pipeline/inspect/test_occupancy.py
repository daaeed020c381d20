"""Waves that a SIMD holds, as LLVM counts them, and what keeps it from more."""

from __future__ import annotations

from typing import Any

import pytest

from iree_pilot.pipeline.inspect.occupancy import Needs, Occupancy, chip_of, occupancy

SMALL: dict[str, Any] = {"vgprs": 16, "sgprs": 16, "lds_bytes": 0, "workgroup": 256}
#: (chip, lanes of a wave, whether in WGP mode, most waves)
CHIPS = [
    ("gfx90a", 64, False, 8),
    ("gfx942", 64, False, 8),
    ("gfx950", 64, False, 8),
    ("gfx1010", 32, True, 20),
    ("gfx1030", 32, True, 16),
    ("gfx1100", 32, True, 16),
    ("gfx1102", 32, False, 16),
    ("gfx1201", 32, True, 16),
]


def held(chip: str, **needs: Any) -> Occupancy:
    wide = chip.startswith("gfx9")
    fields: dict[str, Any] = SMALL | {"wavefront": 64 if wide else 32, "wgp": not wide} | needs
    found = occupancy(chip, Needs(**fields))
    assert found is not None
    return found


@pytest.mark.parametrize(("chip", "wavefront", "wgp", "most"), CHIPS)
def test_a_small_kernel_fills_a_simd(chip: str, wavefront: int, wgp: bool, most: int) -> None:
    found = held(chip, wavefront=wavefront, wgp=wgp)
    assert found == Occupancy(waves=most, most=most)
    assert found.idle == 0


@pytest.mark.parametrize(
    ("chip", "needs", "waves", "limited_by"),
    [
        # Registers are allocated in groups of eight: 64 leave room for eight waves, 65 for seven.
        ("gfx942", {"vgprs": 64}, 8, ()),
        ("gfx942", {"vgprs": 65}, 7, ("vgprs",)),
        ("gfx942", {"vgprs": 512}, 1, ("vgprs",)),
        ("gfx90a", {"sgprs": 100}, 8, ()),
        ("gfx90a", {"sgprs": 102}, 7, ("sgprs",)),
        # Four waves of 64 lanes in each of 64 KiB / 33 KiB = 1 workgroup, on four SIMDs.
        ("gfx942", {"lds_bytes": 33 * 1024}, 1, ("lds",)),
        ("gfx950", {"lds_bytes": 33 * 1024}, 4, ("lds",)),
        # Sixteen barriers for workgroups of two waves: 32 waves on four SIMDs.
        ("gfx942", {"workgroup": 128}, 8, ()),
        ("gfx942", {"workgroup": 1024}, 8, ()),
        # Six waves fit five times into 32 slots.
        ("gfx942", {"workgroup": 384}, 8, ()),
        ("gfx942", {"workgroup": 768}, 6, ("workgroup",)),
        # Half as many registers again, in groups of 24: 1536 / 264.
        ("gfx1100", {"vgprs": 256}, 5, ("vgprs",)),
        ("gfx1102", {"vgprs": 256}, 4, ("vgprs",)),
        ("gfx1100", {"vgprs": 256, "wavefront": 64}, 2, ("vgprs",)),
        ("gfx1100", {"sgprs": 106}, 16, ()),
        # A WGP has the memory of two CUs.
        ("gfx1100", {"lds_bytes": 50688, "workgroup": 128}, 2, ("lds",)),
        ("gfx1100", {"lds_bytes": 50688, "workgroup": 128, "wgp": False}, 2, ("lds",)),
        ("gfx1201", {"lds_bytes": 17408, "workgroup": 128}, 7, ("lds",)),
        ("gfx942", {"vgprs": 256, "lds_bytes": 32 * 1024}, 2, ("vgprs", "lds")),
    ],
)
def test_the_scarcest_resource_limits_the_waves(
    chip: str, needs: dict[str, Any], waves: int, limited_by: tuple[str, ...]
) -> None:
    found = held(chip, **needs)
    assert (found.waves, found.limited_by) == (waves, limited_by)


@pytest.mark.parametrize("resource", ["vgprs", "sgprs", "lds_bytes"])
@pytest.mark.parametrize("chip", [chip for chip, *_ in CHIPS])
def test_what_needs_more_never_has_more_waves(chip: str, resource: str) -> None:
    most = {"vgprs": 256, "sgprs": 106, "lds_bytes": 65536}[resource]
    waves = [held(chip, **{resource: need}).waves for need in range(1, most, 7)]
    assert waves == sorted(waves, reverse=True)
    assert min(waves) >= 1


@pytest.mark.parametrize("chip", ["", "gfx906", "gfx1250", "sm_90"])
def test_chips_whose_sizes_are_not_known_are_not_guessed_at(chip: str) -> None:
    assert occupancy(chip, Needs(wavefront=64, wgp=False, **SMALL)) is None


def test_code_that_does_not_say_its_workgroup_is_not_judged() -> None:
    assert occupancy("gfx942", Needs(wavefront=64, wgp=False, **SMALL | {"workgroup": 0})) is None
    assert occupancy("gfx942", Needs(wavefront=0, wgp=False, **SMALL)) is None


@pytest.mark.parametrize(
    ("target", "chip"),
    [
        ("amdgcn-amd-amdhsa--gfx942", "gfx942"),
        ("amdgcn-amd-amdhsa--gfx90a:sramecc+:xnack-", "gfx90a"),
        ("amdgpu11.00-amd-amdhsa-unknown-gfx1100", "gfx1100"),
        ("nvptx64-nvidia-cuda", ""),
        ("", ""),
    ],
)
def test_the_chip_is_named_by_the_code_objects_target(target: str, chip: str) -> None:
    assert chip_of(target) == chip
