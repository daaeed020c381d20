util.global private @weight = #flow.parameter.named<"model"::"layer.weight"> : tensor<4x8xf32>
util.global private @bias = #flow.parameter.named<"model"::"layer.bias"> : tensor<8xf32>
func.func @main(%x: tensor<4x8xf32>) -> tensor<4x8xf32> {
  %w = util.global.load @weight : tensor<4x8xf32>
  %b = util.global.load @bias : tensor<8xf32>
  %bb = linalg.broadcast ins(%b : tensor<8xf32>) outs(%x : tensor<4x8xf32>) dimensions = [0]
  %0 = arith.addf %x, %w : tensor<4x8xf32>
  %1 = arith.addf %0, %bb : tensor<4x8xf32>
  return %1 : tensor<4x8xf32>
}
