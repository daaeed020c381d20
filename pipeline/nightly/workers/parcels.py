"""Sends a traced program to a machine that does not share this one's store, as one file."""

from __future__ import annotations

import tarfile
from pathlib import Path

from iree_pilot.pipeline.frontends.load import KIND, Loaded
from iree_pilot.pipeline.store import sealed
from iree_pilot.pipeline.store.store import Store

#: Larger programs are traced again where they are needed: a scheduler's workers keep parcels in
#: memory.
MAX_BYTES = 256 * 2**20


def pack(loaded: Loaded, parcel: Path) -> None:
    """Writes the program's store entry to the file `parcel`, unless it is too large to send."""
    directory = Path(loaded.directory)
    files = [file for file in sealed.files(directory) if file.name != sealed.MANIFEST]
    if sum(file.stat().st_size for file in files) > MAX_BYTES:
        return
    with tarfile.open(parcel, "w") as tar:
        for file in files:
            tar.add(file, f"{directory.name}/{file.relative_to(directory)}", recursive=False)


def unpack(parcel: Path, store: Store) -> None:
    """Puts a packed program into the store, unless it is there.

    It lies under the key that it was made under. Where that is not the key here, because paths or
    packages differ, nobody looks for it, and the program is traced.
    """
    with tarfile.open(parcel) as tar:
        members = tar.getmembers()
        key = members[0].name.split("/")[0]

        def fill(directory: Path) -> None:
            for member in members:
                member.name = member.name.partition("/")[2]
            tar.extractall(directory, members, filter="data")

        store.obtain(KIND, key, fill)
