"""Contents of a compiled module: kernels, shaders, slow executables."""
