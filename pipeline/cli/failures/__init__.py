"""The commands on a failure: isolate it, verify, make smaller, work around."""
