"""Who does the jobs of a night: processes of this machine, or a cluster."""
