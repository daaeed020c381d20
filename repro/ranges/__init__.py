"""Search for intermediates out of the range of their low-precision type, and the remedy."""
