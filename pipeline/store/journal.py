"""A file of answers, one JSON document a line, each on disk as soon as it is known.

A search that is stopped, also by SIGKILL in the middle of a line, goes on from what is there.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from threading import Lock
from typing import Generic, TypeVar

import msgspec

T = TypeVar("T")


class Journal(Generic[T]):
    """The entries in `file`, which need not exist; `kind` is their type.

    A last line that was cut off is ended when the next one is appended, not when the file
    is read: whoever writes it may be in the middle of a line. Threads may append at once.
    """

    def __init__(self, file: Path, kind: type[T]) -> None:
        self._file = file
        self._kind = kind
        self._writing = Lock()
        self._whole = False

    def __iter__(self) -> Iterator[T]:
        """The entries in their order; a line that is none of this kind is left out."""
        for line in self._file.read_bytes().splitlines() if self._file.is_file() else ():
            with contextlib.suppress(msgspec.DecodeError):
                yield msgspec.json.decode(line, type=self._kind)

    def append(self, entry: T) -> None:
        """Keeps an entry. Raises OSError where that cannot be done."""
        line = msgspec.json.encode(entry) + b"\n"
        with self._writing, self._file.open("ab+") as file:
            if not self._whole and file.tell():
                file.seek(-1, os.SEEK_END)
                line = line if file.read() == b"\n" else b"\n" + line
            self._whole = True
            file.write(line)

    def clear(self) -> None:
        """Forgets all entries."""
        self._file.unlink(missing_ok=True)

    @property
    def size(self) -> int:
        """Size of the file in bytes."""
        return self._file.stat().st_size if self._file.is_file() else 0
