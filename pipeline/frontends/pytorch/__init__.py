"""PyTorch models: zoo, Python files and modules, exported programs; to MLIR by iree-turbine."""
