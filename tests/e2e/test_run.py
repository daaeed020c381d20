"""`run` and `compile` on zoo models and programs: verdicts, documents, caches, streams, codes."""

from __future__ import annotations

import os
import pty
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from driver import PROGRAM, Done, pilot
from places import TESTS

pytestmark = pytest.mark.real

TARGETS = ("llvm-cpu", "vulkan", "hip:gfx942")
PHASES = [
    *("input", "abi", "preprocessing", "global-optimization", "dispatch-creation", "flow"),
    *("stream", "executable-sources", "executable-configurations", "executable-targets"),
    *("hal", "vm", "end"),
]
ESCAPE = re.compile(r"\x1b\[")
MLIR = """func.func @main(%x: tensor<2x3xf32>) -> tensor<2x3xf32> {
  %0 = arith.addf %x, %x : tensor<2x3xf32>
  return %0 : tensor<2x3xf32>
}
"""
#: Some of its inputs are negative.
UNDEFINED = """func.func @main(%x: tensor<2x3xf32>) -> tensor<2x3xi8> {
  %c = arith.constant dense<100.0> : tensor<2x3xf32>
  %y = arith.mulf %x, %c : tensor<2x3xf32>
  %0 = arith.fptoui %y : tensor<2x3xf32> to tensor<2x3xi8>
  return %0 : tensor<2x3xi8>
}
"""
#: What CLI.md promises of a case, and of what is in it.
CASE = {"target", "release", "device", "status", "why", "steps", "phases", "comparison"} | {
    "failure",
    "command",
}
COMPARISON = {"max_abs", "max_rel", "rel_l2", "tolerance", "nan", "inf"}
FAILURE = {"kind", "phase", "pass", "op", "location", "message", "signal", "stack"} | {
    "signature",
    "also",
}


@pytest.fixture(scope="module")
def llama_fp8(shared_cache: Path) -> dict[str, Any]:
    """The document of the main job."""
    done = pilot(
        "run",
        "llama-fp8:tiny",
        "-t",
        ",".join(TARGETS),
        "--json",
        env={"IREE_PILOT_CACHE": shared_cache},
    )
    document = done.document
    failed = [case for case in document["cases"] if case["status"] == "failed"]
    assert done.code == (1 if failed else 0), done.err
    return document


def case_of(document: dict[str, Any], target: str) -> dict[str, Any]:
    (case,) = (case for case in document["cases"] if case["target"] == target)
    return case


