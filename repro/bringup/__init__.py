"""Bring-up: past one failure after the other, until a model runs, and how to repeat that."""
