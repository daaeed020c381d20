// Two outputs, of which only the first one is known.
func.func @main() -> (tensor<4xf32>, tensor<4xf32>) {
  %a = arith.constant dense<[0.0, 1.0, 2.0, 3.0]> : tensor<4xf32>
  %b = arith.constant dense<[1.0, 2.0, 3.0, 4.0]> : tensor<4xf32>
  %sum = arith.addf %a, %b : tensor<4xf32>
  %product = arith.mulf %a, %b : tensor<4xf32>
  return %sum, %product : tensor<4xf32>, tensor<4xf32>
}
