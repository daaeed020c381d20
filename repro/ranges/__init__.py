"""Which intermediates leave the range of their low-precision type, and what mends it."""
