"""From what the user names (a source) to a program on disk.

`source` tells what a name stands for, `load` finds or makes the program; `pytorch`, `onnx` and
`reference` do the work in a child process (`trace_child`), so that an abort, a runaway trace or a
model that eats the memory ends the child and not the driver. `mlir` needs no torch.
"""
