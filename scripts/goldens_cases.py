"""The commands whose documents `bench_goldens` records: real failures, one or more of each kind."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec

_ROOT = Path(__file__).parent.parent
#: Directories whose sources are copied, so that no document depends on the checkout's path.
_SOURCES = ("tests/cases", "tests/corpus/programs", "examples")
CPU, VULKAN, HIP = "llvm-cpu", "vulkan:vp_android_baseline_2022", "hip:gfx942"

#: A program of two functions, of which one does not compile.
FUNCTIONS = """\
!bytes = !torch.vtensor<[4,8],si8>
func.func @double(%x: tensor<4xi64>) -> tensor<4xi64> {
  %r = arith.addi %x, %x : tensor<4xi64>
  return %r : tensor<4xi64>
}
func.func @less(%x: !bytes) -> !bytes {
  %int8 = torch.constant.int 8
  %int1 = torch.constant.int 1
  %0 = torch.aten.sub.Scalar %x, %int8, %int1 : !bytes, !torch.int, !torch.int -> !bytes
  return %0 : !bytes
}
"""
#: Neither operation has a lowering.
BOTH = """\
import torch


class Model(torch.nn.Module):
    def forward(self, x):
        return torch.fmod(x, -0.3) + torch.logsumexp(x, -1)[:, None]


def model():
    return Model().eval()


def inputs():
    torch.manual_seed(0)
    return (torch.randn(2, 4),)
"""
NIGHT = """\
title = "goldens"
[matrix]
models = ["model.py", "i8_sub.py"]
targets = ["llvm-cpu", "hip:gfx942"]
releases = ["installed"]
[schedule]
jobs = 1
[news]
releases = false
workaround = false
"""


class Rule(NamedTuple):
    """Replacement of a pattern's matches, and the reason that they differ between runs."""

    pattern: str
    instead: str
    why: str


#: Rule for a program whose wrong numbers are uninitialised memory.
CHANCE = (
    Rule(
        r'"(got|expected|error|max_abs|max_rel|rel_l2|excess|nan|inf)": [^,\n]*',
        r'"\1": "CHANCE"',
        "numbers that nobody wrote",
    ),
    Rule(r'"index": \[[^]]*\]', '"index": "CHANCE"', "which of them is the worst"),
    Rule(r"worst \[[\d, ]+\]: \S+ where [-+.e\d]+", "worst CHANCE", "the same in words"),
    Rule(r"\| \[[\d, ]+\] \| \S+ \| \S+ \|", "| CHANCE |", "the same in a table"),
)


class Step(msgspec.Struct, frozen=True):
    """One command of iree-pilot; its documents are called after `name`."""

    name: str
    words: tuple[str, ...]


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """Commands in one directory, one after the other, with a cache and data of their own.

    make: writes sources of its own into the directory. wide: on all cores, so that searches ask
    about several candidates at once. rules: for what differs in this case's documents only.
    """

    name: str
    steps: tuple[Step, ...]
    make: Callable[[Path], object] | None = None
    wide: bool = False
    rules: tuple[Rule, ...] = ()

    def set_up(self, directory: Path) -> None:
        """Copies all sources into the directory, and makes those of this case."""
        for place in _SOURCES:
            for file in sorted((_ROOT / place).iterdir()):
                if file.is_file():
                    shutil.copyfile(file, directory / file.name)
        if self.make is not None:
            self.make(directory)


def step(name: str, words: str) -> Step:
    return Step(name, tuple(words.split()))


def _isolated(source: str, target: str, options: str = "") -> tuple[Step, ...]:
    """A run and the bisection of what fails in it."""
    return (
        step("run", f"run {source} -t {target} --json {options}"),
        step("bisect", f"bisect {source} -t {target} --json -o out {options}"),
    )


def _text(name: str, text: str) -> Callable[[Path], object]:
    return lambda directory: (directory / name).write_text(text)


def _onnx(directory: Path) -> None:
    """An ONNX model with an operator that IREE has no lowering of."""
    import onnx
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        [
            helper.make_node("Relu", ["x"], ["positive"]),
            helper.make_node("NoSuchOperator", ["positive"], ["z"], domain="nosuch"),
            helper.make_node("Abs", ["z"], ["y"]),
        ],
        "main",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4, 8])],
        value_info=[helper.make_tensor_value_info("z", TensorProto.FLOAT, [4, 8])],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("nosuch", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets), directory / "model.onnx")


