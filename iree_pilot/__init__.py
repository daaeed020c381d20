"""An MLIR/IREE compilation pipeline driver: traces, compiles, runs, compares, isolates."""
