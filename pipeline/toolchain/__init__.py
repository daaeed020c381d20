"""One compiler release: its tools, phases and flags, and a compile with it."""
