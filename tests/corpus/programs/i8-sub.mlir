module @module {
  func.func @main(%arg0: !torch.vtensor<[4,8],si8>) -> !torch.vtensor<[4,8],si8> attributes {torch.assume_strict_symbolic_shapes} {
    %int8 = torch.constant.int 8
    %int1 = torch.constant.int 1
    %0 = torch.aten.sub.Scalar %arg0, %int8, %int1 : !torch.vtensor<[4,8],si8>, !torch.int, !torch.int -> !torch.vtensor<[4,8],si8>
    return %0 : !torch.vtensor<[4,8],si8>
  }
}
