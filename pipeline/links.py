"""Links that lead nowhere: what is named is there, and is not."""

from __future__ import annotations

from pathlib import Path

from iree_pilot.pipeline.errors import UsageError


def check(path: Path) -> None:
    """Raises UsageError for a link to nothing, or to itself, that the user names."""
    if not path.is_symlink() or path.exists():
        return
    try:
        path.resolve(strict=True)
    except (OSError, RuntimeError) as fault:  # Python's own for a loop
        there = isinstance(fault, FileNotFoundError)
        what = f"{path.readlink()}, which is not there" if there else "itself"
        raise UsageError(
            f"{path} is a link to {what}", advice="Name its intended target, or create it again."
        ) from fault
