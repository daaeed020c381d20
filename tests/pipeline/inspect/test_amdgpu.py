"""Registers and spills of AMD GPU kernels, of sound modules and of damaged ones."""

from __future__ import annotations

import re
import struct
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest
from fake.nights import result

from iree_pilot.pipeline.cli.display import output as out
from iree_pilot.pipeline.cli.programs.code import tell
from iree_pilot.pipeline.inspect.amdgpu import Kernel, kernels
from iree_pilot.pipeline.inspect.occupancy import Occupancy
from iree_pilot.pipeline.targets.targets import parse, plan
from iree_pilot.pipeline.toolchain.toolchain import installed

MATMUL = """
func.func @main(%a: tensor<256x512xf16>, %b: tensor<512x256xf16>) -> tensor<256x256xf32> {
  %zero = arith.constant 0.0 : f32
  %empty = tensor.empty() : tensor<256x256xf32>
  %fill = linalg.fill ins(%zero : f32) outs(%empty : tensor<256x256xf32>) -> tensor<256x256xf32>
  %product = linalg.matmul ins(%a, %b : tensor<256x512xf16>, tensor<512x256xf16>)
      outs(%fill : tensor<256x256xf32>) -> tensor<256x256xf32>
  return %product : tensor<256x256xf32>
}
"""

#: Makes LLVM itself say what each kernel needs.
TELLS = "--pass-remarks-analysis=kernel-resource-usage"


def described(name: str, **fields: int) -> dict[str, Any]:
    return {".name": name, **{f".{key}": value for key, value in fields.items()}, ".args": []}


def note(owner: bytes, kind: int, content: bytes) -> bytes:
    def padded(text: bytes) -> bytes:
        return text + bytes(-len(text) % 4)

    return struct.pack("<III", len(owner), len(content), kind) + padded(owner) + padded(content)


def elf(notes: bytes, machine: int = 224) -> bytes:
    """A file with one segment, of notes."""
    head = b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHI", 3, machine, 1)
    head += struct.pack("<QQQIHHHHHH", 0, 64, 0, 0, 64, 56, 1, 64, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 4, 4, 120, 120, 120, len(notes), len(notes), 4)
    return head + segment + notes


def code(*described: dict[str, Any]) -> bytes:
    metadata = msgspec.msgpack.encode({"amdhsa.version": [1, 2], "amdhsa.kernels": described})
    return elf(note(b"GNU\0", 3, b"a build id") + note(b"AMDGPU\0", 32, metadata))


class TestModules:
    def test_each_kernel_of_each_executable_is_told(self, tmp_path: Path) -> None:
        one = described("one", vgpr_count=64, sgpr_count=20, max_flat_workgroup_size=256)
        two = described(
            "two",
            vgpr_count=256,
            vgpr_spill_count=12,
            sgpr_spill_count=3,
            group_segment_fixed_size=65536,
            private_segment_fixed_size=48,
        )
        three = described("three", vgpr_count=8)
        module = tmp_path / "module.vmfb"
        module.write_bytes(b"PK\3\4 before" + code(one, two) + b"between" + code(three) + b"after")
        first, second, third = kernels(module)
        assert first == Kernel(
            name="one", vgprs=64, sgprs=20, spills=0, lds_bytes=0, scratch_bytes=0, workgroup=256
        )
        assert first.occupancy is None, "the code says nothing of its chip"
        assert (second.vgprs, second.spills) == (256, 15)
        assert (second.lds_bytes, second.scratch_bytes) == (65536, 48)
        assert third.name == "three"

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"PK\3\4 no code at all",
            elf(note(b"AMDGPU\0", 32, msgspec.msgpack.encode({})), machine=62),
            elf(note(b"GNU\0", 32, b"another owner's")),
            elf(note(b"AMDGPU\0", 32, b"no MessagePack")),
            elf(note(b"AMDGPU\0", 32, msgspec.msgpack.encode({"amdhsa.kernels": 7}))),
            elf(b"\1\2\3"),
            code(described("cut"))[:70],
            code(described("cut"))[:150],
        ],
    )
    def test_what_says_nothing_of_kernels_has_none(self, tmp_path: Path, content: bytes) -> None:
        module = tmp_path / "module.vmfb"
        module.write_bytes(content)
        assert kernels(module) == ()

    def test_a_damaged_executable_does_not_hide_the_next(self, tmp_path: Path) -> None:
        module = tmp_path / "module.vmfb"
        module.write_bytes(elf(b"\1\2\3") + code(described("sound")))
        assert [kernel.name for kernel in kernels(module)] == ["sound"]


