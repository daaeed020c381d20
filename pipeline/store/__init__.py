"""What is kept on disk: artifacts by content, journals, locks, files where the user says."""
