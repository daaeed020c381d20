"""Making a failing program minimal: where to look, what to cut, what to make simpler."""
