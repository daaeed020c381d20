"""History of all nights, in SQLite."""
