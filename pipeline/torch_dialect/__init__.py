"""Programs in the torch dialect of MLIR, read as calls of PyTorch's operators."""
