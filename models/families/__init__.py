"""One file a family; each has `SPECS` and imports torch and transformers inside functions only."""
