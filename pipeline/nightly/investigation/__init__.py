"""What is found out about new failures: a reproducer, the release, a workaround."""
