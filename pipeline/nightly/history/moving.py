"""Histories on the move: one file for another machine, and the nights of several machines in one.

What is exported is an SQLite database itself: whole, compact and readable by everybody. A night
keeps its UUID wherever it goes, so that merging it twice adds nothing.
"""

from __future__ import annotations

import contextlib
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import msgspec

from iree_pilot.pipeline.errors import EnvironmentFault, UsageError
from iree_pilot.pipeline.nightly.history import schema
from iree_pilot.pipeline.nightly.history.history import History
from iree_pilot.pipeline.store import outputs


class Merged(msgspec.Struct, frozen=True, kw_only=True):
    """Result of `merge`. added: nights; known: those that were there already; unfinished: those
    that were left out, as they may go on yet. outcomes: how many were added.
    """

    added: int
    known: int
    unfinished: int
    outcomes: int


def export(history: History, path: Path) -> int:
    """Writes all of the history, as it is now, into `path`; a file that is there is replaced.

    Returns how many nights that are. Raises UsageError where that is the history itself,
    EnvironmentFault where it cannot be written.
    """
    if path.exists() and path.samefile(history.path):
        raise UsageError(f"cannot export the history to itself: {path}", advice="Name another.")
    try:
        with tempfile.TemporaryDirectory(prefix="iree-pilot-") as scratch:
            made = Path(scratch) / "history.db"
            made.touch()  # SQLite would speak of the history where it cannot write this one
            with history.reading() as database:
                database.execute("VACUUM INTO ?", (str(made),))
                (nights,) = database.execute("SELECT count(*) FROM runs").fetchone()
            outputs.put(path, made)
    except OSError as fault:
        raise EnvironmentFault(
            f"cannot export the history to {path}: {fault.strerror}",
            advice="Name a file in a directory that can be written to.",
        ) from fault
    return int(nights)


def merge(history: History, path: Path) -> Merged:
    """Adds the finished nights of another history to this one: all of them, or none on an error.

    The other file is only read; it may be in use. Raises UsageError where it is no sound history,
    EnvironmentFault where it is of a newer iree-pilot, or this one cannot be written.
    """
    with _copy(history, path) as copy, history.reading() as database:
        database.execute("ATTACH ? AS other", (str(copy),))
        try:
            with history.writing():
                return _merge(database)
        finally:
            database.execute("DETACH other")


def _merge(database: sqlite3.Connection) -> Merged:
    """Copies row by row what is new in `other`; numbers of rows are translated by `to_TABLE`."""
    known = _count(database, "uuid IN (SELECT uuid FROM main.runs)")
    new = "finished IS NOT NULL AND uuid NOT IN (SELECT uuid FROM main.runs)"
    added = _count(database, new)
    database.execute(f"CREATE TEMP TABLE nights AS SELECT id FROM other.runs WHERE {new}")
    _add(database, "runs", where="t.id IN nights")
    _translate(database, "runs", "ours.uuid = t.uuid WHERE t.id IN nights")
    outcomes = "FROM other.outcomes WHERE run_id IN nights"
    _add(database, "cases", where=f"t.id IN (SELECT case_id {outcomes})")
    _translate(database, "cases", "ours.name = t.name")
    here = "SELECT digest FROM main.results"
    database.execute(
        f"CREATE TEMP TABLE fresh AS SELECT id FROM other.results WHERE digest NOT IN ({here})"
        f" AND id IN (SELECT result_id {outcomes})"
    )
    _add(database, "results", where="t.id IN fresh")
    _translate(database, "results", "ours.digest = t.digest")
    for table in ("steps", "phases", "failures"):
        _add(database, table, where="t.result_id IN fresh", result_id="results")
    numbers = {"run_id": "runs", "case_id": "cases", "result_id": "results"}
    _add(database, "outcomes", where="t.run_id IN nights", **numbers)
    _translate(
        database,
        "outcomes",
        "ours.run_id = (SELECT ours FROM to_runs WHERE theirs = t.run_id)"
        " AND ours.case_id = (SELECT ours FROM to_cases WHERE theirs = t.case_id)"
        " WHERE t.run_id IN nights",
    )
    for table in ("metrics", "judgements", "artifacts"):
        _add(
            database,
            table,
            where="t.outcome_id IN (SELECT theirs FROM to_outcomes)",
            outcome_id="outcomes",
        )
    (copied,) = database.execute("SELECT count(*) FROM to_outcomes").fetchone()
    for table in ("nights", "fresh", "to_runs", "to_cases", "to_results", "to_outcomes"):
        database.execute(f"DROP TABLE temp.{table}")
    unfinished = _count(database, "finished IS NULL AND uuid NOT IN (SELECT uuid FROM main.runs)")
    return Merged(added=added, known=known, unfinished=unfinished, outcomes=copied)


