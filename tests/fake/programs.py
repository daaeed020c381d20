"""A program to cut, and where its operations are."""

from __future__ import annotations

PROGRAM = """\
!T28 = !torch.vtensor<[2,8],f32>
!T24 = !torch.vtensor<[2,4],f32>
module @module {
  util.global private @w = #flow.parameter.named<"model"::"w"> : tensor<8x4xf32>
  util.global private @unused = #flow.parameter.named<"model"::"u"> : tensor<4xf32>
  func.func @main(%x: !torch.vtensor<[2,8],f32>) -> !torch.vtensor<[2,4],f16> {
    %g = util.global.load @w : tensor<8x4xf32>
    %w = torch_c.from_builtin_tensor %g : tensor<8x4xf32> -> !torch.vtensor<[8,4],f32>
    %0 = torch.aten.matmul %x, %w : !T28, !torch.vtensor<[8,4],f32> -> !T24
    %1 = torch.aten.relu %0 : !T24 -> !T24
    %int5 = torch.constant.int 5
    %2 = torch.prims.convert_element_type %1, %int5 : !T24, !torch.int -> !torch.vtensor<[2,4],f16>
    return %2 : !torch.vtensor<[2,4],f16>
  }
  func.func @other(%x: !T24) -> !T24 {
    %0 = torch.aten.relu %x : !T24 -> !T24
    return %0 : !T24
  }
}
"""
MATMUL, RELU, CONVERT = 2, 3, 5
