"""IR as data flow: a program's graph, cuts out of it, simpler forms of it, carried out on MLIR."""
