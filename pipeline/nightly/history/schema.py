"""The tables of the history and how older ones become them: migrations, in order.

A database says in `PRAGMA user_version` how many of the migrations it has had. A migration is never
changed once it was released; what is to be different comes as another one at the end.

    runs       one row a night (or shard of one); finished is NULL until it has been judged;
               notes: JSON, what its report says beside the cases; accept: JSON, the command
               that accepts what it found
    cases      one row a case name, whatever nights it was in; definition: the latest, as JSON
    outcomes   one row a case and night; status is NULL while it is planned and not finished
    results    one row a distinct CaseResult: reused outcomes share that of the night it is from.
               record: its JSON but for the phases, compressed with zlib
    steps, phases, failures    of a result, in order; ops: JSON, operations by dialect
    metrics    of an outcome; see `pipeline.nightly.metrics`
    judgements of an outcome, once its night is finished; findings: JSON, see `records.Finding`
    artifacts  of an outcome: folders and files by kind (`reproducer`, ...)
"""

from __future__ import annotations

import itertools
import re
import sqlite3
from collections.abc import Sequence

#: "iree" as a number: marks the file as ours (`PRAGMA application_id`).
APPLICATION = 0x69726565

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE runs (
            id INTEGER PRIMARY KEY,
            uuid TEXT NOT NULL UNIQUE,
            config TEXT NOT NULL,
            title TEXT NOT NULL,
            machine TEXT NOT NULL,
            revision TEXT NOT NULL,
            begun TEXT NOT NULL,
            finished TEXT
        )""",
        "CREATE INDEX runs_by_time ON runs (begun, id)",
        """CREATE TABLE cases (
            id INTEGER PRIMARY KEY,
            name TEXT NOT NULL UNIQUE,
            source TEXT NOT NULL,
            target TEXT NOT NULL,
            release TEXT NOT NULL,
            dtype TEXT,
            definition TEXT NOT NULL
        )""",
        """CREATE TABLE results (
            id INTEGER PRIMARY KEY,
            digest BLOB NOT NULL UNIQUE,
            status TEXT NOT NULL,
            release TEXT NOT NULL,
            arch TEXT,
            device TEXT,
            record BLOB NOT NULL
        )""",
        """CREATE TABLE outcomes (
            id INTEGER PRIMARY KEY,
            run_id INTEGER NOT NULL REFERENCES runs ON DELETE CASCADE,
            case_id INTEGER NOT NULL REFERENCES cases,
            result_id INTEGER REFERENCES results,
            status TEXT,
            why TEXT NOT NULL DEFAULT '',
            key TEXT NOT NULL DEFAULT '',
            machine TEXT NOT NULL DEFAULT '',
            worker TEXT NOT NULL DEFAULT '',
            begun TEXT NOT NULL DEFAULT '',
            seconds REAL NOT NULL DEFAULT 0,
            peak_bytes INTEGER NOT NULL DEFAULT 0,
            reused INTEGER NOT NULL DEFAULT 0,
            attempts TEXT NOT NULL DEFAULT '[]',
            UNIQUE (run_id, case_id)
        )""",
        "CREATE INDEX outcomes_by_case ON outcomes (case_id, run_id)",
        "CREATE INDEX outcomes_by_key ON outcomes (key) WHERE key != ''",
        "CREATE INDEX outcomes_by_result ON outcomes (result_id)",
        """CREATE TABLE steps (
            result_id INTEGER NOT NULL REFERENCES results ON DELETE CASCADE,
            position INTEGER NOT NULL,
            name TEXT NOT NULL,
            status TEXT NOT NULL,
            seconds REAL NOT NULL,
            cached INTEGER NOT NULL,
            why TEXT NOT NULL,
            PRIMARY KEY (result_id, position)
        ) WITHOUT ROWID""",
        """CREATE TABLE phases (
            result_id INTEGER NOT NULL REFERENCES results ON DELETE CASCADE,
            position INTEGER NOT NULL,
            name TEXT NOT NULL,
            seconds REAL NOT NULL,
            bytes INTEGER NOT NULL,
            ops TEXT NOT NULL,
            PRIMARY KEY (result_id, position)
        ) WITHOUT ROWID""",
        """CREATE TABLE failures (
            result_id INTEGER NOT NULL REFERENCES results ON DELETE CASCADE,
            position INTEGER NOT NULL,
            kind TEXT NOT NULL,
            signature TEXT NOT NULL,
            message TEXT NOT NULL,
            phase TEXT,
            pass TEXT,
            op TEXT,
            location TEXT,
            signal TEXT,
            PRIMARY KEY (result_id, position)
        ) WITHOUT ROWID""",
        "CREATE INDEX failures_by_signature ON failures (signature)",
        """CREATE TABLE metrics (
            outcome_id INTEGER NOT NULL REFERENCES outcomes ON DELETE CASCADE,
            name TEXT NOT NULL,
            value REAL NOT NULL,
            PRIMARY KEY (outcome_id, name)
        ) WITHOUT ROWID""",
        """CREATE TABLE judgements (
            outcome_id INTEGER PRIMARY KEY REFERENCES outcomes ON DELETE CASCADE,
            verdict TEXT NOT NULL,
            why TEXT NOT NULL,
            signature TEXT NOT NULL,
            since TEXT NOT NULL,
            reproducer TEXT NOT NULL
        )""",
        """CREATE TABLE artifacts (
            outcome_id INTEGER NOT NULL REFERENCES outcomes ON DELETE CASCADE,
            kind TEXT NOT NULL,
            path TEXT NOT NULL,
            PRIMARY KEY (outcome_id, kind, path)
        ) WITHOUT ROWID""",
    ),
    (
        "ALTER TABLE runs ADD COLUMN notes TEXT NOT NULL DEFAULT '[]'",
        "ALTER TABLE judgements ADD COLUMN findings TEXT NOT NULL DEFAULT '[]'",
    ),
    # `ok` no longer says what ran and was not compared, and `not-run` not what compiled.
    (
        """UPDATE results SET status = CASE
            WHEN status = 'not-run' THEN 'compiled'
            WHEN EXISTS (SELECT 1 FROM steps s WHERE s.result_id = id
                AND s.name = 'compare' AND s.status = 'not-run') THEN 'ran'
            ELSE status END
        WHERE status IN ('ok', 'not-run')""",
        """UPDATE steps SET status = CASE name WHEN 'compare' THEN 'ran' ELSE 'compiled' END
        WHERE status = 'not-run'""",
        """UPDATE outcomes SET
            status = (SELECT r.status FROM results r WHERE r.id = result_id),
            attempts = replace(replace(attempts, '"not-run"', '"compiled"'), '"ok"',
                CASE (SELECT r.status FROM results r WHERE r.id = result_id)
                    WHEN 'ran' THEN '"ran"' ELSE '"ok"' END)
        WHERE result_id IS NOT NULL""",
        """UPDATE judgements SET verdict = (SELECT o.status FROM outcomes o WHERE o.id = outcome_id)
        WHERE verdict = 'pass' AND outcome_id IN
            (SELECT id FROM outcomes WHERE status IN ('ran', 'compiled'))""",
    ),
    (
        "ALTER TABLE outcomes ADD COLUMN program TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE outcomes ADD COLUMN files TEXT NOT NULL DEFAULT '{}'",
    ),
    ("ALTER TABLE outcomes ADD COLUMN source TEXT NOT NULL DEFAULT 'null'",),
    ("ALTER TABLE runs ADD COLUMN accept TEXT NOT NULL DEFAULT '[]'",),
)

VERSION = len(MIGRATIONS)
_TABLES = re.findall(r"CREATE TABLE (\w+)", "\n".join(itertools.chain(*MIGRATIONS)))


def version(database: sqlite3.Connection) -> int:
    """Number of migrations of a database; 0 for a new one."""
    (number,) = database.execute("PRAGMA user_version").fetchone()
    return int(number)


def foreign(database: sqlite3.Connection) -> bool:
    """True if it holds something that is not a history."""
    (application,) = database.execute("PRAGMA application_id").fetchone()
    (tables,) = database.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    return bool(tables) and application != APPLICATION


def lacking(database: sqlite3.Connection) -> str:
    """A table that an up to date database lacks, or ""."""
    there = {name for (name,) in database.execute("SELECT name FROM sqlite_schema")}
    return next((table for table in _TABLES if table not in there), "")


def migrate(database: sqlite3.Connection, migrations: Sequence[Sequence[str]] = MIGRATIONS) -> None:
    """Brings a database, in autocommit mode, up to date: all of it, or nothing when that fails.

    Several processes may do so at once.
    """
    if version(database) >= len(migrations):
        return
    database.execute("BEGIN IMMEDIATE")
    try:
        for statements in migrations[version(database) :]:
            for statement in statements:
                database.execute(statement)
        database.execute(f"PRAGMA application_id = {APPLICATION}")
        database.execute(f"PRAGMA user_version = {len(migrations)}")
        database.execute("COMMIT")
    except BaseException:
        if database.in_transaction:
            database.execute("ROLLBACK")
        raise
