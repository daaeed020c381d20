"""What is measured of a case, and that a module's own figures come all the way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from driver import pilot
from fake.nights import failure, result

from iree_pilot.pipeline.case_result import CaseResult, FunctionResult, Step
from iree_pilot.pipeline.execution.runtime import Latency
from iree_pilot.pipeline.inspect.amdgpu import Kernel
from iree_pilot.pipeline.inspect.occupancy import Occupancy
from iree_pilot.pipeline.inspect.spirv import Checked, Complaint
from iree_pilot.pipeline.nightly.metrics import SIZES, TIMES, metrics
from iree_pilot.pipeline.toolchain.compiler import Dispatches


def kernel(vgprs: int, spills: int, waves: int | None = None) -> Kernel:
    return Kernel(
        name="k",
        vgprs=vgprs,
        sgprs=10,
        spills=spills,
        lds_bytes=0,
        scratch_bytes=4 * spills,
        workgroup=64,
        occupancy=Occupancy(waves=waves, most=8) if waves else None,
    )


def function(seconds: float | None) -> FunctionResult:
    latency = seconds and Latency(
        median_seconds=seconds,
        min_seconds=seconds,
        max_seconds=seconds,
        repeats=3,
        calls=1,
        tool="iree-benchmark-module",
    )
    return FunctionResult(
        name="main",
        commands=(),
        peak_bytes=7,
        latency=latency or None,
        latency_note="",
        comparison=None,
        evaluator="",
    )


FULL: dict[str, Any] = {
    "compile_seconds": 1.5,
    "peak_bytes": 2**20,
    "output_bytes": 5000,
    "dispatches": Dispatches(
        dispatches=12,
        executables=3,
        submissions=1,
        copies=0,
        fills=0,
        transient_bytes=4096,
        constant_bytes=64,
    ),
    "functions": (function(0.25), function(None), function(0.5)),
    "kernels": (kernel(64, 0), kernel(256, 12, waves=2), kernel(96, 3, waves=5)),
    "spirv": Checked(
        validator="v1",
        shaders=4,
        invalid=(
            Complaint(message="one", shaders=("a", "b")),
            Complaint(message="another", shaders=("c",)),
        ),
        unknown=(Complaint(message="new", shaders=("d",)),),
    ),
    "steps": (Step(name="trace", status="ok", seconds=3.0),),
}


def test_all_that_was_measured_is_there_once() -> None:
    found = metrics(result(**FULL))
    assert found == {
        "compile_seconds": 1.5,
        "peak_bytes": 2**20,
        "module_bytes": 5000,
        "dispatches": 12,
        "transient_bytes": 4096,
        "latency_seconds": 0.75,
        "trace_seconds": 3.0,
        "registers": 256,
        "spills": 15,
        "idle_waves": 6,
        "invalid_shaders": 3,
    }
    assert set(found) == {*TIMES, *SIZES}


def test_what_was_not_measured_is_absent() -> None:
    assert metrics(result(steps=())) == {}


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("compile_seconds", {"compile_seconds"}),
        ("dispatches", {"dispatches", "transient_bytes"}),
        ("functions", {"latency_seconds"}),
        ("kernels", {"registers", "spills", "idle_waves"}),
        ("spirv", {"invalid_shaders"}),
    ],
)
def test_each_figure_comes_from_its_own_place(name: str, missing: set[str]) -> None:
    less = {key: value for key, value in FULL.items() if key != name}
    assert set(metrics(result(**FULL))) - set(metrics(result(**less))) == missing


def test_a_trace_from_the_store_was_not_measured() -> None:
    cached = Step(name="trace", status="ok", seconds=0.01, cached=True)
    assert "trace_seconds" not in metrics(result(steps=(cached,)))


def test_a_failed_compile_has_no_module() -> None:
    assert "module_bytes" not in metrics(result(failure("a"), output_bytes=5000))


@pytest.mark.real
def test_registers_and_spills_of_a_real_compile_are_in_its_record(tmp_path: Path) -> None:
    program = tmp_path / "add.mlir"
    program.write_text(
        "func.func @main(%a: tensor<64xf32>) -> tensor<64xf32> {\n"
        "  %sum = arith.addf %a, %a : tensor<64xf32>\n  return %sum : tensor<64xf32>\n}\n"
    )
    done = pilot("compile", program, "-t", "hip:gfx942,vulkan", "--json")
    assert done.code == 0, done.err
    hip, vulkan = msgspec.convert(done.document["cases"], list[CaseResult])
    assert [kernel.spills for kernel in hip.kernels] == [0]
    assert metrics(hip)["registers"] >= 1
    assert metrics(hip)["idle_waves"] == 0
    assert vulkan.kernels == ()
    assert "registers" not in metrics(vulkan)
