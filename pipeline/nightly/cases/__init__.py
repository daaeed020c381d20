"""Which cases a night has, and which of them would come out the same."""
