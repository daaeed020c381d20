"""Two sides (targets, or sets of flags) compared dispatch by dispatch, from one flow IR."""
