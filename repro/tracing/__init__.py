"""A source that does not trace: the operation or module that is why, found in child processes."""
