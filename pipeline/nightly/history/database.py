"""The history's file: opened, brought up to date, locked, its faults reported as what they are."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from iree_pilot.pipeline.errors import EnvironmentFault, PilotError
from iree_pilot.pipeline.nightly.history import schema
from iree_pilot.pipeline.store import outputs
from iree_pilot.pipeline.store.locks import Locks

_BUSY_SECONDS = 60.0
#: Endings of the files that SQLite keeps beside a database.
_BESIDE = ("-wal", "-shm")
#: Free space below which the disk counts as full, whatever SQLite calls it.
_ROOM_BYTES = 1 << 18
_HEADER_BYTES = 100

_log = logging.getLogger(__name__)


class _Damage(Exception):
    """The file is not what SQLite wrote; the message says in what."""


class Database:
    """One SQLite file in WAL mode: readers never wait, writers wait for each other.

    What was written is on the disk when a writing block ends; a process that dies in the middle of
    one leaves nothing of it. To be used from the thread that opened it. A file that SQLite cannot
    read is moved aside (`set_aside` names it then) and a new one started, unless it is only `kept`.

    Raises EnvironmentFault where it cannot be read or written, where it is of a newer iree-pilot,
    and where it holds something else.
    """

    def __init__(self, path: Path, *, kept: bool = False) -> None:
        if path.exists() and not path.is_dir():
            outputs.check_regular(path)  # a device is no damaged history to be moved aside
        self.path = path
        self.set_aside: Path | None = None
        self._locks = Locks(path.with_name(path.name + ".lock"))
        with self._reporting("open"):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._database = self._open()
            except (_Damage, sqlite3.DatabaseError) as fault:
                if kept or not _damaged(fault):
                    raise
                with self._locks.try_hold("nightly") as alone:
                    self._replace(fault, alone=alone)

    def close(self) -> None:
        self._database.close()

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextlib.contextmanager
    def hold(
        self, *, wait: bool = False, on_wait: Callable[[], None] | None = None
    ) -> Iterator[None]:
        """Makes this the one nightly on this database, and makes sure that all of it is readable.

        Another one that holds it is waited for (after `on_wait`), or without `wait` an
        EnvironmentFault. The hold of a process that dies is free. Not reentrant. A damaged
        database is moved aside here too.
        """
        with contextlib.ExitStack() as stack:
            with self._reporting("lock"):
                if wait:
                    stack.enter_context(self._locks.hold("nightly", on_wait=on_wait))
                elif not stack.enter_context(self._locks.try_hold("nightly")):
                    raise EnvironmentFault(
                        f"another nightly is writing to the history {self.path}",
                        advice="Wait for it to end (--wait), or name another history (--database).",
                    )
                why = self._examine()
                if why:
                    self._replace(why, alone=True)
            yield

    @property
    def is_held(self) -> bool:
        """True if a nightly is at work on this database now, of this process or another."""
        with self._reporting("lock"), self._locks.try_hold("nightly") as free:
            return not free

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """The database for queries; they see what was committed."""
        with self._reporting("read"):
            yield self._database

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction: all of the block is written, or nothing when it raises."""
        with self._reporting("write to"):
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise

    def _open(self) -> sqlite3.Connection:
        # SQLite takes a file that ends within its header for an empty one.
        if self.path.is_file() and 0 < self.path.stat().st_size < _HEADER_BYTES:
            raise _Damage("it ends within its header")
        database = sqlite3.connect(self.path, timeout=_BUSY_SECONDS, isolation_level=None)
        try:
            found = schema.version(database)
            if schema.foreign(database):
                raise EnvironmentFault(
                    f"{self.path} is an SQLite database, but not a history of iree-pilot",
                    advice="Move it away, or name another history (--database FILE).",
                )
            if found > schema.VERSION:
                raise EnvironmentFault(
                    f"the history {self.path} has schema {found}, and this iree-pilot knows "
                    f"schemas up to {schema.VERSION}",
                    advice="Update iree-pilot here, or name another history (--database FILE).",
                )
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = FULL")
            database.execute("PRAGMA foreign_keys = ON")
            schema.migrate(database)
            if table := schema.lacking(database):
                raise _Damage(f"it lacks the table {table}")
        except BaseException:
            database.close()
            raise
        return database

    def _examine(self) -> str:
        """Damage of the file, "" if there is none."""
        try:
            ((answer,),) = self._database.execute("PRAGMA quick_check(1)").fetchall()
        except sqlite3.DatabaseError as fault:
            if not _damaged(fault):
                raise
            return str(fault)
        return "" if answer == "ok" else str(answer)

    def _replace(self, why: object, *, alone: bool) -> None:
        """Moves the damaged file aside, with what belongs to it, and begins a new one."""
        if not alone:
            raise EnvironmentFault(
                f"the history {self.path} is damaged ({why}), and another nightly uses it",
                advice="Stop that one; the next nightly keeps the file aside and begins a new one.",
            )
        if hasattr(self, "_database"):
            self._database.close()
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%f")
        # Of a link, the file: SQLite keeps what belongs to it beside that.
        own = Path(os.path.realpath(self.path))
        aside = own.with_name(f"{own.name}.damaged-{stamp}")
        own.rename(aside)
        for ending in _BESIDE:
            with contextlib.suppress(FileNotFoundError):
                Path(f"{own}{ending}").rename(f"{aside}{ending}")
        _log.info("the history %s is damaged (%s); kept as %s", self.path, why, aside)
        self.set_aside = aside
        self._database = self._open()

    @contextlib.contextmanager
    def _reporting(self, doing: str) -> Iterator[None]:
        """Turns what SQLite and the file system refuse into an EnvironmentFault."""
        try:
            yield
        except PilotError:
            raise
        except (_Damage, sqlite3.Error, OSError) as fault:
            why, advice = self._explain(fault)
            if not advice:
                raise
            raise EnvironmentFault(
                f"cannot {doing} the history {self.path}: {why}", advice=advice
            ) from fault

    def _explain(self, fault: _Damage | sqlite3.Error | OSError) -> tuple[str, str]:
        """(cause, advice); no advice for a mistake of ours."""
        elsewhere = "set IREE_PILOT_DATA to a directory"
        if isinstance(fault, OSError):
            return fault.strerror or str(fault), f"Make it writable, or {elsewhere} that is."
        if _damaged(fault):
            return f"it is damaged ({fault})", (
                "`iree-pilot nightly run` without --dry-run moves a damaged history aside and "
                "begins a new one."
            )
        assert isinstance(fault, sqlite3.Error)
        code = _code(fault)
        if code == sqlite3.SQLITE_FULL or (code == sqlite3.SQLITE_IOERR and self._is_full()):
            return "the disk is full", (
                f"Free some space, or {elsewhere} on a larger disk. What was written before is "
                "safe; run the same command again to go on."
            )
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return "another process has been writing to it for long", "Try again later."
        if code in (
            sqlite3.SQLITE_IOERR,
            sqlite3.SQLITE_READONLY,
            sqlite3.SQLITE_CANTOPEN,
            sqlite3.SQLITE_PERM,
        ):
            return str(fault), f"Make it a writable file on a local disk, or {elsewhere} that is."
        return str(fault), ""

    def _is_full(self) -> bool:
        place = os.path.realpath(self.path.parent)
        return shutil.disk_usage(place).free < _ROOM_BYTES


def _code(fault: sqlite3.Error) -> int:
    """SQLite's primary result code; -1 where the error is not SQLite's own."""
    return getattr(fault, "sqlite_errorcode", -1) & 0xFF


def _damaged(fault: Exception) -> bool:
    if not isinstance(fault, sqlite3.Error):
        return isinstance(fault, _Damage)
    lacks = str(fault).startswith(("no such table", "no such column"))
    return lacks or _code(fault) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
