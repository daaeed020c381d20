"""`iree-pilot bisect` of failures that always bring a second diagnostic, with the real compiler."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from driver import Done, pilot
from places import CASES

from iree_pilot.repro.reproducer.folder import bundle

pytestmark = pytest.mark.real


@pytest.fixture
def bisect(shared_cache: Path, tmp_path: Path) -> Any:
    def ran(source: Path, *options: str) -> Done:
        return pilot(
            "bisect", source, "-t", "llvm-cpu", "-o", tmp_path / "out", *options,
            env={"IREE_PILOT_CACHE": shared_cache}, cwd=tmp_path,
        )  # fmt: skip

    return ran


@pytest.mark.parametrize(
    ("program", "ops", "companion", "most_calls"),
    [
        (
            "i4_global.mlir",
            ["util.global.load", "linalg.generic"],
            "'func.func' op failed to emulate bit width",
            6,
        ),
        ("memref_argument.mlir", ["memref.alloc"], "conversion to vm.module failed", 4),
    ],
)
def test_it_is_isolated_with_its_companion(
    bisect: Any, tmp_path: Path, program: str, ops: list[str], companion: str, most_calls: int
) -> None:
    done = bisect(CASES / program, "--json")
    assert done.code == 0, done.err
    (found,) = done.document["failures"]
    made = found["reproducer"]
    assert made["op_names"] == ops
    assert made["minimal"] and made["verified"] and "pass" in made["levels"]
    assert made["oracle_calls"] <= most_calls
    assert [one["message"] for one in found["failure"]["also"]] == [companion]
    assert [one["message"] for one in made["companions"]] == [companion]
    assert done.document["seen"] == []
    report = bundle.read(tmp_path / "out")
    assert [one.message for one in report.failure.also] == [companion]
    assert f"also fails with: `{companion}`" in (tmp_path / "out/ISSUE.md").read_text()
