"""Display: live while it works, numbers and tables, at any width and in a pipe."""
