"""Real models that fail with the pinned release are classified as what they are, end to end."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from driver import pilot
from places import CASES

VULKAN = "vulkan:vp_android_baseline_2022"
TARGETS = "executable-targets"
PRELU = (
    "'linalg.generic' op inferred input/output operand #1 has shape's dimension #0 to be 64, "
    "but found 16"
)
EXTF = "failed to legalize operation 'arith.extf' that was explicitly marked illegal"
BITCAST = "failed to legalize operation 'vector.bitcast'"
ATTENTION = "'iree_linalg_ext.online_attention' op result #0 must be variadic of ranked tensor"
SDPA = "torch.aten.scaled_dot_product_attention"
CONVERT = "torch.prims.convert_element_type"
#: Model, target, failing phase, message, operation, and the operation in the line it is from.
DIAGNOSTICS = [
    ("prelu", "llvm-cpu", "input", PRELU, "linalg.generic", "torch.aten.prelu"),
    ("f8_half", "llvm-cpu", TARGETS, EXTF, "arith.extf", CONVERT),
    ("f16_matmul", VULKAN, TARGETS, BITCAST, "vector.bitcast", "torch.aten.matmul"),
    ("attention", VULKAN, TARGETS, ATTENTION, "iree_linalg_ext.online_attention", SDPA),
    ("fp8_llama:layers16", VULKAN, TARGETS, BITCAST, "vector.bitcast", CONVERT),
]

pytestmark = pytest.mark.real


@pytest.fixture
def run(shared_cache: Path) -> Any:
    """Runs a model for a target; returns the exit code and the one case of the document."""

    def ran(model: str, target: str, *options: str) -> tuple[int, dict[str, Any]]:
        name, colon, factory = model.partition(":")
        source = f"{CASES / name}.py{colon}{factory}"
        done = pilot(
            *("run", source, "-t", target, "--no-decompose", "--json", *options),
            env={"IREE_PILOT_CACHE": shared_cache},
        )
        (case,) = done.document["cases"]
        return done.code, case

    return ran


def statuses(case: dict[str, Any]) -> dict[str, str]:
    return {step["name"]: step["status"] for step in case["steps"]}


def operation_at(location: str) -> str:
    """The operation in the line of the program that a location names."""
    file, line, _ = location.rsplit(":", 2)
    text = Path(file).read_text().splitlines()[int(line) - 1]
    found = re.search(r"= (torch\.[\w.]+)", text)
    return found[1] if found else text


class TestDiagnostics:
    @pytest.mark.parametrize(
        ("model", "target", "phase", "message", "op", "at"),
        DIAGNOSTICS,
        ids=lambda value: value[:20],
    )
    def test_it_names_phase_operation_and_line(
        self, run: Any, model: str, target: str, phase: str, message: str, op: str, at: str
    ) -> None:
        code, case = run(model, target)
        assert code == 1
        assert (case["status"], case["why"]) == ("failed", "does not compile")
        assert statuses(case) == {"trace": "ok", "compile": "failed"}
        failure = case["failure"]
        assert failure["kind"] == "diagnostic"
        assert failure["message"].startswith(message)
        assert failure["phase"] == phase
        assert case["phase_confirmed"] is True
        assert failure["op"] == op
        assert operation_at(failure["location"]) == at
        assert failure["signal"] is None
        assert failure["also"] == []
        assert [p["name"] for p in case["phases"]][-1:] != [phase], "the phase left no dump"

    def test_two_failures_at_once_are_both_told(self, run: Any) -> None:
        code, case = run("fp8_attention", VULKAN)
        assert code == 1
        failures = [case["failure"], *case["failure"]["also"]]
        assert len(failures) == 2
        assert {f["kind"] for f in failures} == {"diagnostic"}
        assert {f["phase"] for f in failures} == {TARGETS}
        by_op = {f["op"]: f for f in failures}
        attention = by_op["iree_linalg_ext.online_attention"]
        assert attention["message"].startswith(ATTENTION)
        assert operation_at(attention["location"]) == SDPA
        assert by_op["vector.bitcast"]["message"].startswith(BITCAST)
        assert len({f["signature"] for f in failures}) == 2

    def test_one_bug_has_one_signature_in_models_of_any_size(self, run: Any) -> None:
        signatures = {
            run(model, VULKAN)[1]["failure"]["signature"]
            for model in ("f16_matmul", "fp8_llama:layers16")
        }
        assert len(signatures) == 1


class TestCrashes:
    def test_one_with_a_stack(self, run: Any) -> None:
        code, case = run("argsort", VULKAN)
        assert code == 1
        failure = case["failure"]
        assert (failure["kind"], failure["signal"]) == ("crash", "SIGSEGV")
        assert failure["stack"][0].startswith("mlir::IntegerAttr::getInt")
        assert failure["phase"] == TARGETS
        assert failure["pass"] == "GPUDistributeSharedMemoryCopyPass"
        assert case["phase_confirmed"] is True

    def test_one_after_a_diagnostic(self, run: Any) -> None:
        code, case = run("i8_sub", "llvm-cpu")
        assert code == 1
        failure = case["failure"]
        assert (failure["kind"], failure["signal"]) == ("crash", "SIGSEGV")
        assert failure["message"].startswith(
            "unimplemented: for conversion to byte or char type dstOriginalDtype has to be passed"
        )
        assert failure["phase"] == "input"
        assert failure["op"] == "torch.aten.sub.Scalar"
        assert operation_at(failure["location"]) == "torch.aten.sub.Scalar"
        assert failure["stack"]


def test_a_compile_that_does_not_end(run: Any) -> None:
    assert run("softmax", "llvm-cpu")[0] == 0, "traced, so that only the compile meets the limit"
    code, case = run("softmax", "hip:gfx942", "--time-limit", "12s")
    assert code == 1
    assert case["failure"]["kind"] == "timeout"
    assert case["failure"]["phase"] in (TARGETS, "hal")
    assert case["failure"]["message"] == "stopped at the time limit, after 12 s"
    assert case["phase_confirmed"] is None


def test_a_module_that_does_not_run(run: Any) -> None:
    code, case = run("f64", "llvm-cpu")
    assert code == 1
    assert statuses(case) == {"trace": "ok", "compile": "ok", "load": "ok", "run": "failed"}
    failure = case["failure"]
    assert (failure["kind"], failure["phase"]) == ("runtime-error", "run")
    assert failure["message"].startswith(
        "OUT_OF_RANGE; buffer view byte length 1224 exceeds backing buffer byte length 612"
    )
    assert case["functions"][0]["commands"], "the command to see it again"


def test_wrong_numbers(run: Any) -> None:
    code, case = run("u8_sort", "llvm-cpu")
    assert code == 1
    assert statuses(case)["compare"] == "failed"
    assert case["failure"]["kind"] == "mismatch"
    assert "85 of 85 elements differ" in case["failure"]["message"]
    outputs = case["comparison"]["outputs"]
    assert [(o["mismatched"], o["tolerance"]) for o in outputs] == [(85, 0.0), (15, 0.0)]


def test_what_is_right_in_more_than_one_way_is_not_accused(run: Any) -> None:
    code, case = run("delicate", "llvm-cpu")
    assert (code, case["status"]) == (0, "ok"), case["why"]
    weighted, indices, small = case["comparison"]["outputs"]
    assert {o["verdict"] for o in (weighted, indices, small)} == {"ok"}
    assert indices["basis"] == "indices of aten.topk are right where they point to equal values"


def test_what_depends_on_random_numbers_is_not_compared(run: Any) -> None:
    code, case = run("noisy_pad:coder", "llvm-cpu")
    assert (code, case["status"]) == (0, "ran")
    noisy, mean = case["comparison"]["outputs"]
    assert (noisy["verdict"], noisy["why"]) == (
        "not-compared",
        "it draws random numbers: aten.randn_like",
    )
    assert mean["verdict"] == "ok"
    assert "aten.randn_like" in case["why"] and "the other output agrees" in case["why"]


@pytest.mark.parametrize("model", ["batchnorm", "chunk", "f8_matmul", "zero_rows"])
def test_what_older_releases_failed_on_agrees_with_pytorch(run: Any, model: str) -> None:
    code, case = run(model, "llvm-cpu")
    assert code == 0
    assert set(statuses(case).values()) == {"ok"}
    assert case["failure"] is None
    assert case["comparison"]["rel_l2"] <= case["comparison"]["tolerance"] < 0.01


class TestWeightsInFP8:
    def test_they_go_to_an_archive_and_run(self, run: Any) -> None:
        code, case = run("f8_weight", "llvm-cpu")
        assert code == 0
        assert case["comparison"]["rel_l2"] <= case["comparison"]["tolerance"] < 0.05

    def test_inline_they_do_not_trace(self, run: Any) -> None:
        code, case = run("f8_weight", "llvm-cpu", "--inline-parameters")
        assert code == 1
        assert (case["status"], case["why"]) == ("failed", "does not trace")
        assert statuses(case) == {"trace": "failed"}
        assert case["failure"]["kind"] == "trace-error"
        assert "Got unsupported ScalarType Float8_e4m3fn" in case["failure"]["message"]
