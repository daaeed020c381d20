"""Registers and spills of AMD GPU kernels, of sound modules and of damaged ones."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pipeline.amdgpu import Kernel, kernels
from pipeline.targets import parse, plan
from pipeline.toolchain import installed

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
def test_a_matmul_for_a_real_gpu_needs_what_its_module_says(tmp_path: Path) -> None:
    (tmp_path / "matmul.mlir").write_text(MATMUL)
    toolchain = installed()
    needs = {}
    for target in ("hip:gfx942", "hip:gfx1100", "vulkan"):
        module = tmp_path / "module.vmfb"
        flags = plan(parse(target), toolchain).flags
        compiler = [toolchain.compiler, tmp_path / "matmul.mlir", *flags, "-o", module]
        subprocess.run(compiler, check=True, capture_output=True, timeout=120)
        needs[target] = kernels(module)
    assert needs["vulkan"] == ()
    for target in ("hip:gfx942", "hip:gfx1100"):
        (kernel,) = needs[target]
        assert "matmul" in kernel.name
        assert 16 <= kernel.vgprs <= 512
        assert 1 <= kernel.sgprs <= 128
        assert (kernel.spills > 0) == (kernel.scratch_bytes > 0), "there is nothing else in memory"
        assert kernel.lds_bytes > 1024
        assert kernel.workgroup >= 32
