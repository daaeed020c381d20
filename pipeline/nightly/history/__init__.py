"""What is remembered of all nights, in SQLite."""
