"""Failures with signatures, from the output and exit status of tools."""
