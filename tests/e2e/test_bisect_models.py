"""Whole models that the bisector has never seen: what fails in them, in a handful of compiles."""

from __future__ import annotations

from pathlib import Path

import pytest
from driver import pilot
from places import CASES

MODELS = CASES / "layers.py"
MOST_CALLS = 12

pytestmark = [pytest.mark.real, pytest.mark.slow]


@pytest.mark.parametrize(
    ("model", "target", "kind", "op"),
    [
        ("bytes_", "llvm-cpu", "crash", "torch.aten.floor_divide.Scalar"),
        ("constants", "llvm-cpu", "diagnostic", "torch.aten.logsumexp"),
        ("empty", "llvm-cpu", "crash", "torch.aten.matmul"),
        ("largest", "hip:gfx942", "crash", "torch.aten.amax"),
        ("two", "llvm-cpu", "diagnostic", "torch.aten.prelu"),
    ],
)
def test_the_operation_at_fault_is_found_wherever_it_is(
    model: str, target: str, kind: str, op: str, shared_cache: Path, tmp_path: Path
) -> None:
    done = pilot(
        "bisect", f"{MODELS}:{model}", "-t", target, "--no-decompose",
        "-o", tmp_path / "out", "--json",
        env={"IREE_PILOT_CACHE": shared_cache}, cwd=tmp_path,
    )  # fmt: skip
    assert done.code == 0, done.err
    (found,) = done.document["failures"]
    made = found["reproducer"]
    assert found["failure"]["kind"] == kind
    assert made["op_names"] == [op]
    assert made["minimal"] and made["verified"]
    assert made["oracle_calls"] <= MOST_CALLS
    assert {"mlir", "pytorch"} <= {*made["levels"]}