class TestMainJob:
    """FP8 Llama on the three targets."""

    def test_it_agrees_with_pytorch_on_the_cpu(self, llama_fp8: dict[str, Any]) -> None:
        case = case_of(llama_fp8, "llvm-cpu")
        assert (case["status"], case["why"], case["failure"]) == ("ok", "", None)
        assert [(s["name"], s["status"]) for s in case["steps"]] == [
            (name, "ok") for name in ("trace", "compile", "load", "run", "compare")
        ]
        assert [p["name"] for p in case["phases"]] == PHASES
        assert [f["name"] for f in case["functions"]] == ["prefill", "decode"]
        for function in case["functions"]:
            assert function["latency"]["median_seconds"] > 0
            for output in function["comparison"]["outputs"]:
                assert output["rel_l2"] <= output["tolerance"] < 0.2
                assert output["nan"] == output["inf"] == 0

    def test_without_an_amd_gpu_it_is_compiled_and_says_so(self, llama_fp8: dict[str, Any]) -> None:
        case = case_of(llama_fp8, "hip:gfx942")
        assert [p["name"] for p in case["phases"]] == PHASES
        assert Path(case["output"]).stat().st_size == case["output_bytes"] > 10_000
        if case["device"] is None:
            assert case["status"] == "compiled"
            assert case["why"] == "compiled, not run: no HIP device"

    def test_vulkan_runs_or_its_failure_is_complete(self, llama_fp8: dict[str, Any]) -> None:
        case = case_of(llama_fp8, "vulkan")
        assert case["arch"], "the device, or the lack of one, has picked what to compile for"
        if case["status"] == "compiled":
            assert case["why"] == "compiled, not run: no Vulkan device"
            return
        if case["status"] == "ok":
            assert case["comparison"]["rel_l2"] <= case["comparison"]["tolerance"]
            return
        failure = case["failure"]
        assert set(failure) == FAILURE
        assert failure["kind"] == "diagnostic"
        assert failure["phase"] == "executable-targets"
        assert case["phase_confirmed"] is True
        assert failure["op"] == "vector.bitcast"
        assert failure["op"] in failure["message"]
        file, line, _ = failure["location"].rsplit(":", 2)
        assert "torch." in Path(file).read_text().splitlines()[int(line) - 1]
        assert case["command"][0].endswith("/iree-compile")
        assert Path(case["resume"][1]).is_file()

    def test_the_second_time_everything_is_there(
        self, llama_fp8: dict[str, Any], shared_cache: Path
    ) -> None:
        again = pilot(
            "run",
            "llama-fp8:tiny",
            "-t",
            ",".join(TARGETS),
            "--json",
            env={"IREE_PILOT_CACHE": shared_cache},
        ).document
        assert again["program"]["cached"]
        for case in again["cases"]:
            first = case_of(llama_fp8, case["target"])
            cached = {s["name"]: s["cached"] for s in case["steps"]}
            assert cached["trace"]
            assert cached["compile"]
            assert case["status"] == first["status"]
            assert case["failure"] == first["failure"]
            assert case["phases"] == first["phases"]
            assert case["output"] == first["output"]


class TestDocument:
    def test_it_has_what_is_promised(self, llama_fp8: dict[str, Any]) -> None:
        assert set(llama_fp8) == {"program", "cases", "next", "took"}
        assert {"source", "functions", "parameters", "directory"} <= set(llama_fp8["program"])
        for case in llama_fp8["cases"]:
            assert set(case) >= CASE
            assert case["status"] in ("ok", "ran", "compiled", "failed")
            for step in case["steps"]:
                assert {"name", "status", "seconds"} <= set(step)
            for phase in case["phases"]:
                assert set(phase) == {"name", "seconds", "bytes", "ops"}
                assert phase["bytes"] > 0
                assert phase["name"] == "end" or sum(phase["ops"].values()) > 100
            assert case["comparison"] is None or set(case["comparison"]) >= COMPARISON
            assert case["failure"] is None or set(case["failure"]) == FAILURE
            assert case["command"][0].endswith("iree-compile")
        targets = [case["target"] for case in llama_fp8["cases"]]
        assert targets == list(TARGETS)

    def test_counts_are_those_of_the_dumps(self, llama_fp8: dict[str, Any]) -> None:
        case = case_of(llama_fp8, "llvm-cpu")
        dumps = Path(case["output"]).parent / "phases"
        for number, phase in enumerate(case["phases"][:-1], 1):
            (dump,) = dumps.glob(f"*.{number}.{phase['name']}.mlir")
            assert dump.stat().st_size == phase["bytes"]
        text = next(dumps.glob("*.flow.mlir")).read_text()
        dispatches = len(re.findall(r"^\s*(?:%\S+ = )?flow\.dispatch @", text, re.MULTILINE))
        assert 0 < dispatches <= case["phases"][5]["ops"]["flow"]


def test_llama_on_vulkan_agrees_closely(shared_cache: Path) -> None:
    done = pilot(
        "run",
        "llama:tiny",
        "-t",
        "vulkan",
        "--json",
        env={"IREE_PILOT_CACHE": shared_cache},
    )
    (case,) = done.document["cases"]
    if case["device"] is None:
        pytest.skip("there is no Vulkan device on this machine")
    assert (done.code, case["status"]) == (0, "ok"), case["failure"]
    outputs = [o for f in case["functions"] for o in f["comparison"]["outputs"]]
    assert max(o["rel_l2"] for o in outputs) < 1e-5
    assert min(o["rel_l2"] for o in outputs) >= 0


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "a.mlir"
    path.write_text(MLIR)
    return path


