module @module {
  func.func @main(%arg0: !torch.vtensor<[0,5],f32>) -> (!torch.vtensor<[5],f32>, !torch.vtensor<[0,5],f32>) attributes {torch.assume_strict_symbolic_shapes} {
    %int0 = torch.constant.int 0
    %0 = torch.prim.ListConstruct %int0 : (!torch.int) -> !torch.list<int>
    %false = torch.constant.bool false
    %none = torch.constant.none
    %1 = torch.aten.sum.dim_IntList %arg0, %0, %false, %none : !torch.vtensor<[0,5],f32>, !torch.list<int>, !torch.bool, !torch.none -> !torch.vtensor<[5],f32>
    %2 = torch.aten.relu %arg0 : !torch.vtensor<[0,5],f32> -> !torch.vtensor<[0,5],f32>
    return %1, %2 : !torch.vtensor<[5],f32>, !torch.vtensor<[0,5],f32>
  }
}
