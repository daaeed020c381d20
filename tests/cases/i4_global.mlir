// Constants of 4 bits in a global: the pass that widens them fails with two diagnostics each time.
#id = affine_map<(i, j) -> (i, j)>
util.global private @codes = dense<[[1, -8, 0, 7], [3, 2, -1, 5]]> : tensor<2x4xi4>
func.func @dequantize(%scale: tensor<2x4xf32>) -> tensor<2x4xf32> {
  %codes = util.global.load @codes : tensor<2x4xi4>
  %empty = tensor.empty() : tensor<2x4xf32>
  %0 = linalg.generic {
    indexing_maps = [#id, #id, #id], iterator_types = ["parallel", "parallel"]
  } ins(%codes, %scale : tensor<2x4xi4>, tensor<2x4xf32>) outs(%empty : tensor<2x4xf32>) {
  ^bb0(%code: i4, %s: f32, %out: f32):
    %wide = arith.extsi %code : i4 to i32
    %float = arith.sitofp %wide : i32 to f32
    %scaled = arith.mulf %float, %s : f32
    linalg.yield %scaled : f32
  } -> tensor<2x4xf32>
  return %0 : tensor<2x4xf32>
}