def _pt2(directory: Path) -> None:
    import torch

    class Model(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(x) - 8

    exported = torch.export.export(Model(), (torch.ones(4, 8, dtype=torch.int8),))
    torch.export.save(exported, directory / "model.pt2")


CASES = (
    Case(
        name="crash",
        steps=(
            *_isolated("i8_sub.py", CPU),
            step("bisect-known", f"bisect i8_sub.py -t {CPU} -o again"),
            step("verify", "verify out --json"),
            step("run-text", f"run i8_sub.py -t {CPU}"),
            step("releases", "releases bisect out --from 3.13.0 --to 3.13.0 --json -o releases"),
        ),
    ),
    Case(name="diagnostic", steps=_isolated("prelu.py", CPU)),
    Case(
        name="wide",
        steps=(step("bisect", f"bisect layers.py:constants -t {CPU} --json -o out"),),
        wide=True,
    ),
    Case(name="fp8-diagnostic", steps=_isolated("f8_half.py", CPU)),
    Case(name="mismatch", steps=_isolated("u8_sort.py", CPU)),
    Case(name="mismatch-linalg", steps=_isolated("segment_mask.mlir", CPU)),
    Case(name="runtime-error", steps=_isolated("f64.py", CPU)),
    Case(name="trace-error", steps=_isolated("f8_weight.py", CPU, "--inline-parameters")),
    Case(name="vulkan-crash", steps=_isolated("argsort.py", VULKAN)),
    Case(name="vulkan-torch-dialect", steps=_isolated("matmul-f16.mlir", VULKAN)),
    Case(name="hip-fp8", steps=_isolated("f8_matmul.py", HIP)),
    Case(name="onnx", steps=_isolated("model.onnx", CPU), make=_onnx),
    Case(name="pt2", steps=_isolated("model.pt2", CPU, "--trust"), make=_pt2),
    Case(name="linalg-diagnostic", steps=_isolated("i4_global.mlir", CPU)),
    Case(
        name="functions",
        steps=(
            *_isolated("functions.mlir", CPU),
            step("run-one", f"run two_outputs.mlir -t {CPU} --function main --json"),
        ),
        make=_text("functions.mlir", FUNCTIONS),
    ),
    Case(
        name="all",
        steps=(step("bisect", f"bisect both.py -t {CPU} --all --json -o out"),),
        make=_text("both.py", BOTH),
    ),
    Case(
        name="against",
        steps=(step("bisect", f"bisect normed.mlir -t vulkan --against {CPU} --json -o out"),),
        rules=CHANCE,
    ),
    Case(name="ranges", steps=(step("ranges", f"ranges overflow.py -t {CPU} --json"),)),
    Case(
        name="workaround",
        steps=(step("workaround", f"workaround f8_matmul.py -t {HIP} --json -o out"),),
    ),
    Case(
        name="targets",
        steps=(
            step("run", f"run linear.py -t {CPU},vulkan,{HIP} --json"),
            step("run-text", f"run linear.py -t {CPU},vulkan,{HIP}"),
            step("run-delicate", f"run delicate.py -t {CPU} --json"),
            step("run-noisy", f"run noisy_pad.py:coder -t {CPU} --json"),
            step("run-zoo", f"run llama-fp8 -t {CPU} --json"),
        ),
    ),
    Case(
        name="nightly",
        steps=(
            step("first", "nightly run --json --database history.db --artifacts made"),
            step("second", "nightly run --json --database history.db --artifacts made"),
            step("status", "nightly status --json --database history.db"),
            step("report", "nightly report --format markdown --database history.db"),
        ),
        make=_text("nightly.toml", NIGHT),
    ),
    Case(
        name="wrong-usage",
        steps=(
            step("no-source", f"run nosuch.py -t {CPU} --json"),
            step("no-target", "run i8_sub.py -t nosuch --json"),
            step("no-flag", f"bisect i8_sub.py -t {CPU} --json -- --iree-no-such-flag"),
            step("no-mlir", f"run model.py -t {CPU} --function nosuch --json"),
        ),
    ),
)
