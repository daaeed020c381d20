module @module {
  func.func @main(%arg0: !torch.vtensor<[1,2,6,8],f32>, %arg1: !torch.vtensor<[6,8],f32>, %arg2: !torch.vtensor<[6,8],f32>) -> !torch.vtensor<[1,2,6,8],f32> attributes {torch.assume_strict_symbolic_shapes} {
    %int4 = torch.constant.int 4
    %int-1 = torch.constant.int -1
    %0 = torch.aten.split.Tensor %arg0, %int4, %int-1 : !torch.vtensor<[1,2,6,8],f32>, !torch.int, !torch.int -> !torch.list<vtensor>
    %1:2 = torch.prim.ListUnpack %0 : !torch.list<vtensor> -> !torch.vtensor<[1,2,6,4],f32>, !torch.vtensor<[1,2,6,4],f32>
    %2 = torch.aten.mul.Tensor %arg0, %arg1 : !torch.vtensor<[1,2,6,8],f32>, !torch.vtensor<[6,8],f32> -> !torch.vtensor<[1,2,6,8],f32>
    %3 = torch.aten.neg %1#1 : !torch.vtensor<[1,2,6,4],f32> -> !torch.vtensor<[1,2,6,4],f32>
    %4 = torch.prim.ListConstruct %3, %1#0 : (!torch.vtensor<[1,2,6,4],f32>, !torch.vtensor<[1,2,6,4],f32>) -> !torch.list<vtensor>
    %int-1_0 = torch.constant.int -1
    %5 = torch.aten.cat %4, %int-1_0 : !torch.list<vtensor>, !torch.int -> !torch.vtensor<[1,2,6,8],f32>
    %6 = torch.aten.mul.Tensor %5, %arg2 : !torch.vtensor<[1,2,6,8],f32>, !torch.vtensor<[6,8],f32> -> !torch.vtensor<[1,2,6,8],f32>
    %int1 = torch.constant.int 1
    %7 = torch.aten.add.Tensor %2, %6, %int1 : !torch.vtensor<[1,2,6,8],f32>, !torch.vtensor<[1,2,6,8],f32>, !torch.int -> !torch.vtensor<[1,2,6,8],f32>
    return %7 : !torch.vtensor<[1,2,6,8],f32>
  }
}
