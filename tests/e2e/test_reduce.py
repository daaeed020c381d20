"""`iree-pilot reduce`: anybody's test decides what is interesting."""

from __future__ import annotations

from pathlib import Path

import pytest
from driver import pilot

CHAIN = "\n".join(
    [
        "func.func @main(%a: tensor<4xf32>) -> tensor<4xf32> {",
        "  %0 = arith.addf %a, %a : tensor<4xf32>",
        *(f"  %{i} = arith.addf %{i - 1}, %a : tensor<4xf32>" for i in range(1, 20)),
        "  %20 = math.exp %19 : tensor<4xf32>",
        *(f"  %{i} = arith.mulf %{i - 1}, %a : tensor<4xf32>" for i in range(21, 40)),
        "  return %39 : tensor<4xf32>",
        "}\n",
    ]
)


@pytest.fixture
def chain(tmp_path: Path) -> Path:
    file = tmp_path / "chain.mlir"
    file.write_text(CHAIN)
    return file


def test_one_operation_is_left_of_forty(chain: Path, tmp_path: Path) -> None:
    done = pilot("reduce", chain, "--json", "--", "grep", "-q", "math.exp", "{}", cwd=tmp_path)
    assert done.code == 0, done.err
    assert done.document["ops"] == ["math.exp"]
    assert done.document["minimal"]
    assert done.document["calls"] < 20
    assert "math.exp" in Path(done.document["path"]).read_text()
    assert {"start", "reduce"} <= set(done.document["took"]["parts"])
    told = pilot("reduce", chain, "--", "grep", "-q", "math.exp", "{}", cwd=tmp_path)
    *_, took, place = told.out.splitlines()
    assert took.startswith("took ") and "reduce " in took
    assert place.endswith("chain.reduced.mlir")


def test_two_operations_that_are_connected_stay_together(chain: Path, tmp_path: Path) -> None:
    test = tmp_path / "test.sh"
    test.write_text('#!/bin/sh\ngrep -q math.exp "$1" && grep -q arith.mulf "$1"\n')
    test.chmod(0o755)
    done = pilot("reduce", chain, "--json", "--", test, cwd=tmp_path)
    assert sorted(done.document["ops"]) == ["arith.mulf", "math.exp"]


def test_a_program_that_is_not_interesting_is_refused_at_once(chain: Path, tmp_path: Path) -> None:
    done = pilot("reduce", chain, "--", "false", cwd=tmp_path)
    assert done.code == 2
    assert "is not interesting" in done.err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["chain.mlir"]


def test_a_test_that_cannot_say_is_told_apart(chain: Path, tmp_path: Path) -> None:
    done = pilot("reduce", chain, "--", "sh", "-c", "exit 125", cwd=tmp_path)
    assert done.code == 2
    assert "exits with 125 (undecided)" in done.err
