"""Wrong numbers in programs whose functions call others."""

from __future__ import annotations

from pathlib import Path

import pytest
from driver import pilot

from iree_pilot.pipeline.processes.process import Limits
from iree_pilot.pipeline.toolchain.context import Context
from iree_pilot.pipeline.toolchain.toolchain import installed
from iree_pilot.repro.ir.inline import inlined

pytestmark = pytest.mark.real

#: Which rows have one sum: that is wrong where both are compiled together (`cases/segment_mask`).
MASK = """
func.func private @sums(%x: tensor<64x8xi32>) -> tensor<64xi32> {
  %z = arith.constant 0 : i32
  %e = tensor.empty() : tensor<64xi32>
  %f = linalg.fill ins(%z : i32) outs(%e : tensor<64xi32>) -> tensor<64xi32>
  %s = linalg.reduce ins(%x : tensor<64x8xi32>) outs(%f : tensor<64xi32>) dimensions = [1]
    (%a: i32, %o: i32) {
      %t = arith.addi %a, %o : i32
      linalg.yield %t : i32
    }
  return %s : tensor<64xi32>
}
func.func @other(%x: tensor<4xf32>) -> tensor<4xf32> {
  %y = math.cos %x : tensor<4xf32>
  return %y : tensor<4xf32>
}
func.func @mask(%x: tensor<64x8xi32>) -> tensor<64x64xi1> {
  %s = call @sums(%x) : (tensor<64x8xi32>) -> tensor<64xi32>
  %o = tensor.empty() : tensor<64x64xi1>
  %q = linalg.generic {
    indexing_maps = [affine_map<(a, b) -> (a)>, affine_map<(a, b) -> (b)>,
                     affine_map<(a, b) -> (a, b)>],
    iterator_types = ["parallel", "parallel"]
  } ins(%s, %s : tensor<64xi32>, tensor<64xi32>) outs(%o : tensor<64x64xi1>) {
  ^bb0(%a: i32, %b: i32, %w: i1):
    %t = arith.cmpi eq, %a, %b : i32
    linalg.yield %t : i1
  } -> tensor<64x64xi1>
  return %q : tensor<64x64xi1>
}
"""


def test_calls_go_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "mask.mlir").write_text(MASK)
    made = tmp_path / "made" / "flat.mlir"
    assert inlined(
        tmp_path / "mask.mlir", Context(toolchain=installed(), limits=Limits(seconds=60)), made
    )
    text = made.read_text()
    assert "call @" not in text and "@sums" not in text
    assert "linalg.reduce" in text and "@other" in text
    assert not inlined(
        made, Context(toolchain=installed(), limits=Limits(seconds=60)), tmp_path / "again.mlir"
    )
    assert not (tmp_path / "again.mlir").exists()


def test_what_is_wrong_across_a_call_is_isolated(tmp_path: Path, shared_cache: Path) -> None:
    (tmp_path / "mask.mlir").write_text(MASK)
    done = pilot(
        "bisect", "mask.mlir", "-t", "llvm-cpu", "--json",
        env={"IREE_PILOT_CACHE": shared_cache}, cwd=tmp_path,
    )  # fmt: skip
    assert done.code == 0, done.err
    (found,) = done.document["failures"]
    assert found["reproducer"]["op_names"] == ["linalg.reduce", "linalg.generic"]
    assert found["reproducer"]["minimal"] and found["reproducer"]["verified"]