@pytest.mark.usefixtures("program")
class TestStreams:
    def run(self, *arguments: str, **env: str) -> Done:
        return pilot("run", "a.mlir", "-t", "llvm-cpu,hip:gfx942", *arguments, env=env)

    def test_a_pipe_gets_plain_lines(self) -> None:
        done = self.run()
        assert (done.code, done.err) == (0, "")
        assert not ESCAPE.search(done.out)
        # On a busy machine a line says now and then that a step goes on.
        lines = [line for line in done.out.splitlines() if not line.startswith("  still ")]
        assert lines[0] == "reading a.mlir"
        assert lines[1].startswith("a.mlir  read in ")
        for phase in PHASES:
            assert any(line.strip().startswith(phase) for line in lines)
        assert lines[-1].startswith("took ")
        table = lines[-3:-1]
        assert table[0].split()[:2] == ["llvm-cpu", "ok"]
        assert table[1].split()[:2] == ["hip:gfx942", "compiled"]
        assert "compiled, not run: no HIP device" in table[1]
        assert "iree-compile" not in done.out
        told = self.run("-v").out
        assert "iree-compile" in told and "iree-run-module" in told

    def test_a_terminal_gets_colour_unless_it_is_unwanted(self) -> None:
        def on_terminal(**env: str) -> str:
            master, slave = pty.openpty()
            own = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "120", **env}
            if not env:
                own.pop("NO_COLOR", None)
            with subprocess.Popen(
                [PROGRAM, "run", "a.mlir", "-t", "llvm-cpu"],
                stdin=slave,
                stdout=slave,
                stderr=slave,
                env=own,
            ) as process:
                os.close(slave)
                parts = []
                while True:
                    try:
                        part = os.read(master, 65536)
                    except OSError:  # the terminal's other side is closed
                        break
                    if not part:
                        break
                    parts.append(part)
            os.close(master)
            assert process.returncode == 0
            return b"".join(parts).decode()

        colours = re.compile(r"\x1b\[[0-9;]*3[0-9]m")
        assert colours.search(on_terminal())
        plain = on_terminal(NO_COLOR="1")
        assert not colours.search(plain)
        assert "llvm-cpu" in plain

    def test_json_is_all_there_is_on_stdout(self) -> None:
        done = self.run("--json")
        # On a busy machine a line says now and then that a step goes on.
        said = [line for line in done.err.splitlines() if not re.match(r"  (\S+: )?still ", line)]
        assert (done.code, said) == (0, [])
        assert len(done.document["cases"]) == 2
        assert done.out.count("\n") <= 1 or done.out.lstrip().startswith("{")

    def test_quiet_tells_the_outcome_only(self) -> None:
        done = self.run("-q")
        assert done.code == 0
        lines = [line for line in done.out.splitlines() if line.strip()]
        assert len(lines) == 3
        assert lines[1].split()[:2] == ["llvm-cpu", "ok"]

    def test_quiet_still_tells_a_failure(self) -> None:
        failing = TESTS / "corpus/programs/i8-sub.mlir"
        done = pilot("compile", failing, "-t", "llvm-cpu", "-q")
        assert done.code == 1
        for word in ("crash", "SIGSEGV", "torch.aten.sub.Scalar", "MulIOp", "iree-compile"):
            assert word in done.out

    def test_verbose_tells_more(self) -> None:
        assert len(self.run("-v").out) > len(self.run().out)

    def test_what_cannot_be_compared_is_said(self, tmp_path: Path) -> None:
        (tmp_path / "a.mlir").write_text(UNDEFINED)
        case = self.run("--json").document["cases"][0]
        (compare,) = (s for s in case["steps"] if s["name"] == "compare")
        why = (
            "there is no reference to compare with: its results depend on what MLIR leaves "
            "undefined: a number outside of i8 converted to it"
        )
        assert (compare["status"], compare["why"]) == ("ran", why)
        assert (case["status"], case["why"]) == ("ran", f"ran, not compared: {why}")


