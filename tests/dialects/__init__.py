"""Random programs as MLIR text in several dialects: what `iree-compile` takes, and we must."""
