"""Files on disk: artifacts by content, journals, locks, outputs that the user names."""
