"""The operations of each dialect, in numpy."""
