"""Random programs that a right compiler gets right: what a judge must never accuse."""
