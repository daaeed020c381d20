"""Results of cases in the history: one row each however many nights reuse it, and read again."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import zlib
from collections.abc import Collection

import msgspec

from iree_pilot.pipeline.case_result import CaseResult
from iree_pilot.pipeline.toolchain.phases import Phase

_OPS = msgspec.json.Decoder(dict[str, int])


def keep(database: sqlite3.Connection, result: CaseResult) -> int:
    """Writes down a result, unless an equal one is there; the number of its row."""
    digest = hashlib.sha256(msgspec.json.encode(result, order="deterministic")).digest()
    row = database.execute("SELECT id FROM results WHERE digest = ?", (digest,)).fetchone()
    if row is not None:
        return int(row[0])
    record = zlib.compress(msgspec.json.encode(msgspec.structs.replace(result, phases=())), 9)
    number = database.execute(
        "INSERT INTO results (digest, status, release, arch, device, record)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        (digest, result.status, result.release, result.arch, result.device, record),
    ).lastrowid
    assert number is not None
    database.executemany(
        "INSERT INTO steps VALUES (?, ?, ?, ?, ?, ?, ?)",
        [
            (number, place, s.name, s.status, s.seconds, s.cached, s.why)
            for place, s in enumerate(result.steps)
        ],
    )
    database.executemany(
        "INSERT INTO phases VALUES (?, ?, ?, ?, ?, ?)",
        [
            (number, place, p.name, p.seconds, p.bytes, msgspec.json.encode(p.ops).decode())
            for place, p in enumerate(result.phases)
        ],
    )
    failures = (result.failure, *result.failure.also) if result.failure else ()
    database.executemany(
        "INSERT INTO failures VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (
                *(number, place, f.kind, f.signature, f.message),
                *(f.phase, f.pass_, f.op, f.location, f.signal),
            )
            for place, f in enumerate(failures)
        ],
    )
    return number


def load(database: sqlite3.Connection, numbers: Collection[int]) -> dict[int, CaseResult]:
    """The results of these rows, by row."""
    wanted = json.dumps(sorted(numbers))
    phases: dict[int, list[Phase]] = {}
    for number, name, seconds, size, ops in database.execute(
        "SELECT result_id, name, seconds, bytes, ops FROM phases"
        " WHERE result_id IN (SELECT value FROM json_each(?)) ORDER BY result_id, position",
        (wanted,),
    ):
        phase = Phase(name=name, seconds=seconds, bytes=size, ops=_OPS.decode(ops))
        phases.setdefault(number, []).append(phase)
    found = {}
    for number, record in database.execute(
        "SELECT id, record FROM results WHERE id IN (SELECT value FROM json_each(?))", (wanted,)
    ):
        result = _read(zlib.decompress(record))
        found[number] = msgspec.structs.replace(result, phases=tuple(phases.get(number, ())))
    return found


def _read(record: bytes) -> CaseResult:
    """A result as it was kept, also by a version whose words meant something else.

    `not-run` was said of what compiled and of a comparison that was not made, `ok` also of what
    had nothing to be compared with, `refused` of a comparison that any result would pass.
    """
    found = msgspec.json.decode(record)
    for step in found["steps"]:
        if step["status"] == "not-run":
            step["status"] = "ran" if step["name"] == "compare" else "compiled"
    compared = [function["comparison"] for function in found["functions"]]
    for comparison in filter(None, [*compared, found["comparison"]]):
        for one in (comparison, *comparison["outputs"]):
            if one["verdict"] == "refused":
                one["verdict"] = "not-compared"
    if found["status"] == "not-run":
        found["status"] = "compiled"
    elif found["status"] == "ok" and not all(compared):
        found["status"] = "ran"
    return msgspec.convert(found, CaseResult)


def forget_unused(database: sqlite3.Connection, number: int) -> None:
    """Removes a result that no outcome has any more."""
    database.execute(
        "DELETE FROM results WHERE id = ?1"
        " AND NOT EXISTS (SELECT 1 FROM outcomes WHERE result_id = ?1)",
        (number,),
    )
