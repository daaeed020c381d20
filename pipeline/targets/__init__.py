"""Compile targets and devices: flags for a toolchain, assumptions of architectures."""
