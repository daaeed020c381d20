// A sum on one device and a product on another.
func.func @main(%x: tensor<4xf32>) -> tensor<4xf32> {
  %on_a = flow.tensor.transfer %x : tensor<4xf32> to #hal.device.promise<@a>
  %sum = arith.addf %on_a, %on_a : tensor<4xf32>
  %on_b = flow.tensor.transfer %sum : tensor<4xf32> to #hal.device.promise<@b>
  %product = arith.mulf %on_b, %on_b : tensor<4xf32>
  return %product : tensor<4xf32>
}
