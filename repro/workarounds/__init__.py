"""Workarounds for a failure: flags and rewrites, tried and compared."""
