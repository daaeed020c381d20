"""Models of libraries by name, from the command line: traced, compiled, run and compared."""

from __future__ import annotations

from pathlib import Path

import pytest
from driver import pilot

pytestmark = pytest.mark.real


@pytest.mark.parametrize(
    ("source", "options", "inputs"),
    [
        ("transformers:qwen3", ("--set", "length=8"), [[2, 8], [2, 8]]),
        ("timm:resnet10t", ("--input", "1x3x64x64xf32"), [[1, 3, 64, 64]]),
        (
            "torchvision.models:shufflenet_v2_x0_5",
            ("--input", "1x3x64x64xf32", "--kwargs", "num_classes=7"),
            [[1, 3, 64, 64]],
        ),
    ],
)
def test_a_model_runs_and_agrees(
    shared_cache: Path, source: str, options: tuple[str, ...], inputs: list[list[int]]
) -> None:
    done = pilot(
        *("run", source, "-t", "llvm-cpu", "--json", *options),
        env={"IREE_PILOT_CACHE": shared_cache},
    )
    assert done.code == 0, done.err
    (case,) = done.document["cases"]
    assert case["status"] == "ok"
    (function,) = done.document["program"]["functions"]
    assert [one["shape"] for one in function["inputs"]] == inputs


def test_what_is_no_model_of_a_library_is_refused(tmp_path: Path) -> None:
    done = pilot("trace", "transformers:Qwen9ForCausalLM", "-o", tmp_path / "out")
    assert done.code == 2
    assert "has no model 'Qwen9ForCausalLM'" in done.err
    assert "Qwen3" not in done.err


def test_an_argument_that_a_factory_does_not_take_is_named(tmp_path: Path) -> None:
    done = pilot(
        *("trace", "torchvision.models:resnet18", "--input", "1x3x64x64xf32"),
        *("--kwargs", "num_clases=7", "-o", tmp_path / "out"),
    )
    assert done.code == 2
    assert "resnet18() takes no argument 'num_clases'" in done.err


def test_a_module_without_inputs_says_how_to_give_them(tmp_path: Path) -> None:
    done = pilot("trace", "torchvision.models:resnet18", "-o", tmp_path / "out")
    assert done.code == 2
    assert "--input" in done.err
