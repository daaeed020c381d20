"""What a user or a machine gets wrong ends with one clear message, its exit code and no debris."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy
import pytest
from driver import Done, pilot
from fake import stub_release
from fake.disk import tiny_disk
from wrong_usage import PROGRESS

from iree_pilot.pipeline.toolchain.toolchain import installed

MLIR = """func.func @main(%x: tensor<2x3xf32>) -> tensor<2x3xf32> {
  %0 = arith.addf %x, %x : tensor<2x3xf32>
  return %0 : tensor<2x3xf32>
}
"""
WEIGHTED = """#w = #flow.parameter.named<"model"::"layer.weight"> : tensor<2x3xf32>
util.global private @w = #w
func.func @main(%x: tensor<2x3xf32>) -> tensor<2x3xf32> {
  %w = util.global.load @w : tensor<2x3xf32>
  %0 = arith.addf %x, %w : tensor<2x3xf32>
  return %0 : tensor<2x3xf32>
}
"""


class Desk:
    """A working directory and a cache that must be as they were after a refusal."""

    def __init__(self, directory: Path, cache: Path, scratch: Path) -> None:
        self.directory = directory
        self.cache = cache
        self.scratch = scratch

    def write(self, name: str, content: str | bytes) -> Path:
        path = self.directory / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def pilot(self, *arguments: str | Path, **env: str | Path) -> Done:
        return pilot(*arguments, cwd=self.directory, env={"TMPDIR": self.scratch, **env})

    def refused(
        self, code: int, *arguments: str | Path, at_once: bool = True, **env: str | Path
    ) -> str:
        """Runs what must be refused with `code`, before anything is done; returns what was said."""
        before = sorted(self.directory.rglob("*"))
        done = self.pilot(*arguments, **env)
        said = done.err
        assert done.code == code, done
        assert "Traceback" not in said
        assert "bug of iree-pilot" not in said
        messages = [line for line in said.splitlines() if line.lower().startswith("error: ")]
        assert len(messages) == 1, said
        if at_once:
            assert PROGRESS.sub("", done.out) == ""
        assert sorted(self.directory.rglob("*")) == before
        self.check_cache()
        return said

    def check_cache(self) -> None:
        """Nothing half-written, neither entries nor scratch files."""
        assert list(self.cache.glob("store/.tmp/*")) == []
        for program in self.cache.glob("store/program/*/*"):
            assert (program / "program.json").is_file()
        for compiled in self.cache.glob("store/compile/*/*"):
            assert (compiled / "result.json").is_file()
        assert list(self.scratch.glob("iree-pilot-*")) == []

    @property
    def compiled(self) -> int:
        return len(list(self.cache.glob("store/compile/*/*")))


@pytest.fixture
def desk(tmp_path: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Desk:
    return Desk(tmp_path, cache, tmp_path_factory.mktemp("scratch"))


class TestNames:
    def test_a_word_that_is_no_text_is_no_bug_of_ours(self, desk: Desk) -> None:
        done = desk.pilot("run", "mod\udcff.py", "-t", "llvm-cpu", "--json")
        assert done.code == 2
        assert "is not UTF-8" in done.document["error"]["message"]
        assert "is not UTF-8" in done.err and "Traceback" not in done.err

    @pytest.mark.real
    def test_json_has_its_one_document_all_the_same(self, desk: Desk) -> None:
        done = desk.pilot("run", "lama", "-t", "llvm-cpu", "--json")
        assert done.code == 2
        error = done.document["error"]
        assert error["exit_code"] == 2
        assert "no model 'lama'" in error["message"]
        assert "llama" in error["advice"]


class TestReleases:
    @pytest.mark.parametrize(("name", "code"), [("three", 2), ("3.x", 2), ("/no/such/place", 2)])
    def test_what_is_no_release(self, desk: Desk, name: str, code: int) -> None:
        desk.write("a.mlir", MLIR)
        said = desk.refused(code, "compile", "a.mlir", "-t", "llvm-cpu", "--release", name)
        assert name in said

    def test_there_is_no_network_to_fetch_one(self, desk: Desk) -> None:
        desk.write("a.mlir", MLIR)
        offline = {
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
            "PIP_EXTRA_INDEX_URL": "",
            "PIP_RETRIES": "0",
        }
        for arguments in (
            ["compile", "a.mlir", "-t", "llvm-cpu", "--release", "3.10.0"],
            ["releases", "install", "3.10.0"],
        ):
            said = desk.refused(3, *arguments, **offline)
            assert "3.10.0" in said
        assert [p for p in desk.cache.rglob("*") if "3.10.0" in p.name and p.is_dir()] == []


@pytest.mark.real
class TestFiles:
    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("gone.mlir", None, "no file gone.mlir"),
            ("empty.mlir", b"", "empty.mlir is empty"),
            ("empty.py", b"", "empty.py is empty"),
            ("cut.mlir", MLIR[:60].encode(), "cut.mlir cannot be read as MLIR"),
            ("other.mlir", b"\x7fELF" + bytes(100), "other.mlir cannot be read as MLIR"),
            ("prose.mlir", b"Dear reader,\n", "prose.mlir cannot be read as MLIR"),
            ("cut.mlirbc", b"ML\xefR\x0dMLIR\x00", "cut.mlirbc cannot be read as MLIR"),
            ("model.tflite", b"x", "cannot tell what model.tflite is"),
        ],
    )
    def test_what_is_no_program(
        self, desk: Desk, name: str, content: bytes | None, message: str
    ) -> None:
        if content is not None:
            desk.write(name, content)
        assert message in desk.refused(2, "compile", name, "-t", "llvm-cpu")

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("none.py", "def inputs():\n    return ()\n", "there is no function model()"),
            ("syntax.py", "def model(:\n", None),
            ("cut.onnx", "not protobuf", "cut.onnx is not a valid ONNX model"),
        ],
    )
    def test_what_is_no_model(
        self, desk: Desk, name: str, content: str, message: str | None
    ) -> None:
        desk.write(name, content)
        if message is not None:
            assert message in desk.refused(2, "run", name, "-t", "llvm-cpu")
            return
        done = desk.pilot("run", name, "-t", "llvm-cpu")
        assert done.code == 1
        assert "SyntaxError" in done.out
        assert "trace-error/SyntaxError/invalid-syntax-path-line-call-with/" in done.out
        assert "trace_child" not in done.out and "stack" not in done.out, "it is the user's file"
        desk.check_cache()

    def test_a_model_that_raises_is_a_failed_trace(self, desk: Desk) -> None:
        path = desk.write(
            "model.py",
            "def inputs():\n    return ()\ndef model():\n    raise ValueError('no such size')\n",
        )
        done = desk.pilot("run", "model.py", "-t", "llvm-cpu,hip")
        assert done.code == 1
        assert "trace-error" in done.out
        assert "while making the model: ValueError: no such size" in done.out
        assert f"{path}:4" in done.out
        assert "Traceback" not in done.out + done.err
        desk.check_cache()
        assert list(desk.cache.glob("store/program/*/*")) == []

    @pytest.mark.parametrize("output", ["no/such/out.vmfb", "taken"])
    def test_an_output_that_cannot_be_written(self, desk: Desk, output: str) -> None:
        desk.write("a.mlir", MLIR)
        (desk.directory / "taken").mkdir()
        said = desk.refused(2, "compile", "a.mlir", "-t", "llvm-cpu", "-o", output)
        assert output.split("/out")[0] in said
        assert desk.compiled == 0

    def test_json_and_a_module_do_not_share_stdout(self, desk: Desk) -> None:
        desk.write("a.mlir", MLIR)
        done = desk.pilot("compile", "a.mlir", "-t", "llvm-cpu", "--json", "-o", "-")
        assert done.code == 2
        assert "-o -" in done.document["error"]["message"]

    def test_ir_is_asked_for_before_a_phase_to_start_from(self, desk: Desk) -> None:
        said = desk.refused(2, "compile", "llama", "-t", "llvm-cpu", "--from", "flow")
        assert "llama is not MLIR of that phase" in said

    def test_one_output_for_several_targets(self, desk: Desk) -> None:
        desk.write("a.mlir", MLIR)
        said = desk.refused(2, "compile", "a.mlir", "-t", "llvm-cpu,hip", "-o", "x.vmfb")
        assert "one target" in said


@pytest.mark.real
class TestInputs:
    @pytest.mark.parametrize(
        ("inputs", "message"),
        [
            (["x.npy"], "dimension 1 is 4 where 3 is expected"),
            (["d.npy"], "dtype f64 where f32 is expected"),
            (["ok.npy", "ok.npy"], "takes 1 input, got 2"),
            (["gone.npy"], "no file gone.npy"),
            (["2x3xf32=@short.bin"], "short.bin has 5 bytes, 2x3xf32 needs 24"),
            (["2x3xf33=@short.bin"], "unknown element type f33"),
            (["ok"], "neither an .npy file, nor SHAPExDTYPE=@FILE"),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, list) else None,
    )
    def test_inputs_that_do_not_fit(self, desk: Desk, inputs: list[str], message: str) -> None:
        desk.write("a.mlir", MLIR)
        numpy.save(desk.directory / "x.npy", numpy.zeros((2, 4), numpy.float32))
        numpy.save(desk.directory / "d.npy", numpy.zeros((2, 3)))
        numpy.save(desk.directory / "ok.npy", numpy.zeros((2, 3), numpy.float32))
        desk.write("short.bin", b"12345")
        given = [word for value in inputs for word in ("--input", value)]
        said = desk.refused(2, "run", "a.mlir", "-t", "llvm-cpu", *given)
        assert message in said
        assert desk.compiled == 0, "they are checked before anything else is done"

    @pytest.mark.parametrize(
        ("tensors", "message"),
        [
            ({}, "it lacks the tensor layer.weight, which the program loads as 2x3xf32"),
            (
                {"layer.weight": numpy.zeros((3, 2), numpy.float32)},
                "its tensor layer.weight is 3x2xf32, but 2x3xf32 in the program",
            ),
            (
                {"layer.weight": numpy.zeros((2, 3), numpy.float16)},
                "its tensor layer.weight is 2x3xf16, but 2x3xf32 in the program",
            ),
        ],
    )
    def test_weights_that_do_not_fit(
        self, desk: Desk, tensors: dict[str, Any], message: str
    ) -> None:
        from safetensors.numpy import save_file

        desk.write("a.mlir", WEIGHTED)
        save_file({**tensors, "other": numpy.zeros(1)}, desk.directory / "w.safetensors")
        said = desk.refused(2, "run", "a.mlir", "-t", "llvm-cpu", "--weights", "w.safetensors")
        assert message in said

    @pytest.mark.parametrize("name", ["w.safetensors", "w.irpa", "w.gguf", "w.bin"])
    def test_weights_that_cannot_be_read(self, desk: Desk, name: str) -> None:
        desk.write("a.mlir", WEIGHTED)
        desk.write(name, b"nothing of the kind")
        said = desk.refused(2, "run", "a.mlir", "-t", "llvm-cpu", "--weights", name)
        assert f"{name}" in said


class TestCompiler:
    def test_it_is_missing(self, desk: Desk) -> None:
        desk.write("a.mlir", MLIR)
        (desk.directory / "release").mkdir()
        said = desk.refused(2, "compile", "a.mlir", "-t", "llvm-cpu", "--release", "./release")
        assert "there is no iree-compile in" in said

    def test_it_is_not_executable(self, desk: Desk) -> None:
        desk.write("a.mlir", MLIR)
        compiler = stub_release(desk.directory / "release")
        compiler.chmod(0o644)
        said = desk.refused(3, "compile", "a.mlir", "-t", "llvm-cpu", "--release", "./release")
        assert "iree-compile: it is not executable" in said
        assert "chmod +x" in said

    def test_it_is_gone_after_it_was_found(self, desk: Desk) -> None:
        desk.write("a.mlir", "module {\n}\n")
        compiler = stub_release(desk.directory / "release")
        arguments = ("compile", "a.mlir", "-t", "llvm-cpu", "--release", "./release")
        assert desk.pilot(*arguments).code == 0
        compiler.unlink()
        assert "iree-compile" in desk.refused(2, *arguments)

    def test_the_runtime_is_missing(self, desk: Desk) -> None:
        main = '"func.func"() <{function_type = () -> (), sym_name = "main"}> ({'
        desk.write("a.mlir", f"  {main}\n")
        stub_release(desk.directory / "release")
        (desk.directory / "release/iree/_runtime_libs/iree-run-module").unlink()
        arguments = ("run", "a.mlir", "-t", "llvm-cpu", "--release", "./release", "--json")
        done = desk.pilot(*arguments)
        assert (done.code, done.err) == (0, "")
        (case,) = done.document["cases"]
        assert case["why"] == "compiled, not run: there is no IREE runtime of release 9.9.0"

    @pytest.mark.real
    @pytest.mark.parametrize("flag", ["-o", "--compile-to=flow"])
    def test_flags_that_are_the_drivers_own(self, desk: Desk, flag: str) -> None:
        desk.write("a.mlir", MLIR)
        said = desk.refused(2, "compile", "a.mlir", "-t", "llvm-cpu", "--", flag)
        assert f"{flag} cannot be given after --" in said

    @pytest.mark.real
    @pytest.mark.parametrize("command", ["run", "bisect", "workaround"])
    @pytest.mark.parametrize(
        "flags",
        [("--output-format=vm-c",), ("--output-format", "vm-asm"), ("--compile-mode=precompile",)],
    )
    def test_flags_that_make_no_module_are_for_compile(
        self, desk: Desk, command: str, flags: tuple[str, ...]
    ) -> None:
        desk.write("a.mlir", MLIR)
        said = desk.refused(2, command, "a.mlir", "-t", "llvm-cpu", "--", *flags)
        assert "cannot be given after --: it makes" in " ".join(said.split())
        assert "iree-pilot compile SOURCE -t TARGET -o FILE" in " ".join(said.split())

    @pytest.mark.real
    @pytest.mark.parametrize("command", ["run", "bisect", "releases bisect", "workaround"])
    def test_a_phase_to_start_from_is_for_the_command_that_takes_one(
        self, desk: Desk, command: str
    ) -> None:
        desk.write("a.mlir", MLIR)
        flag = "--compile-from=flow"
        said = desk.refused(2, *command.split(), "a.mlir", "-t", "llvm-cpu", "--", flag)
        assert f"{flag} cannot be given after --" in said
        advice = "iree-pilot compile FILE.mlir -t TARGET --from PHASE -o MODULE"
        assert advice in " ".join(said.split())

    @pytest.mark.real
    def test_flags_that_only_print(self, desk: Desk) -> None:
        desk.write("a.mlir", MLIR)
        said = desk.refused(2, "compile", "a.mlir", "-t", "llvm-cpu", "--", "--version")
        assert "--version cannot be given after --: iree-compile would print that" in said

    @pytest.mark.real
    @pytest.mark.parametrize(
        "command", ["compile", "run", "bisect", "workaround", "ranges", "releases bisect"]
    )
    def test_a_flag_that_is_misspelt_is_refused_before_anything_is_traced(
        self, desk: Desk, command: str
    ) -> None:
        desk.write("a.mlir", MLIR)
        own = ("--toolchain", installed().compiler.parents[3])
        more = own if command == "releases bisect" else ()
        words = (*command.split(), "a.mlir", "-t", "llvm-cpu", *more, "--")
        said = desk.refused(2, *words, "--iree-opt-levl=O2")
        assert "has no flag --iree-opt-levl" in said
        assert "Did you mean --iree-opt-level" in said
        assert not list(desk.cache.glob("store/program/*"))

    @pytest.mark.real
    @pytest.mark.parametrize(
        ("flags", "says"),
        [
            (["--iree-opt-level=O9"], "for the --iree-opt-level option: 'O9'"),
            (["--iree-opt-level=O9"], "Check --iree-opt-level=O9."),
            (["--iree-opt-level"], "--iree-opt-level option: requires a value!"),
            (["--iree-input-type=foo"], "unknown custom value for --iree-input-type='foo'"),
            (["iree-opt-level=O2"], "iree-opt-level=O2 is no flag of iree-compile"),
            (["--zzz", "--iree-opt-level=O2", "--yyy=1"], "has no flag --zzz, --yyy"),
        ],
    )
    def test_flags_that_the_compiler_does_not_take(
        self, desk: Desk, flags: list[str], says: str
    ) -> None:
        desk.write("a.mlir", MLIR)
        said = desk.refused(2, "compile", "a.mlir", "-t", "llvm-cpu", "--", *flags)
        assert says in said


@pytest.fixture
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A file system of four megabytes."""
    with tiny_disk(tmp_path_factory.mktemp("mounts") / "disk", 4 * 2**20) as directory:
        yield directory


