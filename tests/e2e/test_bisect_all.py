"""`iree-pilot bisect --all`: all that keeps a program from compiling, with the real compiler."""

from __future__ import annotations

import io
import shutil
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest
from driver import Done, pilot
from places import CASES
from rich.console import Console

from iree_pilot.pipeline.cli.failures.bisect import tell
from iree_pilot.pipeline.toolchain.toolchain import installed
from iree_pilot.repro.bisect import Bisection

VULKAN = "vulkan:vp_android_baseline_2022"
SDPA = "torch.aten.scaled_dot_product_attention"
LINEAR = ["torch.aten.matmul", "torch.prims.convert_element_type"]

#: Arithmetic of 8-bit integers with numbers crashes the compiler in two ways, one of them twice,
#: before it gets to the PReLU that it has a diagnostic for.
HIDDEN = """
import torch
from torch import nn

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.full((16,), 0.25))

    def forward(self, x, small):
        x = nn.functional.prelu(torch.relu(x), self.weight)
        other = (small - 8) * 2
        return torch.sin(x), (other - 9).to(torch.float32).cos()

def model():
    return Model().eval()

def inputs():
    return torch.randn(2, 16, 4), torch.ones(4, 8, dtype=torch.int8)
"""

pytestmark = [pytest.mark.real, pytest.mark.slow]


@pytest.fixture
def bisect(shared_cache: Path, tmp_path: Path) -> Any:
    def ran(source: str | Path, target: str, *options: str) -> Done:
        return pilot(
            "bisect", source, "-t", target, "--all", "--no-decompose",
            "-o", tmp_path / "out", *options,
            env={"IREE_PILOT_CACHE": shared_cache}, cwd=tmp_path,
        )  # fmt: skip

    return ran


def names(document: Any) -> list[list[str]]:
    return [found["reproducer"]["op_names"] for found in document["failures"]]


def test_each_failure_gets_its_own_folder_what_blocks_most_first(
    bisect: Any, shared_cache: Path
) -> None:
    done = bisect(CASES / "fp8_attention.py", VULKAN, "--json")
    assert names(done.document) == [LINEAR, [SDPA]]
    assert [(f["blocks"], f["places"]) for f in done.document["failures"]] == [(8, 4), (1, 1)]
    assert done.document["unblocked"] is True
    for found in done.document["failures"]:
        folder = Path(found["reproducer"]["path"])
        checked = pilot("verify", folder, env={"IREE_PILOT_CACHE": shared_cache})
        assert checked.code == 0, checked.out


def test_a_failure_that_hides_another_is_masked_wherever_it_is(bisect: Any, tmp_path: Path) -> None:
    (tmp_path / "hidden.py").write_text(HIDDEN)
    done = bisect(tmp_path / "hidden.py", "llvm-cpu", "--json")
    assert names(done.document) == [
        ["torch.aten.sub.Scalar"], ["torch.aten.mul.Scalar"], ["torch.aten.prelu"]
    ]  # fmt: skip
    found = done.document["failures"]
    assert [(f["blocks"], f["places"]) for f in found] == [(2, 2), (1, 1), (1, 1)]
    assert [f["failure"]["kind"] for f in found] == ["crash", "crash", "diagnostic"]
    assert done.document["unblocked"] is True

    written = io.StringIO()
    tell(Console(file=written, width=100), msgspec.convert(done.document, Bisection))
    said = written.getvalue()
    assert "blocks      2 operations in 2 places" in said
    assert "with these masked, nothing else fails" in said


#: Neither has a lowering; what the compiler says names a constant that one of them takes.
UNNAMED = """
import torch
from torch import nn

class Model(nn.Module):
    def forward(self, x):
        return {forward}

def model():
    return Model().eval()

def inputs():
    return (torch.randn(2, 4),)
"""
FMOD, LOGSUMEXP = "torch.fmod(x, -0.3)", "torch.logsumexp(x, -1)"


def test_operations_that_a_diagnostic_does_not_name_are_told_apart(
    bisect: Any, tmp_path: Path
) -> None:
    (tmp_path / "both.py").write_text(UNNAMED.format(forward=f"{FMOD} + {LOGSUMEXP}[:, None]"))
    done = bisect(tmp_path / "both.py", "llvm-cpu", "--json")
    assert sorted(names(done.document)) == [
        ["torch.aten.fmod.Scalar"], ["torch.aten.logsumexp"]
    ]  # fmt: skip
    for found in done.document["failures"]:
        folder = Path(found["reproducer"]["path"])
        command = [
            installed().compiler, folder / "repro.mlir", "--iree-hal-target-backends=llvm-cpu"
        ]  # fmt: skip
        said = subprocess.run(command, capture_output=True, text=True, check=False).stderr
        own = msgspec.json.decode((folder / "report.json").read_bytes())["failure"]["message"]
        assert own.partition(":")[0] in said, "in the words of the program itself"
        issue = (folder / "ISSUE.md").read_text()
        assert own in issue
        assert "pass.diff" not in issue, "the pass changed nothing"
    shutil.rmtree(tmp_path / "out")
    (tmp_path / "one.py").write_text(UNNAMED.format(forward=LOGSUMEXP))
    done = bisect(tmp_path / "one.py", "llvm-cpu", "--json")
    assert names(done.document) == [["torch.aten.logsumexp"]]
    (tmp_path / "other.py").write_text(UNNAMED.format(forward=FMOD))
    done = pilot(
        "bisect", tmp_path / "other.py", "-t", "llvm-cpu", "--json", "-o", tmp_path / "third",
        cwd=tmp_path,
    )  # fmt: skip
    assert names(done.document) == [["torch.aten.fmod.Scalar"]], "not what is known of another"
