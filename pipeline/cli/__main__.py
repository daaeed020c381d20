"""`python -m pipeline.cli`: the same as the command `iree-pilot`."""

from pipeline.cli import main

main()
