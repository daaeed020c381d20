"""FP8 casts, end to end: rounding noise passes, lost values do not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

CAST = """
import torch


class Cast(torch.nn.Module):
    def forward(self, x):
        return (x * 1.0001).to(torch.float8_e4m3fn).float()


def model():
    return Cast()


def inputs():
    return (VALUES,)
"""


def verdict(directory: Path, values: str) -> dict[str, object]:
    source = directory / "cast.py"
    source.write_text(CAST.replace("VALUES", values))
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "iree_pilot.pipeline.cli",
            "run",
            source,
            "-t",
            "llvm-cpu",
            "--json",
        ],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    case: dict[str, object] = json.loads(done.stdout)["cases"][0]
    return case


@pytest.mark.real
class TestCastsToFp8:
    def test_rounding_the_other_way_now_and_then_is_noise(self, tmp_path: Path) -> None:
        case = verdict(tmp_path, "torch.randn(4096, generator=torch.Generator().manual_seed(0))")
        assert case["status"] == "ok", case["failure"]

    def test_subnormals_that_the_compiler_flushes_are_a_mismatch(self, tmp_path: Path) -> None:
        case = verdict(tmp_path, "torch.linspace(-0.03, 0.03, 4096)")
        failure = case["failure"]
        assert isinstance(failure, dict)
        assert failure["kind"] == "mismatch"
        assert "-0 where -0.015625 is expected" in failure["message"]
