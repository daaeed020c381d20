module @module {
  util.global private mutable @__auto.constant__torch.int64 = dense_resource<__auto.constant__torch.int64> : tensor<i64>
  util.global private mutable @__auto.constant_8_torch.float32 = dense_resource<__auto.constant_8_torch.float32> : tensor<8xf32>
  util.global private mutable @__auto.constant_8_torch.float32$1 = dense_resource<__auto.constant_8_torch.float32$1> : tensor<8xf32>
  func.func @main(%arg0: !torch.vtensor<[2,8,6,6],f32>) -> !torch.vtensor<[2,8,6,6],f32> attributes {torch.assume_strict_symbolic_shapes} {
    %__auto.constant__torch.int64 = util.global.load @__auto.constant__torch.int64 : tensor<i64>
    %0 = torch_c.from_builtin_tensor %__auto.constant__torch.int64 : tensor<i64> -> !torch.vtensor<[],si64>
    %int1 = torch.constant.int 1
    %int1_0 = torch.constant.int 1
    %1 = torch.aten.add.Scalar %0, %int1, %int1_0 : !torch.vtensor<[],si64>, !torch.int, !torch.int -> !torch.vtensor<[],si64>
    %2 = torch_c.to_builtin_tensor %1 : !torch.vtensor<[],si64> -> tensor<i64>
    util.global.store %2, @__auto.constant__torch.int64 : tensor<i64>
    %int0 = torch.constant.int 0
    %int2 = torch.constant.int 2
    %int3 = torch.constant.int 3
    %3 = torch.prim.ListConstruct %int0, %int2, %int3 : (!torch.int, !torch.int, !torch.int) -> !torch.list<int>
    %int0_1 = torch.constant.int 0
    %true = torch.constant.bool true
    %result0, %result1 = torch.aten.var_mean.correction %arg0, %3, %int0_1, %true : !torch.vtensor<[2,8,6,6],f32>, !torch.list<int>, !torch.int, !torch.bool -> !torch.vtensor<[1,8,1,1],f32>, !torch.vtensor<[1,8,1,1],f32>
    %float1.000000e-05 = torch.constant.float 1.000000e-05
    %int1_2 = torch.constant.int 1
    %4 = torch.aten.add.Scalar %result0, %float1.000000e-05, %int1_2 : !torch.vtensor<[1,8,1,1],f32>, !torch.float, !torch.int -> !torch.vtensor<[1,8,1,1],f32>
    %5 = torch.aten.rsqrt %4 : !torch.vtensor<[1,8,1,1],f32> -> !torch.vtensor<[1,8,1,1],f32>
    %int1_3 = torch.constant.int 1
    %6 = torch.aten.sub.Tensor %arg0, %result1, %int1_3 : !torch.vtensor<[2,8,6,6],f32>, !torch.vtensor<[1,8,1,1],f32>, !torch.int -> !torch.vtensor<[2,8,6,6],f32>
    %7 = torch.aten.mul.Tensor %6, %5 : !torch.vtensor<[2,8,6,6],f32>, !torch.vtensor<[1,8,1,1],f32> -> !torch.vtensor<[2,8,6,6],f32>
    %int3_4 = torch.constant.int 3
    %8 = torch.prim.ListConstruct %int3_4 : (!torch.int) -> !torch.list<int>
    %9 = torch.prims.squeeze %result1, %8 : !torch.vtensor<[1,8,1,1],f32>, !torch.list<int> -> !torch.vtensor<[1,8,1],f32>
    %int2_5 = torch.constant.int 2
    %10 = torch.prim.ListConstruct %int2_5 : (!torch.int) -> !torch.list<int>
    %11 = torch.prims.squeeze %9, %10 : !torch.vtensor<[1,8,1],f32>, !torch.list<int> -> !torch.vtensor<[1,8],f32>
    %int0_6 = torch.constant.int 0
    %12 = torch.prim.ListConstruct %int0_6 : (!torch.int) -> !torch.list<int>
    %13 = torch.prims.squeeze %11, %12 : !torch.vtensor<[1,8],f32>, !torch.list<int> -> !torch.vtensor<[8],f32>
    %float1.000000e-01 = torch.constant.float 1.000000e-01
    %14 = torch.aten.mul.Scalar %13, %float1.000000e-01 : !torch.vtensor<[8],f32>, !torch.float -> !torch.vtensor<[8],f32>
    %__auto.constant_8_torch.float32 = util.global.load @__auto.constant_8_torch.float32 : tensor<8xf32>
    %15 = torch_c.from_builtin_tensor %__auto.constant_8_torch.float32 : tensor<8xf32> -> !torch.vtensor<[8],f32>
    %float9.000000e-01 = torch.constant.float 9.000000e-01
    %16 = torch.aten.mul.Scalar %15, %float9.000000e-01 : !torch.vtensor<[8],f32>, !torch.float -> !torch.vtensor<[8],f32>
    %int1_7 = torch.constant.int 1
    %17 = torch.aten.add.Tensor %14, %16, %int1_7 : !torch.vtensor<[8],f32>, !torch.vtensor<[8],f32>, !torch.int -> !torch.vtensor<[8],f32>
    %18 = torch_c.to_builtin_tensor %17 : !torch.vtensor<[8],f32> -> tensor<8xf32>
    util.global.store %18, @__auto.constant_8_torch.float32 : tensor<8xf32>
    %int3_8 = torch.constant.int 3
    %19 = torch.prim.ListConstruct %int3_8 : (!torch.int) -> !torch.list<int>
    %20 = torch.prims.squeeze %result0, %19 : !torch.vtensor<[1,8,1,1],f32>, !torch.list<int> -> !torch.vtensor<[1,8,1],f32>
    %int2_9 = torch.constant.int 2
    %21 = torch.prim.ListConstruct %int2_9 : (!torch.int) -> !torch.list<int>
    %22 = torch.prims.squeeze %20, %21 : !torch.vtensor<[1,8,1],f32>, !torch.list<int> -> !torch.vtensor<[1,8],f32>
    %int0_10 = torch.constant.int 0
    %23 = torch.prim.ListConstruct %int0_10 : (!torch.int) -> !torch.list<int>
    %24 = torch.prims.squeeze %22, %23 : !torch.vtensor<[1,8],f32>, !torch.list<int> -> !torch.vtensor<[8],f32>
    %float1.014080e00 = torch.constant.float 1.0140845070422535
    %25 = torch.aten.mul.Scalar %24, %float1.014080e00 : !torch.vtensor<[8],f32>, !torch.float -> !torch.vtensor<[8],f32>
    %float1.000000e-01_11 = torch.constant.float 1.000000e-01
    %26 = torch.aten.mul.Scalar %25, %float1.000000e-01_11 : !torch.vtensor<[8],f32>, !torch.float -> !torch.vtensor<[8],f32>
    %__auto.constant_8_torch.float32$1 = util.global.load @__auto.constant_8_torch.float32$1 : tensor<8xf32>
    %27 = torch_c.from_builtin_tensor %__auto.constant_8_torch.float32$1 : tensor<8xf32> -> !torch.vtensor<[8],f32>
    %float9.000000e-01_12 = torch.constant.float 9.000000e-01
    %28 = torch.aten.mul.Scalar %27, %float9.000000e-01_12 : !torch.vtensor<[8],f32>, !torch.float -> !torch.vtensor<[8],f32>
    %int1_13 = torch.constant.int 1
    %29 = torch.aten.add.Tensor %26, %28, %int1_13 : !torch.vtensor<[8],f32>, !torch.vtensor<[8],f32>, !torch.int -> !torch.vtensor<[8],f32>
    %30 = torch_c.to_builtin_tensor %29 : !torch.vtensor<[8],f32> -> tensor<8xf32>
    util.global.store %30, @__auto.constant_8_torch.float32$1 : tensor<8xf32>
    %31 = torch.vtensor.literal(dense_resource<torch_tensor_8_torch.float32> : tensor<8xf32>) : !torch.vtensor<[8],f32>
    %int-1 = torch.constant.int -1
    %32 = torch.aten.unsqueeze %31, %int-1 : !torch.vtensor<[8],f32>, !torch.int -> !torch.vtensor<[8,1],f32>
    %int-1_14 = torch.constant.int -1
    %33 = torch.aten.unsqueeze %32, %int-1_14 : !torch.vtensor<[8,1],f32>, !torch.int -> !torch.vtensor<[8,1,1],f32>
    %34 = torch.aten.mul.Tensor %7, %33 : !torch.vtensor<[2,8,6,6],f32>, !torch.vtensor<[8,1,1],f32> -> !torch.vtensor<[2,8,6,6],f32>
    %35 = torch.vtensor.literal(dense_resource<torch_tensor_8_torch.float32_1> : tensor<8xf32>) : !torch.vtensor<[8],f32>
    %int-1_15 = torch.constant.int -1
    %36 = torch.aten.unsqueeze %35, %int-1_15 : !torch.vtensor<[8],f32>, !torch.int -> !torch.vtensor<[8,1],f32>
    %int-1_16 = torch.constant.int -1
    %37 = torch.aten.unsqueeze %36, %int-1_16 : !torch.vtensor<[8,1],f32>, !torch.int -> !torch.vtensor<[8,1,1],f32>
    %int1_17 = torch.constant.int 1
    %38 = torch.aten.add.Tensor %34, %37, %int1_17 : !torch.vtensor<[2,8,6,6],f32>, !torch.vtensor<[8,1,1],f32>, !torch.int -> !torch.vtensor<[2,8,6,6],f32>
    return %38 : !torch.vtensor<[2,8,6,6],f32>
  }
}

{-#
  dialect_resources: {
    builtin: {
      __auto.constant__torch.int64: "0x080000000000000000000000",
      __auto.constant_8_torch.float32: "0x040000000000000000000000000000000000000000000000000000000000000000000000",
      __auto.constant_8_torch.float32$1: "0x040000000000803F0000803F0000803F0000803F0000803F0000803F0000803F0000803F",
      torch_tensor_8_torch.float32: "0x040000000000803F0000803F0000803F0000803F0000803F0000803F0000803F0000803F",
      torch_tensor_8_torch.float32_1: "0x040000000000000000000000000000000000000000000000000000000000000000000000"
    }
  }
#-}
