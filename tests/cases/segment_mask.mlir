// Which positions lie in the same segment: a sum by row, compared with itself by row and column.
#both = affine_map<(i, j) -> (i, j)>
#row = affine_map<(i, j) -> (i)>
#column = affine_map<(i, j) -> (j)>

func.func @main(%ends: tensor<64x8xi32>, %scale: f32) -> tensor<64x64xf32> {
  %zero = arith.constant 0 : i32
  %e = tensor.empty() : tensor<64xi32>
  %init = linalg.fill ins(%zero : i32) outs(%e : tensor<64xi32>) -> tensor<64xi32>
  %segment = linalg.generic {
    indexing_maps = [#both, #row], iterator_types = ["parallel", "reduction"]
  } ins(%ends : tensor<64x8xi32>) outs(%init : tensor<64xi32>) {
  ^bb0(%in: i32, %acc: i32):
    %s = arith.addi %in, %acc : i32
    linalg.yield %s : i32
  } -> tensor<64xi32>
  %m = tensor.empty() : tensor<64x64xi1>
  %same = linalg.generic {
    indexing_maps = [#row, #column, #both], iterator_types = ["parallel", "parallel"]
  } ins(%segment, %segment : tensor<64xi32>, tensor<64xi32>) outs(%m : tensor<64x64xi1>) {
  ^bb0(%a: i32, %b: i32, %o: i1):
    %c = arith.cmpi eq, %a, %b : i32
    linalg.yield %c : i1
  } -> tensor<64x64xi1>
  %f = tensor.empty() : tensor<64x64xf32>
  %mask = linalg.generic {
    indexing_maps = [#both, #both], iterator_types = ["parallel", "parallel"]
  } ins(%same : tensor<64x64xi1>) outs(%f : tensor<64x64xf32>) {
  ^bb0(%a: i1, %o: f32):
    %n = arith.uitofp %a : i1 to f32
    %v = arith.mulf %n, %scale : f32
    linalg.yield %v : f32
  } -> tensor<64x64xf32>
  return %mask : tensor<64x64xf32>
}