def _count(database: sqlite3.Connection, where: str) -> int:
    (number,) = database.execute(f"SELECT count(*) FROM other.runs WHERE {where}").fetchone()
    return int(number)


def _add(database: sqlite3.Connection, table: str, *, where: str, **numbers: str) -> None:
    """Copies rows `t` of a table. numbers: columns that number the rows of another table."""
    names = [
        name for _, name, *_ in database.execute(f"PRAGMA main.table_info({table})") if name != "id"
    ]
    values = [
        f"(SELECT ours FROM to_{numbers[name]} WHERE theirs = t.{name})"
        if name in numbers
        else f"t.{name}"
        for name in names
    ]
    database.execute(
        f"INSERT OR IGNORE INTO main.{table} ({', '.join(names)})"
        f" SELECT {', '.join(values)} FROM other.{table} t WHERE {where}"
        + (" ORDER BY t.id" if table == "outcomes" else "")
    )


def _translate(database: sqlite3.Connection, table: str, on: str) -> None:
    """Makes `to_TABLE`: which row here is which of the other history."""
    database.execute(
        f"CREATE TEMP TABLE to_{table} (theirs INTEGER PRIMARY KEY, ours INTEGER NOT NULL)"
    )
    database.execute(
        f"INSERT INTO to_{table} SELECT t.id, ours.id"
        f" FROM other.{table} t JOIN main.{table} ours ON {on}"
    )


@contextlib.contextmanager
def _copy(history: History, path: Path) -> Iterator[Path]:
    """A copy of another history, of the schema of today: the file itself stays as it is."""
    with tempfile.TemporaryDirectory(prefix=".merge-", dir=history.path.parent) as directory:
        copy = Path(directory) / "other.db"
        try:
            source = sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=ro", uri=True)
        except sqlite3.Error as fault:
            why = str(fault) if path.exists() else "there is no such file"
            raise _unreadable(path, why) from fault
        with contextlib.closing(source):
            try:
                found = schema.version(source)
                if schema.foreign(source) or not found:
                    raise _unreadable(path, "it is no history of iree-pilot")
                answers = source.execute("PRAGMA quick_check(1)").fetchall()
            except sqlite3.DatabaseError as fault:
                raise _unreadable(path, str(fault)) from fault
            if answers != [("ok",)]:
                raise _unreadable(path, f"it is damaged ({answers[0][0]})")
            if found > schema.VERSION:
                raise EnvironmentFault(
                    f"cannot merge {path}: it has schema {found}, and this iree-pilot knows "
                    f"schemas up to {schema.VERSION}",
                    advice="Update iree-pilot here, and merge again.",
                )
            with (
                history.reading(),
                contextlib.closing(sqlite3.connect(copy, isolation_level=None)) as target,
            ):
                source.backup(target)
                schema.migrate(target)
        yield copy


def _unreadable(path: Path, why: str) -> UsageError:
    return UsageError(
        f"cannot merge {path}: {why}",
        advice="Name a file that `iree-pilot nightly export` wrote, or another machine's history.",
    )
