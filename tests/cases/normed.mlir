// IREE 3.13 leaves values of a reduction that is stored transposed to chance, for subgroups of 8.
func.func @main(%x: tensor<8x16xf32>, %squares: tensor<8xf32>) -> tensor<16x8xf32> {
  %eps = arith.constant 0.5 : f32
  %e = tensor.empty() : tensor<16x8xf32>
  %s = linalg.generic {
    indexing_maps = [affine_map<(i, j) -> (i, j)>, affine_map<(i, j) -> (i)>],
    iterator_types = ["parallel", "reduction"]
  } ins(%x : tensor<8x16xf32>) outs(%squares : tensor<8xf32>) {
  ^bb0(%in: f32, %out: f32):
    %p = arith.mulf %in, %in : f32
    %a = arith.addf %p, %out : f32
    linalg.yield %a : f32
  } -> tensor<8xf32>
  %t = linalg.generic {
    indexing_maps = [affine_map<(i, j) -> (j, i)>, affine_map<(i, j) -> (j)>,
                     affine_map<(i, j) -> (i, j)>],
    iterator_types = ["parallel", "parallel"]
  } ins(%x, %s : tensor<8x16xf32>, tensor<8xf32>) outs(%e : tensor<16x8xf32>) {
  ^bb0(%in: f32, %sum: f32, %out: f32):
    %v = arith.addf %sum, %eps : f32
    %r = math.rsqrt %v : f32
    %m = arith.mulf %in, %r : f32
    linalg.yield %m : f32
  } -> tensor<16x8xf32>
  return %t : tensor<16x8xf32>
}
