"""PyTorch's results for a program, and other results that are as correct."""
