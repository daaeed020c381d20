"""A compiled module run on a device: calls, generated tokens, inputs that fit."""
