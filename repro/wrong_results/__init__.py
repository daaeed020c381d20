"""Wrong numbers: the first operation whose compiled result is wrong given right inputs."""
