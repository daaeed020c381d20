"""Models get past operations that IREE cannot compile, where PyTorch decomposes them."""

from __future__ import annotations

from pathlib import Path

import pytest
from driver import pilot

MODEL = """
import torch

class Steps(torch.nn.Module):
    def forward(self, x, y):
        both = (x > 0).__and__(y > 0)
        return torch.diff(both.to(x.dtype)) + x[:, 1:]

def model():
    return Steps()

def inputs():
    torch.manual_seed(0)
    return torch.randn(4, 9), torch.randn(4, 9)
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "steps.py").write_text(MODEL)
    return tmp_path / "steps.py"


@pytest.mark.real
def test_a_model_runs_and_what_was_decomposed_is_told(model: Path, shared_cache: Path) -> None:
    env = {"IREE_PILOT_CACHE": shared_cache}
    done = pilot("run", model, "-t", "llvm-cpu,vulkan", env=env)
    assert done.code == 0, done.err
    assert "note: aten.diff: decomposed by PyTorch, since the torch dialect has no such" in done.out
    assert "note: aten.__and__.Tensor: decomposed by PyTorch, since IREE" in done.out
    traced = pilot("trace", model, "-o", model.parent / "out", "--json", env=env).document
    assert {one["op"] for one in traced["program"]["decomposed"]} == {
        "aten.diff",
        "aten.__and__.Tensor",
    }


@pytest.mark.real
def test_irees_own_view_stays_to_be_had(model: Path, tmp_path: Path, shared_cache: Path) -> None:
    env = {"IREE_PILOT_CACHE": shared_cache, "IREE_PILOT_DATA": tmp_path / "data"}
    done = pilot("run", model, "-t", "llvm-cpu", "--no-decompose=aten.diff", env=env)
    assert done.code == 1
    assert "does not compile: torch.aten.diff" in done.out
    assert f"next: iree-pilot bisect {model} --no-decompose=aten.diff -t llvm-cpu" in done.out
    found = pilot(*("bisect", model, "-t", "llvm-cpu", "-o", tmp_path / "gap", "--json"), env=env)
    assert found.code == 0, found.err
    (made,) = (one["reproducer"] for one in found.document["failures"])
    assert (made["op_names"], made["verified"]) == (["torch.aten.diff"], True)
    assert "pytorch" in made["levels"], "the script shows the gap with the stock tools"
    again = pilot("bisect", model, "-t", "llvm-cpu", "-o", tmp_path / "gap", env=env)
    assert "isolating what is decomposed, as IREE has it (aten." in again.out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("run", "--no-decompose", "MODEL", "-t", "llvm-cpu"), "write SOURCE before it"),
        (("run", "MODEL", "-t", "llvm-cpu", "--no-decompose", "Diff"), "is no operation"),
        (("run", "a.mlir", "-t", "llvm-cpu", "--no-decompose"), "nothing of it is decomposed"),
    ],
)
def test_wrong_usage(model: Path, words: tuple[str, ...], said: str) -> None:
    (model.parent / "a.mlir").write_text("func.func @main() { return }")
    given = (str(model) if word == "MODEL" else word for word in words)
    done = pilot(*given, cwd=model.parent)
    assert done.code == 2
    assert said in done.err


def run_source(place: Path, text: str, targets: str, cache: Path) -> dict[str, str]:
    """Runs a model on targets, on which it agrees; why each operation was decomposed."""
    place.write_text(text)
    done = pilot("run", place, "-t", targets, "--json", env={"IREE_PILOT_CACHE": cache})
    assert {case["status"] for case in done.document["cases"]} == {"ok"}, done.err
    return {one["op"]: one["reason"] for one in done.document["program"]["decomposed"]}


EXPERTS = """
import torch

class Experts(torch.nn.Module):
    def forward(self, x, counts):
        parts = x.split(counts.tolist())
        return torch.cat([part * (1 + number) for number, part in enumerate(parts)])

def model():
    return Experts().eval()

def inputs():
    torch.manual_seed(0)
    return torch.randn(10, 4), torch.tensor([3, 0, 5, 2])
"""
IMAGE = """
import torch

class Image(torch.nn.Module):
    def forward(self, x, scale):
        bright = x > 200
        return x / 255, x * scale, bright, x.sum(-1), x // 3, x - 0.5, torch.where(bright, x, 0)

def model():
    return Image().eval()

def inputs():
    torch.manual_seed(0)
    return torch.arange(256, dtype=torch.uint8).reshape(16, 16), torch.rand(16, 16)
"""


@pytest.mark.real
def test_parts_whose_sizes_the_inputs_decide(tmp_path: Path, shared_cache: Path) -> None:
    found = run_source(tmp_path / "experts.py", EXPERTS, "llvm-cpu", shared_cache)
    assert found.keys() == {"aten.split_with_sizes"}
    assert found["aten.split_with_sizes"].endswith("for parts of any size")


@pytest.mark.real
def test_bytes_of_an_image_are_not_taken_as_signed(tmp_path: Path, shared_cache: Path) -> None:
    found = run_source(tmp_path / "image.py", IMAGE, "llvm-cpu,vulkan", shared_cache)
    assert "computes wrong numbers for unsigned bytes" in found["aten.div.Tensor"]
    assert "does not lower it for unsigned bytes" in found["aten.floor_divide"]
