"""Folders that are there already: which shows a failure, and where a new one goes."""
