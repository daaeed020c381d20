"""The folder itself: its files, its report, the draft of an issue."""
