"""The zoo's models through the whole driver: traced, compiled, run, near PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from driver import pilot

from iree_pilot.models.spec import registry, resolve

pytestmark = pytest.mark.real

TARGETS = ("llvm-cpu", "vulkan", "hip:gfx942")
SOURCES = [*registry(), "attention:sdpa", "mixtral-moe:eager"]
_DATA_DEPENDENT = ("trace-error", "trace-error/GuardOnDataDependentSymNode/")
#: What does not go well with IREE 3.13 and llvmpipe: the failure's kind and its signature's start.
KNOWN = {
    # At its width of 64 something else is computed, of memory that nobody wrote: other numbers or
    # NaN; at 48 it is not.
    "gemma3-vision": {"vulkan": ("mismatch", "mismatch/")},
    "llama-fp8": {"vulkan": ("diagnostic", "diagnostic/vector.bitcast/op-source-result-bitwidth")},
    "mixtral-moe:eager": dict.fromkeys(TARGETS, _DATA_DEPENDENT),
}
#: Larger ones, made of what others hold too: here on llvm-cpu alone, in a nightly on every target.
LARGER = {
    *("gemma", "gemma2", "gemma3", "gemma3-multimodal", "paligemma", "paligemma2"),
    *("qwen2.5-vl", "unet", "whisper-encoder"),
}
#: How far results may be from PyTorch's where rounding to FP8 multiplies small differences.
ROUNDINGS = {"llama-fp8": 0.033}


def run(
    source: str, *targets: str, cache: Path, options: tuple[str, ...] = ()
) -> list[dict[str, Any]]:
    """The records of a source's cases, one a target."""
    words = ("run", source, "-t", ",".join(targets), "--json", *options)
    done = pilot(*words, env={"IREE_PILOT_CACHE": cache})
    cases: list[dict[str, Any]] = done.document["cases"]
    return cases


def assert_agrees(case: dict[str, Any], rel_l2: float) -> None:
    assert case["status"] == "ok", case["failure"]
    assert case["comparison"]["rel_l2"] < rel_l2


def assert_chained(case: dict[str, Any], steps: int) -> None:
    tokens = (case["generation"] or {"tokens": []})["tokens"]
    assert [t["step"] for t in tokens] == [*range(1, steps + 1)]
    for token in tokens:
        assert token["token"] == token["reference_token"]
        assert 0 < token["rel_l2"] < 1e-5


def assert_as_known(
    source: str,
    known: Mapping[str, tuple[str, str]],
    rel_l2: float,
    cache: Path,
    options: tuple[str, ...] = (),
) -> None:
    """Each target agrees or, if it is one of `known`, fails with that kind and signature."""
    spec = resolve(source, {}).spec
    without_device = {}
    targets = TARGETS[:1] if source in LARGER else TARGETS
    for case in run(source, *targets, cache=cache, options=options):
        target, failure = case["target"], case["failure"]
        if target != "hip:gfx942" and case["status"] == "compiled":
            without_device[target] = case["why"]
        elif target in known:
            kind, signature = known[target]
            assert failure is not None, f"{target}: mended?"
            assert failure["kind"] == kind
            assert failure["signature"].startswith(signature)
        elif target == "hip:gfx942":
            assert failure is None
            assert [s["status"] for s in case["steps"] if s["name"] == "compile"] == ["ok"]
        else:
            assert_agrees(case, rel_l2)
            assert [f["name"] for f in case["functions"]] == list(spec.parts or ("main",))
            assert_chained(case, spec.generates)
    if without_device:
        pytest.skip(str(without_device))


@pytest.mark.slow
@pytest.mark.parametrize("source", SOURCES)
def test_a_tiny_model_agrees_or_fails_as_known(source: str, shared_cache: Path) -> None:
    """A wrong result is known as a mismatch, never let pass with a wider tolerance."""
    known = KNOWN.get(source, {})
    assert_as_known(source, known, ROUNDINGS.get(source, 1e-5), shared_cache)


