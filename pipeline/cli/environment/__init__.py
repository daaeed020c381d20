"""The commands on what is here: the tools, targets, releases, the zoo, the cache."""
