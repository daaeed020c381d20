"""MLIR files: what their functions take, and what they demand of it."""