@pytest.mark.real
class TestFullDisk:
    #: Its dumps are larger than the disk that they go to.
    LARGE = (
        "func.func @main() -> tensor<700000xi8> {\n"
        '  %0 = arith.constant dense<"0x' + "".join(f"{i % 251:02X}" for i in range(700000)) + '"> '
        ": tensor<700000xi8>\n  return %0 : tensor<700000xi8>\n}\n"
    )

    def test_while_compiling(self, desk: Desk, small: Path) -> None:
        desk.cache = small / "cache"
        desk.write("a.mlir", self.LARGE)
        arguments = ("compile", "a.mlir", "-t", "llvm-cpu")
        said = desk.refused(3, *arguments, at_once=False, IREE_PILOT_CACHE=desk.cache)
        assert "No space left on device" in said
        assert "IREE_PILOT_CACHE" in said
        assert desk.compiled == 0, "it is not kept as a failure of the program"

    def test_before_anything_is_done(self, desk: Desk, small: Path) -> None:
        desk.cache = small / "cache"
        desk.write("a.mlir", MLIR)
        with pytest.raises(OSError, match="No space left"):
            (small / "filler").write_bytes(bytes(8 * 2**20))
        said = desk.refused(3, "compile", "a.mlir", "-t", "llvm-cpu", IREE_PILOT_CACHE=desk.cache)
        assert "No space left on device" in said
        (small / "filler").unlink()
        done = desk.pilot("compile", "a.mlir", "-t", "llvm-cpu", IREE_PILOT_CACHE=desk.cache)
        assert done.code == 0, "once there is space, it goes on"

    def test_while_tracing(self, desk: Desk, small: Path) -> None:
        desk.cache = small / "cache"
        desk.write(
            "model.py",
            "import torch\ndef inputs():\n    return (torch.ones(1, 1500),)\n"
            "def model():\n    return torch.nn.Linear(1500, 1500)\n",
        )
        said = desk.refused(3, "run", "model.py", "-t", "llvm-cpu", IREE_PILOT_CACHE=desk.cache)
        assert "No space left on device" in said
        assert list(desk.cache.glob("store/program/*/*")) == []

    def test_while_the_module_is_copied_out(self, desk: Desk, small: Path) -> None:
        desk.write("a.mlir", MLIR)
        with pytest.raises(OSError, match="No space left"):
            (small / "filler").write_bytes(bytes(8 * 2**20))
        done = desk.pilot("compile", "a.mlir", "-t", "llvm-cpu", "-o", small / "out.vmfb")
        assert done.code == 3
        assert "the disk is full" in done.err
        assert [p.name for p in small.iterdir()] == ["filler"]

    def test_while_a_trace_is_copied_out(self, desk: Desk, small: Path) -> None:
        desk.write("a.mlir", self.LARGE)
        with pytest.raises(OSError, match="No space left"):
            (small / "filler").write_bytes(bytes(8 * 2**20))
        done = desk.pilot("trace", "a.mlir", "-o", small / "out")
        assert done.code == 3
        assert "No space left on device" in done.err or "the disk is full" in done.err
        assert [p.name for p in small.iterdir()] == ["filler"]