@pytest.mark.usefixtures("program")
class TestCompile:
    def test_the_module_is_put_where_it_was_asked_for(self, tmp_path: Path) -> None:
        done = pilot("compile", "a.mlir", "-t", "llvm-cpu", "-o", "out.vmfb")
        assert done.code == 0
        first = (tmp_path / "out.vmfb").read_bytes()
        assert len(first) > 1000
        (tmp_path / "out.vmfb").write_bytes(b"older")
        assert pilot("compile", "a.mlir", "-t", "llvm-cpu", "-o", "out.vmfb").code == 0
        assert (tmp_path / "out.vmfb").read_bytes() == first
        assert sorted(p.name for p in tmp_path.iterdir()) == ["a.mlir", "out.vmfb"]
        mode = (tmp_path / "out.vmfb").stat().st_mode & 0o777
        umask = os.umask(0)
        os.umask(umask)
        assert mode == 0o666 & ~umask

    def test_stdout_may_be_the_output(self, tmp_path: Path) -> None:
        done = pilot("compile", "a.mlir", "-t", "llvm-cpu", "--to", "flow", "-o", "-")
        assert done.code == 0
        assert "flow.dispatch" in done.out
        (tmp_path / "flow.mlir").write_text(done.out)
        resumed = pilot("compile", "flow.mlir", "-t", "llvm-cpu", "--from", "flow", "--json")
        assert resumed.code == 0, resumed.err
        (case,) = resumed.document["cases"]
        assert [p["name"] for p in case["phases"]] == PHASES[PHASES.index("stream") :]

    def test_flags_after_the_dashes_go_to_the_compiler(self) -> None:
        done = pilot("compile", "a.mlir", "-t", "llvm-cpu", "--json", "--", "--iree-opt-level=O3")
        (case,) = done.document["cases"]
        assert "--iree-opt-level=O3" in case["command"]
        assert case["status"] == "compiled"

    def test_what_the_compiler_prints_can_be_found(self) -> None:
        done = pilot("compile", "a.mlir", "-t", "llvm-cpu", "--json", "--", "--mlir-timing")
        (case,) = done.document["cases"]
        assert "Execution time report" in Path(case["messages"]).read_text()

    def test_another_backend_of_the_compiler(self) -> None:
        done = pilot(
            "compile",
            "a.mlir",
            "-t",
            "llvm-cpu",
            "--json",
            "--",
            "--iree-hal-local-target-device-backends=vmvx",
            "--iree-hal-target-device=local",
        )
        (case,) = done.document["cases"]
        assert (done.code, case["status"]) == (0, "compiled")


@pytest.mark.usefixtures("program")
class TestTrace:
    def test_a_program_in_a_directory_of_the_users(self, tmp_path: Path) -> None:
        done = pilot("trace", "a.mlir", "-o", "traced", "--json")
        assert done.code == 0
        assert done.document["program"]["directory"] == str(tmp_path / "traced")
        names = {p.name for p in (tmp_path / "traced").iterdir()}
        assert {"program.json", "a.mlir", "data"} <= names
        assert "manifest.json" not in names
        (tmp_path / "traced" / "a.mlir").write_text("the user may write here")
        again = pilot("trace", "a.mlir", "-o", "traced")
        assert (again.code, again.err) == (0, "wrote traced\n")
        assert (tmp_path / "traced" / "a.mlir").read_text() == MLIR
        assert sorted(p.name for p in tmp_path.iterdir()) == ["a.mlir", "traced"]

    def test_a_directory_with_other_files_is_left_alone(self, tmp_path: Path) -> None:
        (tmp_path / "full").mkdir()
        (tmp_path / "full" / "thesis.txt").write_text("years")
        done = pilot("trace", "a.mlir", "-o", "full")
        assert done.code == 2
        assert "files that are no program's" in done.err
        assert (tmp_path / "full" / "thesis.txt").read_text() == "years"
