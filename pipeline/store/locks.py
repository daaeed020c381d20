"""Named locks between processes, all on one file; the kernel frees them when their holder ends.

A name is a byte of the file (its offset is the name's hash), locked with Linux's open file
description locks. So any number of locks costs one descriptor, shared holders can be
distinguished from exclusive ones, and no lock file is ever left behind or has to be cleaned up.
filelock wants a file for each name, and an SQLite database for each that is shared.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path


class Locks:
    """Locks by name on the file `path`, which is made when it is first needed.

    Locks taken by `share` last until this object is closed or its process ends. Holders exclude
    each other wherever they are: other processes, other threads, other `Locks` of one process.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._shared: int | None = None

    @contextlib.contextmanager
    def hold(self, name: str, *, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
        """Holds `name` alone; waits for other holders, calling `on_wait` once before it does.

        Not reentrant: to hold a name twice in one process waits for ever.
        Raises OSError where the file cannot be made or its file system has no locks.
        """
        descriptor = self._open()
        try:
            if not _try_lock(descriptor, fcntl.F_WRLCK, name):
                if on_wait is not None:
                    on_wait()
                _lock(descriptor, fcntl.F_WRLCK, name)
            yield
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def try_hold(self, name: str) -> Iterator[bool]:
        """Holds `name` alone if nobody else holds or shares it: yields whether it does."""
        descriptor = self._open()
        try:
            yield _try_lock(descriptor, fcntl.F_WRLCK, name)
        finally:
            os.close(descriptor)

    def share(self, name: str) -> None:
        """Shares `name` with other sharers, until `close`; waits while somebody holds it alone."""
        if self._shared is None:
            self._shared = self._open()
        _lock(self._shared, fcntl.F_RDLCK, name)

    def close(self) -> None:
        """Gives up what is shared."""
        if self._shared is not None:
            os.close(self._shared)
            self._shared = None

    def __del__(self) -> None:
        self.close()

    def _open(self) -> int:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)


def _try_lock(descriptor: int, kind: int, name: str) -> bool:
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _flock(kind, name))
    except BlockingIOError:
        return False
    return True


def _lock(descriptor: int, kind: int, name: str) -> None:
    fcntl.fcntl(descriptor, fcntl.F_OFD_SETLKW, _flock(kind, name))


def _flock(kind: int, name: str) -> bytes:
    """`struct flock` of 64-bit Linux: one byte at the offset that stands for `name`."""
    offset = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 2
    return struct.pack("hhqqi4x", kind, os.SEEK_SET, offset, 1, 0)
