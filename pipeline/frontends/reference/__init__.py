"""What PyTorch computes for a program, and where that is not the only right answer."""
