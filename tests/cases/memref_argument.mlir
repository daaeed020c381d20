// A buffer as argument and result, which the VM has no type for; the conversion says so twice.
func.func @relu(%in: memref<4x8xf32, strided<[?, ?], offset: ?>>) -> memref<4x8xf32> {
  %zero = arith.constant 0.0 : f32
  %out = memref.alloc() : memref<4x8xf32>
  affine.for %i = 0 to 4 {
    affine.for %j = 0 to 8 {
      %x = affine.load %in[%i, %j] : memref<4x8xf32, strided<[?, ?], offset: ?>>
      %y = arith.maximumf %x, %zero : f32
      affine.store %y, %out[%i, %j] : memref<4x8xf32>
    }
  }
  return %out : memref<4x8xf32>
}
