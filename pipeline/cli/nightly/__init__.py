"""The command `nightly` and its parts."""
