"""What `run` and `compile` print of their cases, below the phases."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import pytest
from driver import pilot
from fake import stub_release
from fake.commands import case
from rich.console import Console

from iree_pilot.pipeline.case_result import CaseResult, FunctionResult
from iree_pilot.pipeline.cli.display.live import Live
from iree_pilot.pipeline.cli.display.screen import Screen
from iree_pilot.pipeline.cli.programs import cases
from iree_pilot.pipeline.execution.runtime import Latency
from iree_pilot.pipeline.failures.diagnostics import Failure

LATENCY = Latency(
    median_seconds=0.0372, min_seconds=0.03, max_seconds=0.04, repeats=3, calls=1, tool="a"
)
TWO = """\
func.func @main(%a: tensor<2xf32>) -> (tensor<2xf32>, tensor<2xf32>) {
  %b = arith.negf %a : tensor<2xf32>
  return %a, %b : tensor<2xf32>, tensor<2xf32>
}
"""


def function(name: str, latency: Latency | None) -> FunctionResult:
    return FunctionResult(
        name=name, commands=(), peak_bytes=0, latency=latency, latency_note="it takes too long",
        comparison=None, evaluator="",
    )  # fmt: skip


def row(functions: Sequence[FunctionResult], capsys: pytest.CaptureFixture[str]) -> str:
    made = CaseResult(
        target="vulkan", release="3.13.0", device=None, arch=None, status="ran", why="", steps=(),
        functions=tuple(functions),
    )  # fmt: skip
    live = Live(Console(width=200, highlight=False), quiet=False, verbose=False)
    cases._summary(live, [made], "net.py")
    return capsys.readouterr().out


def test_a_function_that_was_not_measured_has_its_place_in_the_latency(
    capsys: pytest.CaptureFixture[str],
) -> None:
    prefill, decode = function("prefill", None), function("decode", LATENCY)
    assert " - + 37.2 ms " in row([prefill, decode], capsys)
    assert " - " in row([prefill, prefill], capsys)
    assert " - + - " not in row([prefill, prefill], capsys)


@pytest.mark.parametrize(("tty", "end"), [(False, "(2x5 and 4x4)"), (True, "...")])
def test_a_reason_is_cut_on_a_terminal_only(tty: bool, end: str) -> None:
    said = "RuntimeError: mat1 and mat2 shapes cannot be multiplied, of linear in net (2x5 and 4x4)"
    made = CaseResult(
        target="llvm-cpu", release="3.13.0", device=None, arch=None, status="failed",
        why="does not trace", steps=(),
        failure=Failure(kind="trace-error", message=said, signature="a/b/c"),
    )  # fmt: skip
    file = io.StringIO()
    console = Screen(file=file, width=200, force_terminal=tty, color_system=None)
    cases._summary(Live(console, quiet=False, verbose=False), [made], "net.py")
    assert file.getvalue().rstrip().endswith(end)


def test_why_a_source_does_not_trace_is_said_of_it_and_once() -> None:
    failed = Failure(kind="trace-error", message="no", signature="a/b/c")
    results = [case(name, "does not trace", failed, trace="failed") for name in ("hip", "vulkan")]
    file = io.StringIO()
    live = Live(
        Screen(file=file, width=80, force_terminal=True, color_system=None),
        quiet=False,
        verbose=False,
    )
    cases._summary(live, results, "net.py")
    lines = file.getvalue().splitlines()
    assert [line.split()[:2] for line in lines[2:4]] == [["hip", "failed"], ["vulkan", "failed"]]
    assert lines[4:] == ["net.py: does not trace: no"]


@pytest.mark.real
def test_a_failure_to_trace_is_headed_with_the_source(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "import torch\n\n\nclass Net(torch.nn.Module):\n    def forward(self, x):\n"
        "        raise RuntimeError('no')\n\n\ndef model():\n    return Net()\n\n\n"
        "def inputs():\n    return (torch.ones(2),)\n"
    )
    done = pilot("run", "net.py", "-t", "llvm-cpu,vulkan", cwd=tmp_path)
    assert done.code == 1
    lines = [line.strip() for line in done.out.splitlines()]
    assert lines.count("net.py does not trace") == 1
    assert sum("does not trace" in line for line in lines) == 3  # and the rows of the targets
    assert [line.split()[1] for line in lines if line.startswith(("llvm", "vulk"))] == [
        "failed"
    ] * 2


def test_the_latencies_of_many_functions_are_not_all_in_the_table(
    capsys: pytest.CaptureFixture[str],
) -> None:
    measured = [function(f"f{n}", LATENCY) for n in range(4)]
    assert " 37.2 ms + 37.2 ms + 37.2 ms " in row(measured[:3], capsys)
    many = row(measured, capsys)
    assert " 4 functions " in many
    assert "37.2 ms" not in many


@pytest.mark.slow
def test_what_is_only_compiled_has_no_columns_for_what_is_measured(tmp_path: Path) -> None:
    stub_release(tmp_path / "release")
    (tmp_path / "a.mlir").write_text("module {\n}\n")
    words = ("a.mlir", "-t", "llvm-cpu", "--release", "./release")
    done = pilot("compile", *words, cwd=tmp_path, env={"IREE_PILOT_CACHE": tmp_path / "cache"})
    (head,) = (line for line in done.out.splitlines() if line.startswith("target "))
    assert head.split() == ["target", "verdict", "compile", "device", "why"]


@pytest.mark.real
def test_each_output_that_differs_says_why(shared_cache: Path, tmp_path: Path) -> None:
    (tmp_path / "two.mlir").write_text(TWO)
    done = pilot(
        "run", "two.mlir", "-t", "llvm-cpu", "--input", "2xf32=1 nan",
        "--expected-output", "2xf32=1 2", "--expected-output", "2xf32=-3 nan",
        cwd=tmp_path, env={"IREE_PILOT_CACHE": shared_cache},
    )  # fmt: skip
    assert done.code == 1, done.err
    first, second = (line for line in done.out.splitlines() if ": differs  " in line)
    assert "1 of 2 elements are NaN, Inf or finite where the reference is not, first [1]" in first
    assert "1 of 2 elements are wrong, worst [0]: -1 where -3 is expected; relative L2" in second
    assert "(the worst of 2 wrong ones of 2 outputs)" in done.out
