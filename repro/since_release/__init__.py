"""Since which release: one program asked of many compilers, and what that says."""
