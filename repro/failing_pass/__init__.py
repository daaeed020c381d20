"""Search for the pass at fault: in a compile that fails, in a program with wrong numbers."""
