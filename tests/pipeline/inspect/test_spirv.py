"""Shaders in modules for Vulkan, and what spirv-val says of them."""

from __future__ import annotations

import os
import struct
import subprocess
from pathlib import Path

import pytest

from iree_pilot.pipeline.cli.display import output as out
from iree_pilot.pipeline.cli.programs.code import tell
from iree_pilot.pipeline.inspect import spirv
from iree_pilot.pipeline.inspect.spirv import Checked, Complaint
from iree_pilot.pipeline.targets.targets import parse, plan
from iree_pilot.pipeline.toolchain.toolchain import installed

SUM = (
    "func.func @main(%a: tensor<64xf32>) -> tensor<64xf32> {\n"
    "  %sum = arith.addf %a, %a : tensor<64xf32>\n  return %sum : tensor<64xf32>\n}\n"
)
VERSIONS = "SPIRV-Tools v2023.1 unknown hash\\n SPIR-V 1.6 (under Vulkan 1.3 semantics)\\n"


def shader(name: str, *more: int) -> bytes:
    """Words with an entry point, and their count before them."""
    text = name.encode() + b"\0"
    text += bytes(-len(text) % 4)
    words = struct.pack("<5I", 0x07230203, 0x10300, 0, 9, 0)
    words += struct.pack("<3I", (3 + len(text) // 4) << 16 | 15, 5, 1) + text
    words += struct.pack(f"<{len(more)}I", *more)
    return struct.pack("<I", len(words) // 4) + words


@pytest.fixture
def module(tmp_path: Path) -> Path:
    made = tmp_path / "module.vmfb"
    made.write_bytes(b"before" + shader("one") + b"between" + shader("two", 1 << 16) + b"after")
    return made


@pytest.fixture
def validator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A `spirv-val` that says what is in the file `says`, and fails where there is something."""
    tool = tmp_path / "bin" / "spirv-val"
    tool.parent.mkdir()
    says = tmp_path / "says"
    says.write_text("")
    tool.write_text(
        "#!/bin/sh\n"
        f"if [ $1 = --version ]; then printf '{VERSIONS}'; exit; fi\n"
        f'echo "$@" >>{tmp_path}/calls\n'
        f"grep -q two shader.spv || exit 0\ncat {says} >&2\n[ ! -s {says} ]\n"
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:/usr/bin:/bin")
    return says


def test_each_shader_is_found_with_its_entry_point(module: Path) -> None:
    first, second = spirv.shaders(module)
    assert (first[0], second[0]) == ("one", "two")
    assert second[1] == shader("two", 1 << 16)[4:]


@pytest.mark.parametrize(
    "content",
    [b"", b"PK\3\4 nothing", b"\x03\x02\x23\x07", struct.pack("<2I", 1 << 30, 0x07230203) + b"cut"],
)
def test_what_holds_no_whole_shader_has_none(tmp_path: Path, content: bytes) -> None:
    module = tmp_path / "module.vmfb"
    module.write_bytes(content)
    assert spirv.shaders(module) == []
    assert spirv.check(module) is None


def test_a_damaged_shader_has_no_name(tmp_path: Path) -> None:
    module = tmp_path / "module.vmfb"
    words = struct.pack("<7I", 0x07230203, 0x10300, 0, 9, 0, 0, 0)
    module.write_bytes(struct.pack("<I", 7) + words)
    assert [name for name, _ in spirv.shaders(module)] == [""]


def test_valid_shaders_have_no_complaint(module: Path, validator: Path) -> None:
    assert spirv.check(module) == Checked(validator="v2023.1", shaders=2)
    calls = validator.with_name("calls").read_text()
    assert "--target-env vulkan1.3" in calls


def test_an_error_is_told_without_what_is_accidental(module: Path, validator: Path) -> None:
    validator.write_text("error: line 26: operand NoSignedWrap of %89 is wrong\n  OpDecorate %89\n")
    checked = spirv.check(module)
    assert checked is not None
    complaint = Complaint(message="operand NoSignedWrap of % is wrong", shaders=("two",))
    assert checked.invalid == (complaint,)
    assert checked.errors == 1


def test_what_an_old_validator_does_not_know_is_no_error(module: Path, validator: Path) -> None:
    validator.write_text("error: line 2: Invalid capability operand: 6022\n")
    checked = spirv.check(module)
    assert checked is not None
    assert checked.errors == 0
    assert [complaint.shaders for complaint in checked.unknown] == [("two",)]


def test_without_a_validator_nothing_is_said(
    module: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert spirv.check(module) is None


def test_errors_are_a_warning_and_no_failure(capsys: pytest.CaptureFixture[str]) -> None:
    from fake.nights import result

    complaint = Complaint(message="no [such] extension", shaders=("a", "b"))
    checked = Checked(validator="v2023.1", shaders=3, invalid=(complaint,))
    tell(out.console(), result(spirv=checked), verbose=False)
    told = capsys.readouterr().out
    assert "warning: 2 of 3 shaders not valid SPIR-V: no [such] extension" in told


@pytest.mark.real
@pytest.mark.skipif(
    spirv.validator() is None and not os.environ.get("IREE_PILOT_REQUIRE_VULKAN"),
    reason="spirv-val is not installed, which setup does where it may",
)
def test_a_real_module_is_judged_and_a_corrupted_one_is_not_valid(tmp_path: Path) -> None:
    (tmp_path / "sum.mlir").write_text(SUM)
    module = tmp_path / "module.vmfb"
    toolchain = installed()
    flags = plan(parse("vulkan:vp_android_baseline_2022"), toolchain).flags
    compiler = [toolchain.compiler, tmp_path / "sum.mlir", *flags, "-o", module]
    subprocess.run(compiler, check=True, capture_output=True, timeout=120)
    sound = spirv.check(module)
    assert sound is not None
    assert sound.shaders == 1
    ((name, code),) = spirv.shaders(module)
    assert "elementwise" in name
    # The last instruction ends the function; without its opcode nothing does.
    broken = code[:-4] + struct.pack("<I", 1 << 16 | 0xFFFF)
    module.write_bytes(module.read_bytes().replace(code, broken))
    corrupted = spirv.check(module)
    assert corrupted is not None
    assert corrupted.errors == 1
    assert corrupted.invalid != sound.invalid
