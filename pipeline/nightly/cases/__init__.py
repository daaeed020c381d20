"""Cases of a night, and which of them would have the same outcome as before."""