@pytest.mark.real
@pytest.mark.parametrize("chip", ["gfx942", "gfx950", "gfx1100", "gfx1201"])
def test_a_matmul_for_a_real_gpu_needs_what_its_module_says(chip: str, tmp_path: Path) -> None:
    (tmp_path / "matmul.mlir").write_text(MATMUL)
    toolchain = installed()
    module = tmp_path / "module.vmfb"
    flags = plan(parse(f"hip:{chip}"), toolchain).flags
    compiler = [toolchain.compiler, tmp_path / "matmul.mlir", *flags, TELLS, "-o", module]
    done = subprocess.run(compiler, check=True, capture_output=True, timeout=120)
    told = dict(re.findall(r"remark: \S+ +([^:]+): (\d+)", done.stderr.decode()))
    (kernel,) = kernels(module)
    assert "matmul" in kernel.name
    assert kernel.chip == chip
    assert kernel.vgprs == int(told["VGPRs"])
    assert kernel.sgprs == int(told["TotalSGPRs"])
    assert kernel.spills == int(told["VGPRs Spill"]) + int(told["SGPRs Spill"])
    assert (kernel.spills > 0) == (kernel.scratch_bytes > 0), "there is nothing else in memory"
    assert kernel.lds_bytes == int(told["LDS Size [bytes/block]"])
    assert kernel.occupancy is not None
    assert kernel.occupancy.waves == int(told["Occupancy [waves/SIMD]"])
    assert kernel.occupancy.limited_by


@pytest.mark.real
def test_a_module_for_vulkan_has_no_kernels(tmp_path: Path) -> None:
    (tmp_path / "matmul.mlir").write_text(MATMUL)
    toolchain = installed()
    module = tmp_path / "module.vmfb"
    flags = plan(parse("vulkan"), toolchain).flags
    compiler = [toolchain.compiler, tmp_path / "matmul.mlir", *flags, "-o", module]
    subprocess.run(compiler, check=True, capture_output=True, timeout=120)
    assert kernels(module) == ()


def made(name: str, *, spills: int = 0, waves: int = 8, chip: str = "gfx942") -> Kernel:
    held = Occupancy(waves=waves, most=8, limited_by=("lds",) if waves < 8 else ())
    return Kernel(
        name=name,
        vgprs=64,
        sgprs=20,
        spills=spills,
        lds_bytes=1024,
        scratch_bytes=4 * spills,
        workgroup=64,
        chip=chip,
        occupancy=held if chip == "gfx942" else None,
    )


class TestTelling:
    def told(self, capsys: pytest.CaptureFixture[str], *kernels: Kernel, verbose: bool) -> str:
        tell(out.console(), result(kernels=kernels), verbose=verbose)
        return capsys.readouterr().out

    def test_those_that_spill_come_first_then_those_of_low_occupancy(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        names = ["full", "low", "lower", "spills", "spills_more", "slightly"]
        kernels = [
            made("full"),
            made("low", waves=4),
            made("lower", waves=2),
            made("spills", spills=1),
            made("spills_more", spills=9, waves=7),
            made("slightly", waves=7),
        ]
        told = self.told(capsys, *kernels, verbose=False)
        shown = [line.split(":")[0].strip() for line in told.splitlines()[1:-1]]
        assert shown == ["spills_more", "spills", "lower"]
        assert "6 kernels: 2 with spilled registers" in told
        assert "and 2 more" in told
        told = self.told(capsys, *kernels, verbose=True)
        assert all(f"{name}: " in told for name in names)

    def test_what_is_well_is_one_line(self, capsys: pytest.CaptureFixture[str]) -> None:
        told = self.told(capsys, made("a"), made("b"), verbose=False)
        assert told == "  2 kernels: no register is spilled, every SIMD can be filled\n"

    def test_chips_that_are_not_known_are_named(self, capsys: pytest.CaptureFixture[str]) -> None:
        told = self.told(capsys, made("a", chip="gfx1250"), verbose=False)
        assert told == "  1 kernel: no register is spilled; occupancy unknown for gfx1250\n"
