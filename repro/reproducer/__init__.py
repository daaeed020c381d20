"""The folder that shows a failure: written at its levels, verified, found again."""
