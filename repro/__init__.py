"""Isolation of failures into minimal reproducers, built on the driver's core."""
