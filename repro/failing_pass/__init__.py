"""Which pass is at fault: of a compile that fails, of a program whose numbers are wrong."""
