"""What is compiled for and run on: flags for a toolchain, devices, what architectures assume."""
