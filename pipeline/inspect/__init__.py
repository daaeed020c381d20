"""What is in a compiled module: kernels, shaders, executables that take long."""
