"""The zoo's tiny models through the whole driver: traced, compiled, run, near PyTorch."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

pytestmark = pytest.mark.real


def run(source: str, *targets: str) -> list[dict[str, Any]]:
    """The records of a source's cases, one a target."""
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.cli", "run", source, "-t", ",".join(targets), "--json"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.stdout, done.stderr
    cases: list[dict[str, Any]] = json.loads(done.stdout)["cases"]
    return cases


def assert_agrees(case: dict[str, Any], rel_l2: float) -> None:
    assert case["status"] == "ok", case["failure"]
    assert case["comparison"]["rel_l2"] < rel_l2


@pytest.mark.parametrize("source", ["resnet", "vit", "bert"])
def test_a_classifier_agrees_on_the_processor(source: str) -> None:
    (case,) = run(source, "llvm-cpu")
    assert_agrees(case, 1e-5)


def test_llama_agrees_on_the_processor_and_on_vulkan() -> None:
    processor, vulkan = run("llama", "llvm-cpu", "vulkan")
    assert_agrees(processor, 1e-5)
    if vulkan["status"] == "not-run":
        pytest.skip(vulkan["why"])
    assert_agrees(vulkan, 1e-5)


def test_llama_fp8_agrees_within_its_roundings_and_compiles_for_a_device_not_here() -> None:
    processor, hip = run("llama-fp8", "llvm-cpu", "hip:gfx942")
    assert_agrees(processor, 0.033)
    steps = {step["name"]: step["status"] for step in hip["steps"]}
    assert steps["compile"] == "ok", hip["failure"]
