"""Families of models, one file each: `SPECS`, and torch and transformers inside functions only."""