@pytest.mark.parametrize("fp8", ["e4m3fn", "e4m3fnuz"])
@pytest.mark.parametrize(("compute", "rel_l2"), [("f32", 1e-5), ("f16", 1e-3), ("bf16", 8e-3)])
def test_a_format_of_fp8_agrees_in_each_dtype_of_compute_or_fails_as_known(
    fp8: str, compute: str, rel_l2: float, shared_cache: Path
) -> None:
    """What f16 and bf16 allow is one rounding of theirs."""
    known = {}
    if fp8 == "e4m3fn":
        known["hip:gfx942"] = ("diagnostic", "diagnostic/arith.extf/op-f8e5m2-and-f8e4m3fn-types")
    if compute == "bf16":
        known["vulkan"] = ("diagnostic", "diagnostic/vector.bitcast/failed-to-legalize-operation/")
    options = ("--set", f"fp8={fp8}", "--set", f"compute={compute}")
    assert_as_known("fp8-linear", known, rel_l2, shared_cache, options)


def test_a_known_failure_is_one_of_a_model_that_there_is() -> None:
    assert set(KNOWN) | set(ROUNDINGS) | LARGER <= set(SOURCES)
    assert not set(KNOWN) & LARGER


def test_gelu_with_tanh_gets_a_wrong_constant_from_the_compiler(shared_cache: Path) -> None:
    (processor,) = run(
        "gemma/decode",
        "llvm-cpu",
        cache=shared_cache,
        options=("--set", "gelu=fused", "--set", "layers=1", "--no-decompose=aten.gelu"),
    )
    assert processor["failure"]["kind"] == "mismatch"
    assert 1e-5 < processor["comparison"]["rel_l2"] < 1e-4


@pytest.mark.parametrize(
    ("source", "other"),
    [
        ("bert", {"length": "40"}),
        ("llama/prefill", {"length": "21"}),
        ("gemma3/decode", {"length": "37"}),
        ("paligemma2/prefill", {"length": "21", "image": "28"}),
        ("qwen2.5-vl/prefill", {"text": "21"}),
    ],
)
def test_a_dynamic_length_other_than_the_examples_agrees(
    source: str, other: dict[str, str], tmp_path: Path, shared_cache: Path
) -> None:
    options = ["--set", "dynamic=true"]
    (entry,) = resolve(source, other).build().functions
    for name, value in zip(entry.input_names, entry.args, strict=True):
        np.save(tmp_path / f"{name}.npy", value.numpy())
        options += ["--input", str(tmp_path / f"{name}.npy")]
    (processor,) = run(source, "llvm-cpu", cache=shared_cache, options=tuple(options))
    assert_agrees(processor, 1e-5)
    with torch.no_grad():
        expected = [list(value.shape) for value in entry.module(*entry.args)]
    assert [o["shape"] for o in processor["comparison"]["outputs"]] == expected


#: A tower of one narrow layer: patches are what the resolution is about.
NARROW = {"vision_layers": 1, "vision_width": 32, "vision_hidden": 32, "vision_heads": 1}


@pytest.mark.parametrize(
    ("source", "settings", "shape"),
    [
        ("paligemma2/vision", {**NARROW, "image": 224, "layers": 1}, [1, 256, 64]),
        ("paligemma/vision", {**NARROW, "image": 448, "layers": 1}, [1, 1024, 64]),
        ("paligemma2/vision", {**NARROW, "image": 896, "layers": 1, "heads": 2}, [1, 4096, 64]),
        ("gemma3-vision", {**NARROW, "image": 896, "tokens": 256}, [1, 256, 64]),
        (
            "qwen2.5-vl/vision",
            {"height": 448, "image_width": 448, "window": 112, "context": 512},
            [256, 64],
        ),
    ],
)
def test_an_image_of_published_size_agrees(
    source: str, settings: dict[str, Any], shape: list[int], shared_cache: Path
) -> None:
    options = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    (processor,) = run(source, "llvm-cpu", cache=shared_cache, options=tuple(options))
    assert_agrees(processor, 1e-5)
    assert [o["shape"] for o in processor["comparison"]["outputs"]] == [shape]
