"""The cache: artifacts by content, written atomically, verified when read, shared by processes.

    CACHE/store/KIND/KEY[:2]/KEY/    an entry: its files, and manifest.json that lists them
    CACHE/store/.tmp/                entries being built or removed; never read
    CACHE/store/.locks               the locks, see `pipeline.store.locks`

An entry appears by one rename of a directory that is complete, hashed and synced, so no crash
shows half of one. Nothing in an entry is changed afterwards. Each read is verified, by the rule
that `pipeline.store.sealed` tells: what does not match is thrown away and reported as absent.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import platformdirs

from iree_pilot.pipeline.errors import EnvironmentFault, PilotError
from iree_pilot.pipeline.store import sealed
from iree_pilot.pipeline.store.locks import Locks
from iree_pilot.pipeline.store.sealed import MANIFEST, digest

__all__ = ["Collected", "Damaged", "Store", "Usage", "cache_directory", "data_directory", "digest"]

_FORMAT = 1
_KIND = re.compile(r"[a-z0-9][a-z0-9-]*")
_KEY = re.compile(r"[0-9a-f]{64}")
_FULL = (errno.ENOSPC, errno.EDQUOT)

_log = logging.getLogger(__name__)


def cache_directory() -> Path:
    """Directory of artifacts and releases; it may be deleted at any time.

    `IREE_PILOT_CACHE`, else the user's cache directory. Raises EnvironmentFault unless it is a
    directory that can be written to; makes it where it is missing.
    """
    return _own_directory("IREE_PILOT_CACHE", platformdirs.user_cache_path("iree-pilot"), "cache")


def data_directory() -> Path:
    """Directory of the history and known failures, which cannot be regenerated.

    `IREE_PILOT_DATA`, else the user's data directory. Raises EnvironmentFault unless it is a
    directory that can be written to; makes it where it is missing.
    """
    return _own_directory("IREE_PILOT_DATA", platformdirs.user_data_path("iree-pilot"), "data")


def _own_directory(variable: str, default: Path, what: str) -> Path:
    chosen = os.environ.get(variable)
    directory = Path(chosen).expanduser().absolute() if chosen else default
    why = ""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as fault:
        why = fault.strerror or str(fault)
    if why or not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
        raise EnvironmentFault(
            f"cannot use the {what} directory {directory}: {why or 'it is not writable'}",
            advice=f"Make it writable, or set {variable} to a directory that is.",
        )
    return directory


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Disk usage of the entries of one kind."""

    kind: str
    entries: int
    bytes: int


class Collected(msgspec.Struct, frozen=True, kw_only=True):
    """Entries that `gc` removed; `in_use` ones were due too but are being used or built."""

    entries: int
    bytes: int
    in_use: int


class Damaged(msgspec.Struct, frozen=True, kw_only=True):
    """An entry that `verify` found damaged and removed, and what was wrong with it."""

    kind: str
    key: str
    why: str


