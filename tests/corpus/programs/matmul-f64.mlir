module @module {
  func.func @main(%arg0: !torch.vtensor<[17,33],f64>, %arg1: !torch.vtensor<[33,9],f64>) -> !torch.vtensor<[17,9],f64> attributes {torch.assume_strict_symbolic_shapes} {
    %0 = torch.aten.matmul %arg0, %arg1 : !torch.vtensor<[17,33],f64>, !torch.vtensor<[33,9],f64> -> !torch.vtensor<[17,9],f64>
    return %0 : !torch.vtensor<[17,9],f64>
  }
}
