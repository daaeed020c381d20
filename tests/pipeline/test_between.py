"""Targets of one run are held against each other where there is no reference, and rightly so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from iree_pilot.pipeline import case
from iree_pilot.pipeline.case import Settings, Silent
from iree_pilot.pipeline.case_result import CaseResult, FunctionResult, Step
from iree_pilot.pipeline.failures.diagnostics import Failure
from iree_pilot.pipeline.frontends.job import Job
from iree_pilot.pipeline.frontends.load import Loaded, load
from iree_pilot.pipeline.frontends.source import parse
from iree_pilot.pipeline.numerics import between
from iree_pilot.pipeline.program import tensors
from iree_pilot.pipeline.program.program import Function, Program, Reference, TensorType
from iree_pilot.pipeline.store.store import Store
from iree_pilot.pipeline.targets.targets import parse as target
from iree_pilot.pipeline.targets.targets import plan
from iree_pilot.pipeline.toolchain import releases
from iree_pilot.pipeline.toolchain.context import Context

WHY = "there is no reference to compare with"


class Bench:
    """One program without a reference, and what targets are made to give."""

    def __init__(self, directory: Path, text: str = "", dtype: str = "f32") -> None:
        (directory / "program.mlir").write_text(text)
        function = Function(
            name="main",
            inputs=(),
            outputs=(TensorType(name="y", dtype=dtype, shape=(4,)),),
            example=(),
        )
        program = Program(
            source="a.mlir", digest="", functions=(function,), parameters=None, origin={}
        )
        self.loaded = Loaded(program=program, directory=str(directory), seconds=0.0, cached=False)
        (directory / "kept").mkdir()
        self.targets = between.TargetOutputs(self.loaded, directory / "kept")

    def ran(self, name: str, values: Any, failure: Failure | None = None) -> CaseResult:
        place = Path(self.targets.place(name)) / "main"
        if failure is None and self.targets.place(name):
            place.mkdir(parents=True)
            outputs = (tensors.save(np.asarray(values), place, "0.bin"),)
            (place / "outputs.json").write_bytes(msgspec.json.encode(outputs))
        function = FunctionResult(
            name="main",
            commands=(),
            peak_bytes=0,
            latency=None,
            latency_note="",
            comparison=None,
            evaluator="",
            failure=failure,
        )
        return self.targets.compared(
            CaseResult(
                target=name,
                release="3.13.0",
                device=None,
                arch=None,
                status="failed" if failure else "ran",
                why="does not run" if failure else f"ran, not compared: {WHY}",
                steps=(Step(name="run", status="ok"), Step(name="compare", status="ran", why=WHY)),
                functions=(function,),
                failure=failure,
            )
        )


FOUR = np.array([1.0, -2.0, 3.0, 0.5], np.float32)


def test_targets_that_agree_ran_and_say_so(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    results = between.agreed([bench.ran("llvm-cpu", FOUR), bench.ran("vulkan", FOUR * (1 + 1e-6))])
    assert [r.status for r in results] == ["ran", "ran"]
    assert [r.why for r in results] == [
        f"ran, agrees with vulkan, not compared: {WHY}",
        f"ran, agrees with llvm-cpu, not compared: {WHY}",
    ]
    (against,) = results[1].functions[0].against
    assert (against.target, against.comparison.verdict) == ("llvm-cpu", "ok")


def test_targets_that_differ_fail_with_both_named(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    wrong = FOUR + np.array([0, 0, 1, 0], np.float32)
    results = between.agreed(
        [bench.ran("llvm-cpu", FOUR), bench.ran("vulkan", wrong), bench.ran("hip", FOUR)]
    )
    assert [r.status for r in results] == ["ran", "failed", "failed"]
    assert results[0].why == f"ran, agrees with hip, vulkan differs, not compared: {WHY}"
    assert results[1].why == "runs, but differs from llvm-cpu"
    assert results[2].why == "runs, but differs from vulkan"
    failure = results[1].failure
    assert failure is not None and results[1].functions[0].failure == failure
    assert (failure.kind, failure.phase) == ("mismatch", "compare")
    assert failure.signature.startswith("mismatch/targets-differ/")
    for said in (
        "output 0 (y, 4) of vulkan and of llvm-cpu differ: 1 of 4 elements, most at [2]: 4 and 3",
        "it is not known which is right",
        "bisect with -t vulkan --against llvm-cpu finds the dispatch",
    ):
        assert said in failure.message
    assert results[1].steps[-1].status == "failed"


def test_integers_are_exact(tmp_path: Path) -> None:
    bench = Bench(tmp_path, dtype="i32")
    bench.ran("llvm-cpu", np.arange(4, dtype=np.int32))
    near = np.array([0, 1, 2, 4], np.int32)
    assert bench.ran("vulkan", near).status == "failed"


def test_f64_is_held_to_the_digits_that_are_left_when_it_is_compiled_as_f32(
    tmp_path: Path,
) -> None:
    bench = Bench(tmp_path, "func.func @main() -> tensor<4xf64>", dtype="f64")
    wide = FOUR.astype(np.float64)
    bench.ran("llvm-cpu", wide)
    assert bench.ran("vulkan", wide * (1 + 1e-7)).status == "ran"
    assert bench.ran("hip", wide * (1 + 1e-2)).status == "failed"


@pytest.mark.parametrize(
    "operation",
    ["torch.aten.rand_like %0", '"torch.aten.bernoulli.p"(%0)', "stablehlo.rng %a, %b",
     'torch.operator "onnx.RandomNormal"()'],
)  # fmt: skip
def test_what_draws_random_numbers_is_not_compared(tmp_path: Path, operation: str) -> None:
    bench = Bench(tmp_path, f"%1 = {operation} : ...")
    assert bench.targets.place("llvm-cpu") == ""
    bench.ran("llvm-cpu", FOUR)
    result = bench.ran("vulkan", -FOUR)
    assert (result.status, result.functions[0].against) == ("ran", ())


def test_a_target_that_fails_says_nothing(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    crash = Failure(kind="crash", message="it died", signature="crash/x", phase="run")
    bench.ran("llvm-cpu", FOUR, crash)
    result = bench.ran("vulkan", FOUR)
    assert (result.status, result.why) == ("ran", f"ran, not compared: {WHY}")


def test_zeros_on_both_sides_prove_nothing(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.ran("llvm-cpu", 0 * FOUR)
    result = bench.ran("vulkan", 0 * FOUR)
    assert (result.status, result.why) == ("ran", f"ran, not compared: {WHY}")


def test_what_has_a_reference_is_left_to_it(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    (function,) = bench.loaded.program.functions
    function = msgspec.structs.replace(function, reference=Reference(outputs=()))
    program = msgspec.structs.replace(bench.loaded.program, functions=(function,))
    loaded = msgspec.structs.replace(bench.loaded, program=program)
    assert between.TargetOutputs(loaded, tmp_path).place("llvm-cpu") == ""


@pytest.mark.real
def test_what_two_targets_really_give(tmp_path: Path) -> None:
    source = tmp_path / "a.mlir"
    source.write_text(
        "func.func @main(%x: tensor<4x4xf32>) -> tensor<4x4xf32> {\n"
        "  %y = arith.mulf %x, %x : tensor<4x4xf32>\n  return %y : tensor<4x4xf32>\n}\n"
    )
    toolchain = releases.find(None)
    context = Context(toolchain=toolchain, store=Store(tmp_path / "store"))
    loaded = load(Job(source=parse(str(source), {}, None), evaluate=False), context)
    (tmp_path / "kept").mkdir()
    targets = between.TargetOutputs(loaded, tmp_path / "kept")
    found = []
    for name in ("llvm-cpu", "llvm-cpu:generic"):
        settings = Settings(latency_budget=0, keep=targets.place(name))
        planned = plan(target(name), toolchain)
        ran = case.run(loaded, planned, context, settings, Silent())
        found.append(targets.compared(ran))
    assert [r.status for r in between.agreed(found)] == ["ran", "ran"]
    assert found[1].functions[0].against[0].comparison.verdict == "ok"
