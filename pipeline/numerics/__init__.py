"""Judging what a device computed against references."""
