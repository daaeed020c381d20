"""Inputs of functions: made up, or the user's own."""
