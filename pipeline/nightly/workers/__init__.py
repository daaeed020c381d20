"""Workers for the jobs of a night: processes of this machine, or a cluster."""
