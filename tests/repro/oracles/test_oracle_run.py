"""The runtime as an oracle: what compiles and then fails to run is told by how it fails."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from iree_pilot.pipeline.execution.runtime import Run, run
from iree_pilot.pipeline.failures import diagnostics
from iree_pilot.pipeline.frontends.job import Job
from iree_pilot.pipeline.frontends.load import Loaded, load
from iree_pilot.pipeline.frontends.source import Source
from iree_pilot.pipeline.processes import process
from iree_pilot.pipeline.store.store import Store
from iree_pilot.pipeline.toolchain.compiler import Compile
from iree_pilot.pipeline.toolchain.context import Context
from iree_pilot.pipeline.toolchain.toolchain import Toolchain, installed
from iree_pilot.repro.oracles.oracle_run import Running, RunOracle
from iree_pilot.repro.wrong_results.mismatch_oracle import MismatchOracle

pytestmark = pytest.mark.real

CPU = (
    "--iree-hal-target-device=local",
    "--iree-hal-local-target-device-backends=llvm-cpu",
    "--iree-llvmcpu-target-cpu=host",
)
LIMITS = process.Limits(seconds=60)
T = "!torch.vtensor<[3],f32>"
SMALL = "func.func @small(%a: tensor<2xf32>) -> tensor<2xf32> {\n  return %a : tensor<2xf32>\n}\n"


def doubling(name: str, type: str) -> str:
    tensor = f"!torch.vtensor<[3],{type}>"
    return (
        f"func.func @{name}(%a: {tensor}) -> {tensor} {{\n"
        "  %one = torch.constant.int 1\n"
        f"  %0 = torch.aten.add.Tensor %a, %a, %one : {tensor}, {tensor}, !torch.int -> {tensor}\n"
        f"  return %0 : {tensor}\n}}\n"
    )


@pytest.fixture
def toolchain() -> Toolchain:
    return installed()


@pytest.fixture
def running(toolchain: Toolchain, tmp_path: Path) -> Running:
    file = tmp_path / "whole.mlir"
    file.write_text(SMALL + doubling("main", "f64"))
    source = Source(text="whole.mlir", kind="mlir", path=str(file))
    loaded: Loaded = load(
        Job(source=source), Context(toolchain=toolchain, store=Store(tmp_path / "store"))
    )
    return Running(
        loaded=loaded, function="main", device="local-task", elsewhere="local-task", command=()
    )


@pytest.fixture
def oracle(toolchain: Toolchain, running: Running, tmp_path: Path) -> RunOracle:
    program = running.loaded.program
    module = tmp_path / "whole.vmfb"
    command = Compile(mlir=running.loaded.mlir, flags=CPU).command(
        toolchain, str(module), dumps=None
    )
    process.run(command, stdout=tmp_path / "out.txt", stderr=tmp_path / "err.txt")
    (function,) = (f for f in program.functions if f.name == "main")
    job = Run(
        program=program,
        directory=Path(running.loaded.directory),
        function=function,
        module=module,
        device="local-task",
    )
    failure = run(
        job, Context(toolchain=toolchain, directory=tmp_path / "run"), latency_budget=0
    ).failure
    assert failure is not None
    return RunOracle(
        Context(toolchain=toolchain, limits=LIMITS, directory=tmp_path / "state"),
        CPU,
        failure,
        running,
    )


def test_each_candidate_gets_its_verdict_and_leaves_no_module(
    oracle: RunOracle, running: Running, tmp_path: Path
) -> None:
    texts = {
        "same": doubling("other", "f64"),
        "passes": doubling("main", "f32"),
        "different": doubling("main", "f32")
        .replace("torch.aten.add.Tensor %a, %a, %one", 'torch.operator "torch.my.op"(%a, %a, %one)')
        .replace(f": {T}, {T}, !torch.int", f": ({T}, {T}, !torch.int)"),
        "invalid": "nothing of the kind",
    }
    files = [tmp_path / f"{verdict}.mlir" for verdict in texts]
    for file, text in zip(files, texts.values(), strict=True):
        file.write_text(text)
    assert [answer.verdict for answer in oracle.ask(files)] == [*texts]
    assert not list((tmp_path / "state").rglob("*.vmfb"))


def test_the_whole_program_fails_again_with_its_own_inputs(
    oracle: RunOracle, running: Running
) -> None:
    failure = oracle.again(running.loaded.mlir)
    assert failure is not None and failure.signature == oracle.wanted.signature


def test_the_function_that_failed_is_found_among_others(running: Running) -> None:
    lines = running.loaded.mlir.read_text().splitlines()
    assert "torch.constant.int" in lines[running.line(running.loaded.mlir) - 1]


def test_numbers_that_are_wrong_in_another_way_are_wrong_all_the_same(
    toolchain: Toolchain, running: Running, tmp_path: Path
) -> None:
    """What reads memory that nobody wrote gives NaN in some runs, and other numbers in the rest."""
    first, later = (diagnostics.mismatch("it differs", what=what) for what in ("nan", "values"))
    oracle = MismatchOracle(
        Context(toolchain=toolchain, limits=LIMITS, directory=tmp_path / "asked"),
        CPU,
        first,
        running,
    )
    assert first.signature != later.signature
    assert oracle.shows(first) and oracle.shows(later)
    assert not oracle.shows(None)
    assert not oracle.shows(msgspec.structs.replace(later, kind="runtime-error"))
