"""A directory sealed by a manifest: what its files were when it was finished, and whether they are.

The manifest has each file's SHA-256, and its inode, size, mtime and ctime when it was hashed last.
At each examination files up to 4 MiB are hashed again, so that IR, modules and records are checked
byte by byte. Hashing gigabytes of weights before each run would cost more than the run: a larger
file is hashed again only where one of those four differs, or where its last change was too recent
at the last hash to be distinguished from a later one. The ctime moves with every write, truncation
or replacement and cannot be set back, so what this leaves out is decay of the disk itself, which a
full examination finds.
"""

from __future__ import annotations

import errno
import hashlib
import os
import time
from pathlib import Path

import msgspec

MANIFEST = "manifest.json"

_ALWAYS_HASHED_BYTES = 4 * 2**20
_LARGE_BYTES = 64 * 2**20
#: A change this close to the hash may have the same ctime as the next one (the kernel's tick).
_RECENT_NS = 100_000_000
#: Errors of reading a damaged directory; any other error has another cause.
_DAMAGE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EIO)


class File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file, by its path in the directory, as it was when it was hashed."""

    path: str
    sha256: str
    size: int
    inode: int
    mtime_ns: int
    ctime_ns: int


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All files of a sealed directory. label: what it holds. hashed_ns: Unix time in ns."""

    label: str
    hashed_ns: int
    files: tuple[File, ...]


class Examination(msgspec.Struct, frozen=True):
    """damage: what is wrong ("" if nothing). renewed: a manifest that saves the next hash."""

    damage: str
    renewed: Manifest | None = None


def digest(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def state(path: Path) -> str:
    """State of a file, to detect changes: its digest, or for a large one its metadata.

    Hashing a checkpoint of many gigabytes before each run would take longer than the run.
    """
    found = path.stat()
    if found.st_size <= _LARGE_BYTES:
        return digest(path)
    return f"{found.st_size} {found.st_ino} {found.st_mtime_ns} {found.st_ctime_ns}"


def files(directory: Path) -> list[Path]:
    """All files under a directory, links and special files too, in order."""
    return sorted(Path(base, name) for base, _, names in os.walk(directory) for name in names)


def seal(directory: Path, label: str) -> None:
    """Syncs and hashes all files of a finished directory and writes its manifest.

    Raises ValueError if it has a link, a special file or a manifest already.
    """
    paths = files(directory)
    for path in paths:
        if path == directory / MANIFEST or path.is_symlink() or not path.is_file():
            raise ValueError(f"a sealed directory cannot hold {path.relative_to(directory)}")
    for path in paths:
        sync(path)
    hashed = tuple(
        _stated(path, path.relative_to(directory).as_posix(), digest(path)) for path in paths
    )
    write(directory, Manifest(label, time.time_ns(), hashed))
    for base, _, _ in os.walk(directory):
        sync(Path(base))


def examine(directory: Path, label: str, *, full: bool = False) -> Examination:
    """Compares a directory with its manifest; `full` hashes every file.

    Raises OSError where it cannot be read for a reason that says nothing of what is in it.
    """
    try:
        manifest = msgspec.json.decode((directory / MANIFEST).read_bytes(), type=Manifest)
        return _compare(directory, manifest, label, full)
    except (msgspec.MsgspecError, UnicodeError):
        return Examination(f"{MANIFEST} cannot be read")
    except OSError as fault:
        if fault.errno not in _DAMAGE:
            raise
        return Examination(f"{fault.filename or directory}: {fault.strerror}")


def write(directory: Path, manifest: Manifest) -> None:
    """Writes and syncs a manifest."""
    path = directory / MANIFEST
    path.write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=1))
    sync(path)


def sync(path: Path) -> None:
    """Flushes a file, or the names in a directory, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _compare(directory: Path, manifest: Manifest, label: str, full: bool) -> Examination:
    started = time.time_ns()
    if manifest.label != label:
        return Examination(f"{MANIFEST} is that of {manifest.label}")
    present = {path.relative_to(directory).as_posix() for path in files(directory)} - {MANIFEST}
    listed = {file.path for file in manifest.files}
    for path in sorted(present ^ listed):
        return Examination(f"{path} is {'missing' if path in listed else f'not in {MANIFEST}'}")
    renewed, stale = [], False
    for file in manifest.files:
        now = _stated(directory / file.path, file.path, file.sha256)
        if now.size != file.size:
            return Examination(f"{file.path} has {now.size} bytes instead of {file.size}")
        small = now.size <= _ALWAYS_HASHED_BYTES
        unchanged = now == file and now.ctime_ns < manifest.hashed_ns - _RECENT_NS
        if (full or small or not unchanged) and digest(directory / file.path) != file.sha256:
            return Examination(f"{file.path} does not have the SHA-256 of {MANIFEST}")
        stale |= not small and not unchanged
        renewed.append(now)
    return Examination("", Manifest(label, started, tuple(renewed)) if stale else None)


def _stated(path: Path, name: str, sha256: str) -> File:
    stat = path.lstat()
    return File(name, sha256, stat.st_size, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns)