class Store:
    """The entries under `root`: `cache_directory()/"store"` unless another is given.

    An entry that a Store has opened or built is in use, and safe from `gc` of any process, for as
    long as that Store lives. All methods raise EnvironmentFault where the disk is full or the
    store cannot be written, and ValueError for a kind or key that is not one.
    """

    def __init__(self, root: Path | None = None) -> None:
        self.root = root if root is not None else cache_directory() / "store"
        self._locks = Locks(self.root / ".locks")

    @staticmethod
    def key(*parts: object) -> str:
        """SHA-256 of a canonical encoding of `parts`: JSON values and msgspec structs.

        The order of a mapping or set does not matter, that of a sequence does. Raises TypeError
        for what has no such encoding: a Path has none, for a key is about contents (`digest`),
        not about where they are.
        """
        encoded = msgspec.json.encode((_FORMAT, *parts), order="deterministic")
        return hashlib.sha256(encoded).hexdigest()

    def open(self, kind: str, key: str) -> Path | None:
        """The directory of a verified entry, or None where there is none (or no sound one).

        It is the store's own copy: read it, never write to it.
        """
        place = self._place(kind, key)
        if not place.is_dir():
            return None
        with self._reporting("read the cache"):
            self._locks.share(f"use/{kind}/{key}")
            why = self._damage(kind, key)
            if why:
                self._discard(kind, key, why)
                return None
            with contextlib.suppress(OSError):  # the time of last use only orders `gc`
                os.utime(place / MANIFEST)
        return place

    def obtain(
        self,
        kind: str,
        key: str,
        make: Callable[[Path], object],
        *,
        on_wait: Callable[[], None] | None = None,
    ) -> Path:
        """Opens the entry, or has `make` fill a directory that becomes it.

        Of several processes that ask at once one makes it; the others wait, after `on_wait`, and
        find it. What `make` raises passes through and leaves no entry.
        """
        found = self.open(kind, key)
        if found is None:
            with self.lock(kind, key, on_wait=on_wait):
                found = self.open(kind, key)
                if found is None:
                    with self.build(kind, key) as directory:
                        make(directory)
                    found = self._place(kind, key)
        return found

    @contextlib.contextmanager
    def lock(
        self, kind: str, key: str, *, on_wait: Callable[[], None] | None = None
    ) -> Iterator[None]:
        """Makes this the one builder of an entry; waits for another, after calling `on_wait`.

        After the wait the entry may be there: `open` it before building. The lock of a process
        that dies is free. Not reentrant.
        """
        self._place(kind, key)
        with contextlib.ExitStack() as stack:
            with self._reporting("lock the cache"):
                stack.enter_context(self._locks.hold(f"build/{kind}/{key}", on_wait=on_wait))
            yield

    @contextlib.contextmanager
    def build(self, kind: str, key: str) -> Iterator[Path]:
        """Yields an empty directory; once the block ends, what is in it is the entry.

        The files must be regular ones, and must not name the directory, which is renamed. When
        the block raises, the directory is removed and there is no entry. When somebody else has
        built a sound entry meanwhile, that one stays.
        """
        self._place(kind, key)
        with contextlib.ExitStack() as stack:
            with self._reporting("write to the cache"):
                self._sweep()
                directory = stack.enter_context(self._temporary())
            with self._reporting("write to the cache", only_full=True):
                yield directory
            with self._reporting("write to the cache"):
                sealed.seal(directory, f"{kind}/{key}")
                self._locks.share(f"use/{kind}/{key}")
                self._put(directory, kind, key)

    def info(self) -> tuple[Usage, ...]:
        """Entries and bytes by kind, in the order of their names."""
        totals: dict[str, list[int]] = {}
        for kind, key in self._entries():
            totals.setdefault(kind, []).append(_bytes(self._place(kind, key)))
        return tuple(
            Usage(kind=kind, entries=len(sizes), bytes=sum(sizes))
            for kind, sizes in sorted(totals.items())
        )

    def gc(self, max_bytes: int | None = None, older_than: float | None = None) -> Collected:
        """Removes entries not used for `older_than` seconds, then the oldest down to `max_bytes`.

        Never one that is in use or being built. Also removes what dead processes left behind.
        """
        now = time.time()
        removed, freed, in_use = 0, 0, 0
        with self._reporting("clean the cache"):
            self._sweep()
            entries = sorted(
                (_last_used(place), _bytes(place), kind, key)
                for kind, key in self._entries()
                for place in [self._place(kind, key)]
            )
            total = sum(size for _, size, _, _ in entries)
            for used, size, kind, key in entries:
                too_old = older_than is not None and now - used > older_than
                if not too_old and (max_bytes is None or total <= max_bytes):
                    continue
                if self._remove_unused(kind, key):
                    removed, freed, total = removed + 1, freed + size, total - size
                else:
                    in_use += 1
        return Collected(entries=removed, bytes=freed, in_use=in_use)

    def verify(self) -> tuple[Damaged, ...]:
        """Hashes every file of every entry; removes the entries that are damaged, returns them."""
        damaged = []
        with self._reporting("verify the cache"):
            for kind, key in self._entries():
                self._locks.share(f"use/{kind}/{key}")
                if not self._place(kind, key).is_dir():
                    continue
                why = self._damage(kind, key, full=True)
                if why and self._discard(kind, key, why, full=True):
                    damaged.append(Damaged(kind=kind, key=key, why=why))
        return tuple(damaged)

    def _place(self, kind: str, key: str) -> Path:
        if not _KIND.fullmatch(kind) or not _KEY.fullmatch(key):
            raise ValueError(f"not a kind and a key: {kind!r}, {key!r}")
        return self.root / kind / key[:2] / key

    def _entries(self) -> list[tuple[str, str]]:
        return sorted(
            (place.parent.parent.name, place.name)
            for place in self.root.glob("*/??/*")
            if _KIND.fullmatch(place.parent.parent.name) and _KEY.fullmatch(place.name)
        )

    @contextlib.contextmanager
    def _temporary(self) -> Iterator[Path]:
        """A new directory inside the store, removed at the end if it is still there.

        Its lock is held from before it exists, so `_sweep` knows it from one of a dead process.
        """
        name = f"{os.getpid()}-{secrets.token_hex(8)}"
        directory = self.root / ".tmp" / name
        with self._locks.hold(f"tmp/{name}"):
            try:
                directory.mkdir(parents=True)
                yield directory
            finally:
                shutil.rmtree(directory, ignore_errors=True)

    def _sweep(self) -> None:
        """Removes the temporary directories of dead processes."""
        for leftover in self.root.glob(".tmp/*"):
            with self._locks.try_hold(f"tmp/{leftover.name}") as dead:
                if dead:
                    shutil.rmtree(leftover, ignore_errors=True)

    def _put(self, directory: Path, kind: str, key: str) -> None:
        place = self._place(kind, key)
        place.parent.mkdir(parents=True, exist_ok=True)
        while True:
            try:
                directory.rename(place)
            except OSError as fault:
                if fault.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                why = self._damage(kind, key)
                if not why:
                    return
                self._discard(kind, key, why)
            else:
                sealed.sync(place.parent)
                return

    def _damage(self, kind: str, key: str, *, full: bool = False) -> str:
        """Damage of an entry, "" if there is none."""
        place = self._place(kind, key)
        found = sealed.examine(place, f"{kind}/{key}", full=full)
        if found.renewed is not None:
            with contextlib.suppress(OSError), self._temporary() as directory:
                sealed.write(directory, found.renewed)
                (directory / MANIFEST).rename(place / MANIFEST)
        return found.damage

    def _discard(self, kind: str, key: str, why: str, *, full: bool = False) -> bool:
        """Removes a damaged entry, unless somebody has put a sound one in its place."""
        with self._temporary() as waste, self._locks.hold(f"remove/{kind}/{key}"):
            if not self._damage(kind, key, full=full):
                return False
            _log.info("removed the damaged cache entry %s/%s: %s", kind, key, why)
            with contextlib.suppress(FileNotFoundError):
                self._place(kind, key).rename(waste / "entry")
        return True

    def _remove_unused(self, kind: str, key: str) -> bool:
        with (
            self._temporary() as waste,
            self._locks.try_hold(f"build/{kind}/{key}") as not_built,
            self._locks.try_hold(f"use/{kind}/{key}") as not_used,
            self._locks.hold(f"remove/{kind}/{key}"),
        ):
            if not (not_built and not_used):
                return False
            with contextlib.suppress(FileNotFoundError):
                self._place(kind, key).rename(waste / "entry")
        return True

    @contextlib.contextmanager
    def _reporting(self, doing: str, *, only_full: bool = False) -> Iterator[None]:
        """Turns what the file system refuses into an EnvironmentFault.

        only_full: the block is the caller's own, of which only a full disk is our business.
        """
        try:
            yield
        except PilotError:
            raise
        except Exception as fault:
            number = fault.errno if isinstance(fault, OSError) else None
            # Libraries that write files themselves put the system's text into their own errors.
            if number in _FULL or (number is None and os.strerror(errno.ENOSPC) in str(fault)):
                advice = (
                    "Free some space (`iree-pilot cache gc --max-size SIZE` removes what was not "
                    "used for long), "
                    "or set IREE_PILOT_CACHE to a directory on a larger disk."
                )
            elif number is None or only_full:
                raise
            else:
                advice = (
                    "Make sure that you can write there, or set IREE_PILOT_CACHE to another "
                    "directory on a local disk."
                )
            why = os.strerror(number or errno.ENOSPC)
            raise EnvironmentFault(
                f"cannot {doing} in {self.root}: {why}", advice=advice
            ) from fault


def _bytes(directory: Path) -> int:
    total = 0
    for path in sealed.files(directory):
        with contextlib.suppress(FileNotFoundError):
            total += path.lstat().st_size
    return total


def _last_used(place: Path) -> float:
    """Seconds since the epoch; 0 for an entry without a manifest, which nobody can use."""
    try:
        return (place / MANIFEST).stat().st_mtime
    except OSError:
        return 0.0
