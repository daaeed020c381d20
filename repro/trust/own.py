"""Record of the folders that this user's own iree-pilot wrote, by digest.

    DATA/made/SHA-256      empty; one for each report.json and question.json that was written

report.json names the digest of each other file, so it stands for the whole folder wherever that is
copied or moved to. Whoever sends a folder can write no record of the same digest.
"""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path

from iree_pilot.pipeline.store.store import data_directory


def remember(record: bytes) -> None:
    """Keeps that this content of a record was written here.

    Where that cannot be kept, the folder is one of somebody else's from now on.
    """
    with contextlib.suppress(OSError):
        place = _place(record)
        place.parent.mkdir(exist_ok=True)
        place.touch()


def wrote(record: bytes) -> bool:
    """True if this content of a record was written here."""
    return _place(record).is_file()


def _place(record: bytes) -> Path:
    return data_directory() / "made" / hashlib.sha256(record).hexdigest()
