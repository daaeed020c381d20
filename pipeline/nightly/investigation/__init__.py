"""Investigation of new failures: a reproducer, the release, a workaround."""
