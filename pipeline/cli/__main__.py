"""`python -m iree_pilot.pipeline.cli`: the same as the command `iree-pilot`."""

from iree_pilot.pipeline.cli import main

main()
