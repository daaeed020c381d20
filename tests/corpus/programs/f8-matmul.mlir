module @module {
  func.func @main(%arg0: !torch.vtensor<[16,32],f32>, %arg1: !torch.vtensor<[32,16],f32>) -> !torch.vtensor<[16,16],f32> attributes {torch.assume_strict_symbolic_shapes} {
    %none = torch.constant.none
    %none_0 = torch.constant.none
    %int6 = torch.constant.int 6
    %cpu = torch.constant.device "cpu"
    %int0 = torch.constant.int 0
    torch.aten._assert_tensor_metadata %arg0, %none, %none_0, %int6, %cpu, %int0 : !torch.vtensor<[16,32],f32>, !torch.none, !torch.none, !torch.int, !torch.Device, !torch.int
    %int24 = torch.constant.int 24
    %0 = torch.prims.convert_element_type %arg0, %int24 : !torch.vtensor<[16,32],f32>, !torch.int -> !torch.vtensor<[16,32],f8E4M3FN>
    %none_1 = torch.constant.none
    %none_2 = torch.constant.none
    %int24_3 = torch.constant.int 24
    %cpu_4 = torch.constant.device "cpu"
    %int0_5 = torch.constant.int 0
    torch.aten._assert_tensor_metadata %0, %none_1, %none_2, %int24_3, %cpu_4, %int0_5 : !torch.vtensor<[16,32],f8E4M3FN>, !torch.none, !torch.none, !torch.int, !torch.Device, !torch.int
    %int6_6 = torch.constant.int 6
    %1 = torch.prims.convert_element_type %0, %int6_6 : !torch.vtensor<[16,32],f8E4M3FN>, !torch.int -> !torch.vtensor<[16,32],f32>
    %none_7 = torch.constant.none
    %none_8 = torch.constant.none
    %int6_9 = torch.constant.int 6
    %cpu_10 = torch.constant.device "cpu"
    %int0_11 = torch.constant.int 0
    torch.aten._assert_tensor_metadata %arg1, %none_7, %none_8, %int6_9, %cpu_10, %int0_11 : !torch.vtensor<[32,16],f32>, !torch.none, !torch.none, !torch.int, !torch.Device, !torch.int
    %int24_12 = torch.constant.int 24
    %2 = torch.prims.convert_element_type %arg1, %int24_12 : !torch.vtensor<[32,16],f32>, !torch.int -> !torch.vtensor<[32,16],f8E4M3FN>
    %none_13 = torch.constant.none
    %none_14 = torch.constant.none
    %int24_15 = torch.constant.int 24
    %cpu_16 = torch.constant.device "cpu"
    %int0_17 = torch.constant.int 0
    torch.aten._assert_tensor_metadata %2, %none_13, %none_14, %int24_15, %cpu_16, %int0_17 : !torch.vtensor<[32,16],f8E4M3FN>, !torch.none, !torch.none, !torch.int, !torch.Device, !torch.int
    %int6_18 = torch.constant.int 6
    %3 = torch.prims.convert_element_type %2, %int6_18 : !torch.vtensor<[32,16],f8E4M3FN>, !torch.int -> !torch.vtensor<[32,16],f32>
    %4 = torch.aten.matmul %1, %3 : !torch.vtensor<[16,32],f32>, !torch.vtensor<[32,16],f32> -> !torch.vtensor<[16,16],f32>
    return %4 : !torch.vtensor<[16,16],f32>
  }
}
