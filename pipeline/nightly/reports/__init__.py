"""A night for its readers: as text, Markdown and JUnit XML."""
