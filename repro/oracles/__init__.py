"""Oracles that test whether a candidate fails in the same way: by compiler or runtime."""
