"""What is said of parameter archives: whole, lacking, of other shapes, damaged."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
from fake.archives import size, write_gguf, write_safetensors
from safetensors import SafetensorError, safe_open

from iree_pilot.pipeline.errors import UsageError
from iree_pilot.pipeline.processes.process import Limits
from iree_pilot.pipeline.processes.process import run as run_process
from iree_pilot.pipeline.program import archive
from iree_pilot.pipeline.program.program import Parameter, Parameters, Program
from iree_pilot.pipeline.toolchain import toolchain

WEIGHTS = {"l.weight": ("f32", (4, 8)), "l.bias": ("f32", (4,)), "scale": ("bf16", ())}


def program(path: str | None, tensors: dict[str, tuple[str, tuple[int, ...]]]) -> Program:
    return Program(
        source="net.py",
        digest="",
        functions=(),
        parameters=Parameters(
            scope="model",
            tensors=tuple(Parameter(name=n, dtype=d, shape=s) for n, (d, s) in tensors.items()),
            archives=(path,) if path else (),
        ),
        origin={},
    )


def test_an_archive_that_holds_what_the_program_loads_is_accepted(tmp_path: Path) -> None:
    for path in (
        write_safetensors(tmp_path / "w.safetensors", WEIGHTS),
        write_gguf(tmp_path / "w.gguf", WEIGHTS),
    ):
        archive.check_parameters(program(path.name, WEIGHTS), tmp_path)
        archive.check_parameters(program(str(path), {"l.bias": ("f32", (4,))}), Path("elsewhere"))


@pytest.mark.parametrize("write", [write_safetensors, write_gguf])
def test_a_tensor_that_is_lacking_or_of_another_shape_is_named_with_both_types(
    tmp_path: Path, write: object
) -> None:
    assert callable(write)
    suffix = ".gguf" if write is write_gguf else ".safetensors"
    path = write(tmp_path / f"w{suffix}", {**WEIGHTS, "l.weight": ("f32", (8, 4))})
    wanted = {"head": ("f32", (2,)), **WEIGHTS}
    with pytest.raises(UsageError, match=r"l\.weight is 8x4xf32, but 4x8xf32 in the program"):
        archive.check_parameters(program(path.name, WEIGHTS), tmp_path)
    with pytest.raises(UsageError, match=r"lacks the tensor head, .* loads as 2xf32 \(and 1 more"):
        archive.check_parameters(program(path.name, wanted), tmp_path)


def test_an_eight_bit_float_may_be_stored_as_bytes(tmp_path: Path) -> None:
    path = write_safetensors(tmp_path / "w.safetensors", {"q": ("ui8", (4,))})
    archive.check_parameters(program(path.name, {"q": ("f8E4M3FNUZ", (4,))}), tmp_path)
    with pytest.raises(UsageError, match="q is 4xui8, but 4xbf16"):
        archive.check_parameters(program(path.name, {"q": ("bf16", (4,))}), tmp_path)


def test_a_program_whose_weights_are_only_names_asks_for_an_archive(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        archive.check_parameters(program(None, WEIGHTS), tmp_path)
    assert "--weights" in caught.value.advice


@pytest.mark.parametrize("suffix", [".safetensors", ".gguf", ".irpa"])
@pytest.mark.parametrize(
    "content", [b"", b"GGUF", b"\xff" * 64, bytes(64), b"IRPA" + bytes(20), b"hello" * 100]
)
def test_a_damaged_archive_is_one_clear_message(
    tmp_path: Path, suffix: str, content: bytes
) -> None:
    path = tmp_path / f"w{suffix}"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="cannot read parameters from"):
        archive.check_parameters(program(path.name, WEIGHTS), tmp_path)


@pytest.mark.parametrize("name", ["w.safetensors", "w.gguf", "w.irpa"])
def test_a_pointer_of_git_lfs_is_named_as_one(tmp_path: Path, name: str) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 4\n"
    (tmp_path / name).write_text(pointer)
    with pytest.raises(UsageError, match="a pointer of Git LFS") as caught:
        archive.read(tmp_path / name)
    assert "git lfs pull" in caught.value.advice


@pytest.mark.parametrize("write", [write_safetensors, write_gguf])
def test_an_archive_that_is_cut_short_anywhere_is_refused(tmp_path: Path, write: object) -> None:
    assert callable(write)
    suffix = ".gguf" if write is write_gguf else ".safetensors"
    path = write(tmp_path / f"w{suffix}", {"a": ("f32", (2,)), "b": ("f32", (8,))})
    whole = path.read_bytes()
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(UsageError, match="cannot read parameters from"):
            archive.read(path)


@pytest.mark.parametrize(
    ("offsets", "behind", "told"),
    [
        ({"a": [0, 8], "b": [8, 40]}, 1, r"the tensors end at byte \d+, but the file has"),
        ({"a": [0, 8], "b": [0, 32]}, 0, r"b begins at byte \d+, expected \d+"),
        ({"a": [0, 8], "b": [12, 44]}, 0, r"b begins at byte \d+, expected \d+"),
        ({"a": [4, 12], "b": [12, 44]}, 0, r"a begins at byte \d+, expected \d+"),
        ({"a": [0, 4], "b": [4, 36]}, 0, "a is 2xf32, but its offsets span 4 bytes"),
    ],
)
def test_a_safetensors_file_that_safetensors_refuses_is_refused(
    tmp_path: Path, offsets: dict[str, list[int]], behind: int, told: str
) -> None:
    shapes = {"a": [2], "b": [8]}
    header = {name: {"dtype": "F32", "shape": shape} for name, shape in shapes.items()}
    for name, span in offsets.items():
        header[name]["data_offsets"] = span
    text = json.dumps(header).encode()
    size = max(end for _, end in offsets.values()) + behind
    path = tmp_path / "w.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(size))
    with pytest.raises(SafetensorError), safe_open(path, "np"):
        pass
    with pytest.raises(UsageError, match=told):
        archive.read(path)


def test_a_missing_file_and_an_unknown_ending_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        archive.read(tmp_path / "none.irpa")
    with pytest.raises(UsageError, match=r"ends in none of \.safetensors, \.gguf, \.irpa"):
        archive.read(tmp_path / "weights.bin")


@pytest.mark.real
def test_irees_own_archives_are_read_as_irees_tools_wrote_them(tmp_path: Path) -> None:
    source = write_safetensors(tmp_path / "w.safetensors", WEIGHTS)
    tools = toolchain.installed()

    def tool(name: str, *arguments: str) -> None:
        log = tmp_path / "log.txt"
        argv = [tools.tool(name), *arguments]
        assert run_process(argv, stdout=log, stderr=log, limits=Limits(seconds=60)).ok

    tool("iree-convert-parameters", f"--parameters={source}", f"--output={tmp_path}/w.irpa")
    tool("iree-create-parameters", "--splat=s=4x8xf32=2", f"--output={tmp_path}/s.irpa")
    held = archive.read(tmp_path / "w.irpa")
    assert {name: entry.bytes for name, entry in held.items()} == {
        name: size(*type_) for name, type_ in WEIGHTS.items()
    }
    assert archive.read(tmp_path / "s.irpa")["s"].bytes == 128
    archive.check_parameters(program("w.irpa", WEIGHTS), tmp_path)
    with pytest.raises(UsageError, match=r"l\.bias is 16 bytes, but 5xf32 in the program"):
        archive.check_parameters(program("w.irpa", {"l.bias": ("f32", (5,))}), tmp_path)
    whole = (tmp_path / "w.irpa").read_bytes()
    (tmp_path / "w.irpa").write_bytes(whole.replace(b"l.bias", b"l.\xff\xfe\xff\xfe"))
    with pytest.raises(UsageError, match="cannot read parameters from"):
        archive.read(tmp_path / "w.irpa")
    (tmp_path / "w.irpa").write_bytes(whole[:400])
    with pytest.raises(UsageError, match="file_size=400"):
        archive.read(tmp_path / "w.irpa")


@pytest.mark.parametrize("suffix", [".safetensors", ".gguf"])
def test_a_header_that_is_nested_without_end_is_refused(tmp_path: Path, suffix: str) -> None:
    depth = 100_000
    text = b'{"a":' + b"[" * depth + b"]" * depth + b"}"
    arrays = struct.pack("<IQ", 9, 1) * depth
    content = {
        ".safetensors": struct.pack("<Q", len(text)) + text,
        ".gguf": b"GGUF" + struct.pack("<IQQQsI", 3, 0, 1, 1, b"a", 9) + arrays,
    }
    path = tmp_path / f"w{suffix}"
    path.write_bytes(content[suffix])
    with pytest.raises(UsageError, match="nested too deeply"):
        archive.read(path)
