"""A module as plain data, and what carries out its operations."""
