"""A program on disk: MLIR, signatures, parameters, inputs, references, the lines it came from."""
