"""Substitutes that a download leaves in place of a file: a pointer of Git LFS, or a web page."""

from __future__ import annotations

from pathlib import Path

from iree_pilot.pipeline.errors import UsageError

#: As much of a file is looked at to see that it is something else.
START_BYTES = 512
#: Start of the pointer file that a checkout without Git LFS has in place of a large file.
_LFS = b"version https://git-lfs.github.com/spec/"
_PAGES = (b"<!doctype html", b"<html")


def refuse(path: Path, start: bytes) -> None:
    """Raises UsageError if a file that begins with `start` is a substitute for the one meant."""
    if start.lstrip().lower().startswith(_PAGES):
        raise UsageError(
            f"cannot read {path}: it is a web page, not the file",
            advice="Fetch the file itself: a server may send a page where it wants a login, or "
            "where it does not have the file.",
        )
    if start.startswith(_LFS):
        raise UsageError(
            f"cannot read {path}: it is a pointer of Git LFS, not the file",
            advice="Fetch the file itself: git lfs pull, in the directory of the checkout.",
        )
