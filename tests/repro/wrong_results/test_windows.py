"""Parts of a program in one module: each is given what it takes, its regions too."""

from __future__ import annotations

import pytest

from iree_pilot.repro.ir.edit import context, describe, parse
from iree_pilot.repro.wrong_results import part_search
from iree_pilot.repro.wrong_results.windows import Windows, make

SIZED = b"""
func.func @main(%x: tensor<?x4xf32>, %f: tensor<f32>) -> tensor<?x4xf32> {
  %zero = arith.constant 0 : index
  %n = tensor.dim %x, %zero : tensor<?x4xf32>
  %e = tensor.empty(%n) : tensor<?x4xf32>
  %scale = tensor.extract %f[] : tensor<f32>
  %0 = linalg.generic {
    indexing_maps = [affine_map<(i, j) -> (i, j)>, affine_map<(i, j) -> (i, j)>],
    iterator_types = ["parallel", "parallel"]
  } ins(%x : tensor<?x4xf32>) outs(%e : tensor<?x4xf32>) {
  ^bb0(%a: f32, %b: f32):
    %p = arith.mulf %a, %scale : f32
    linalg.yield %p : f32
  } -> tensor<?x4xf32>
  %1 = arith.addf %0, %0 : tensor<?x4xf32>
  return %1 : tensor<?x4xf32>
}
"""
ONNX = b"""
func.func @main(%x: !torch.vtensor<[4],f32>) -> !torch.vtensor<[2,2],f32>
    attributes {torch.onnx_meta.opset_version = 17 : si64} {
  %s = torch.operator "onnx.Constant"() {torch.onnx.value = dense<2> : tensor<2xsi64>}
      : () -> !torch.vtensor<[2],si64>
  %0 = torch.operator "onnx.Relu"(%x) : (!torch.vtensor<[4],f32>) -> !torch.vtensor<[4],f32>
  %1 = torch.operator "onnx.Reshape"(%0, %s)
      : (!torch.vtensor<[4],f32>, !torch.vtensor<[2],si64>) -> !torch.vtensor<[2,2],f32>
  return %1 : !torch.vtensor<[2,2],f32>
}
"""


def made(text: bytes) -> tuple[str, list[tuple[str, ...]]]:
    """(the module of the first level's parts, the types that its functions take)."""
    parts = next(part_search.levels(describe(text)))
    module, fed, held = make(text, Windows(mlir="x", parts=parts, focus=0, functions=len(parts)))
    assert [one.part for one in held] == list(range(len(parts)))
    with context():
        assert parse(module.encode()).operation.verify()
    return module, [one.types for one in fed]


def test_sizes_and_numbers_come_along_and_are_used_inside_of_regions() -> None:
    module, types = made(SIZED)
    assert types == [("tensor<?x4xf32>", "tensor<f32>"), ("tensor<?x4xf32>",)]
    assert module.count("tensor.dim") == 1 and module.count("tensor.extract ") == 1


def test_an_operation_of_onnx_has_its_constants_and_its_opset() -> None:
    module, types = made(ONNX)
    assert types == [("!torch.vtensor<[4],f32>",)] * 2
    assert module.count("onnx.Constant") == 1
    assert module.count("torch.onnx_meta.opset_version = 17") == 2


@pytest.mark.parametrize("text", [SIZED, ONNX])
def test_operations_are_called_what_they_are(text: bytes) -> None:
    names = {op.name for op in describe(text).ops}
    assert names >= ({"linalg.generic"} if text is SIZED else {"onnx.Relu", "onnx.Reshape"})