class TestUnwritableCache:
    def test_a_file_is_in_its_place(self, desk: Desk) -> None:
        place = desk.write("cache", b"")
        desk.write("a.mlir", MLIR)
        for below in (place, place / "deeper"):
            said = desk.refused(3, "compile", "a.mlir", "-t", "llvm-cpu", IREE_PILOT_CACHE=below)
            assert f"cannot use the cache directory {below}" in said
            assert "IREE_PILOT_CACHE" in said

    def test_it_is_read_only(self, desk: Desk, tmp_path_factory: pytest.TempPathFactory) -> None:
        desk.write("a.mlir", MLIR)
        place = tmp_path_factory.mktemp("read-only") / "cache"
        with read_only(place):
            said = desk.refused(3, "compile", "a.mlir", "-t", "llvm-cpu", IREE_PILOT_CACHE=place)
        assert f"cannot use the cache directory {place}" in said


@pytest.mark.parametrize("command", ["bisect", "run --bisect", "releases bisect"])
def test_a_directory_where_no_result_can_be_written(
    desk: Desk, tmp_path_factory: pytest.TempPathFactory, command: str
) -> None:
    file = desk.write("a.mlir", MLIR)
    place = tmp_path_factory.mktemp("read-only") / "here"
    with read_only(place):
        done = pilot(*command.split(), file, "-t", "llvm-cpu", cwd=place)
    assert done.code == 3
    assert "goes to a folder in the current directory, but: cannot write ." in done.err
    assert "-o DIR" in done.err
    assert desk.compiled == 0, "it is found before anything is done"


def read_only(directory: Path) -> Any:
    """A context in which the directory cannot be written to, by root neither."""
    import contextlib

    @contextlib.contextmanager
    def for_a_user() -> Iterator[None]:
        directory.mkdir()
        directory.chmod(stat.S_IRUSR | stat.S_IXUSR)
        try:
            yield
        finally:
            directory.chmod(stat.S_IRWXU)

    @contextlib.contextmanager
    def for_root() -> Iterator[None]:
        with tiny_disk(directory, 2**20):
            subprocess.run(
                ["mount", "-o", "remount,ro", directory], check=True, capture_output=True
            )
            yield

    return for_root() if os.geteuid() == 0 else for_a_user()
