"""The memory of the nightly: every run, outcome, failure, metric and judgement, in SQLite."""

from __future__ import annotations

import sqlite3
import statistics
import uuid
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from iree_pilot.pipeline.nightly import identity
from iree_pilot.pipeline.nightly.history import queries, results
from iree_pilot.pipeline.nightly.history.database import Database
from iree_pilot.pipeline.nightly.records import Case, CaseOutcome, Finding, Judgement
from iree_pilot.pipeline.program.source_lines import SourceLines

#: Nights that `usual` looks at.
_RECENT = 7


class NightRun(msgspec.Struct, frozen=True, kw_only=True):
    """One night. begun, finished: ISO 8601 in UTC; not finished until it has been judged.

    config: digest of what was asked for. machine: class of the machine. revision: versions by what
    they are of. cases: how many were planned; done: how many have an outcome. verdicts: how often
    each was given. notes: what its report says beside the cases. accept: the command that accepts
    what it found, for any directory of the machine; empty where there is nothing to accept.
    """

    id: int
    uuid: str
    config: str
    title: str
    machine: str
    revision: dict[str, str]
    begun: str
    finished: str | None
    cases: int
    done: int
    verdicts: dict[str, int]
    notes: tuple[str, ...] = ()
    accept: tuple[str, ...] = ()


class Past(msgspec.Struct, frozen=True, kw_only=True):
    """Record of a case in one finished night, with the fields that verdicts use.

    begun: when the night began. kind, phase: of its failure. signatures: of its failure and of
    those beside it. machine: class of the machine. program, files: as in
    `Outcome`, the latter as JSON.
    """

    run: int
    begun: str
    status: str
    kind: str = ""
    phase: str = ""
    signatures: tuple[str, ...] = ()
    verdict: str = ""
    ran: bool = True
    reused: bool = False
    machine: str = ""
    metrics: dict[str, float] = {}
    program: str = ""
    files: str = "{}"

    @property
    def model(self) -> str:
        """Same as `Outcome.model`."""
        return identity.model(self.program, _FILES.decode(self.files))


class Usual(msgspec.Struct, frozen=True, kw_only=True):
    """Usual cost of running a case: medians of its latest nights."""

    seconds: float
    peak_bytes: int


class Latest(msgspec.Struct, frozen=True, kw_only=True):
    """Outcome of a case in the latest night that had it, which started at `begun`."""

    case: Case
    status: str
    begun: str


class Artifact(msgspec.Struct, frozen=True, kw_only=True):
    """A folder or file that a night left for a case."""

    case: str
    kind: str
    path: str


class History(Database):
    """The history in the SQLite file `path`, which is made where it is missing.

    All methods raise EnvironmentFault as `Database` says.
    """

    def begin(
        self,
        cases: Sequence[Case],
        *,
        config: str,
        title: str,
        machine: str,
        revision: Mapping[str, str],
        started: datetime | None = None,
    ) -> NightRun:
        """Writes down a night and what it is to run. Names of cases must differ (ValueError)."""
        if len({case.name for case in cases}) != len(cases):
            raise ValueError("two cases of a night have one name")
        when = (started or datetime.now(UTC)).astimezone(UTC).isoformat(timespec="seconds")
        with self.writing() as database:
            number = database.execute(
                "INSERT INTO runs (uuid, config, title, machine, revision, begun)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (str(uuid.uuid4()), config, title, machine, _json(dict(revision)), when),
            ).lastrowid
            database.executemany(
                "INSERT INTO cases (name, source, target, release, dtype, definition)"
                " VALUES (?, ?, ?, ?, ?, ?)"
                " ON CONFLICT (name) DO UPDATE SET definition = excluded.definition",
                [(c.name, c.source, c.target, c.release, c.dtype, _json(c)) for c in cases],
            )
            database.executemany(
                "INSERT INTO outcomes (run_id, case_id) SELECT ?, id FROM cases WHERE name = ?",
                [(number, case.name) for case in cases],
            )
        return self.run(number)

    def unfinished(self, config: str) -> NightRun | None:
        """The latest night for this configuration that was started and not finished."""
        found = self._runs("WHERE config = ? AND finished IS NULL", (config,), limit=1)
        return found[0] if found else None

    def runs(self, limit: int = 100) -> list[NightRun]:
        """The latest nights, newest first."""
        return self._runs("", (), limit=limit)

    def run(self, id: int | None = None) -> NightRun:
        """A night by its number, or the latest. Raises KeyError where there is none."""
        found = (
            self._runs("", (), limit=1)
            if id is None
            else self._runs("WHERE id = ?", (id,), limit=1)
        )
        if not found:
            raise KeyError(id)
        return found[0]

    def record(self, run: int, *outcomes: CaseOutcome) -> None:
        """Writes down outcomes, all or none; they are on the disk when this returns.

        One that is there already for the same case and night is replaced, with its metrics; what
        was put beside it with `artifact` stays. Raises KeyError for a case that was not planned.
        """
        with self.writing() as database:
            for outcome in outcomes:
                self._record(database, run, outcome)

    def _record(self, database: sqlite3.Connection, run: int, outcome: CaseOutcome) -> None:
        number, earlier = self._outcome(database, run, outcome.case)
        result = results.keep(database, outcome.result) if outcome.result else None
        database.execute(
            "UPDATE outcomes SET result_id = ?, status = ?, why = ?, key = ?, machine = ?,"
            " worker = ?, begun = ?, seconds = ?, peak_bytes = ?, reused = ?, attempts = ?,"
            " program = ?, files = ?, source = ? WHERE id = ?",
            (
                result,
                outcome.status,
                outcome.why,
                outcome.key,
                outcome.machine,
                outcome.worker,
                outcome.begun,
                outcome.seconds,
                outcome.peak_bytes,
                outcome.reused,
                _json(outcome.attempts),
                outcome.program,
                _json(outcome.files),
                _json(outcome.source),
                number,
            ),
        )
        database.execute("DELETE FROM metrics WHERE outcome_id = ?", (number,))
        database.executemany(
            "INSERT INTO metrics VALUES (?, ?, ?)",
            [(number, name, value) for name, value in outcome.metrics.items()],
        )
        if earlier is not None:
            results.forget_unused(database, earlier)

    def planned(self, run: int) -> list[Case]:
        """The cases of a night, in the order of the plan, as they are defined now."""
        with self.reading() as database:
            rows = database.execute(
                "SELECT c.definition FROM outcomes o JOIN cases c ON c.id = o.case_id"
                " WHERE o.run_id = ? ORDER BY o.id",
                (run,),
            ).fetchall()
        return [msgspec.json.decode(text, type=Case) for (text,) in rows]

    def outcomes(self, run: int) -> dict[str, CaseOutcome]:
        """Outcomes of a night so far, by case, in the order of the plan."""
        where = "o.run_id = ? AND o.status IS NOT NULL ORDER BY o.id"
        return {outcome.case: outcome for outcome in self._outcomes(where, (run,))}

    def reusable(self, key: str) -> CaseOutcome | None:
        """The latest outcome that was found by a run under a key, if another run would repeat it.

        Not where that one differed from attempt to attempt, or failed in a way that may pass.
        """
        found = self._outcomes(
            "o.key = ? AND o.key != '' AND o.result_id IS NOT NULL AND NOT o.reused"
            " ORDER BY r.begun DESC, o.id DESC LIMIT 1",
            (key,),
        )
        if not found or len(set(found[0].attempts)) > 1:
            return None
        failure = found[0].failure
        return None if failure is not None and failure.passing else found[0]

    def known(self, cases: Collection[str], *, limit: int = 20) -> dict[str, tuple[str, ...]]:
        """The keys under which cases have outcomes that are `reusable`, the latest first."""
        with self.reading() as database:
            rows = database.execute(queries.KNOWN, (_json(sorted(cases)),)).fetchall()
        found: dict[str, tuple[str, ...]] = dict.fromkeys(cases, ())
        for name, key in rows:
            found[name] = (*found[name], key)[:limit]
        return found

    def finish(
        self,
        run: int,
        judgements: Sequence[Judgement],
        notes: Sequence[str] = (),
        *,
        accept: Sequence[str] = (),
    ) -> None:
        """Ends a night with its judgements; a second time replaces them."""
        with self.writing() as database:
            for judgement in judgements:
                number, _ = self._outcome(database, run, judgement.case)
                database.execute(
                    "INSERT OR REPLACE INTO judgements VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (
                        number,
                        judgement.verdict,
                        judgement.why,
                        judgement.signature,
                        judgement.since,
                        judgement.reproducer,
                        _json(judgement.findings),
                    ),
                )
            now = datetime.now(UTC).isoformat(timespec="seconds")
            database.execute(
                "UPDATE runs SET finished = ?, notes = ?, accept = ? WHERE id = ?",
                (now, _json(notes), _json(accept), run),
            )

    def judgements(self, run: int) -> list[Judgement]:
        """Judgements of a night, in the order of the plan."""
        with self.reading() as database:
            rows = database.execute(
                "SELECT c.name, j.verdict, j.why, j.signature, j.since, j.reproducer, j.findings"
                " FROM outcomes o JOIN judgements j ON j.outcome_id = o.id"
                " JOIN cases c ON c.id = o.case_id WHERE o.run_id = ? ORDER BY o.id",
                (run,),
            ).fetchall()
        fields = ("case", "verdict", "why", "signature", "since", "reproducer")
        return [
            Judgement(**dict(zip(fields, row, strict=True)), findings=_FINDINGS.decode(findings))
            for *row, findings in rows
        ]

    def past(
        self, cases: Collection[str], *, before: int, limit: int = 100
    ) -> dict[str, list[Past]]:
        """Outcomes of these cases in finished nights before the night `before`, newest first.

        Of each case the latest `limit` nights in which it was run and as many in which an earlier
        result was reused. Nights that were never finished do not count: nobody heard of them.
        """
        with self.reading() as database:
            rows = database.execute(queries.PAST, (before, _json(sorted(cases)), limit)).fetchall()
        found: dict[str, list[Past]] = {name: [] for name in cases}
        for name, run, started, status, ran, reused, machine, verdict, failures, *rest in rows:
            metrics, program, files = rest
            failed = sorted(_FAILURES.decode(failures)) if failures else []
            found[name].append(
                Past(
                    run=run,
                    begun=started,
                    status=status,
                    kind=failed[0][1] if failed else "",
                    phase=failed[0][2] if failed else "",
                    signatures=tuple(signature for _, _, _, signature in failed),
                    verdict=verdict,
                    ran=bool(ran),
                    reused=bool(reused),
                    machine=machine,
                    metrics=_METRICS.decode(metrics),
                    program=program,
                    files=files,
                )
            )
        return found

    def usual(self, cases: Collection[str]) -> dict[str, Usual]:
        """Usual cost of running these cases; those that never ran are left out."""
        with self.reading() as database:
            rows = database.execute(queries.USUAL, (_json(sorted(cases)), _RECENT)).fetchall()
        seen: dict[str, list[tuple[float, int]]] = {}
        for name, seconds, peak in rows:
            seen.setdefault(name, []).append((seconds, peak))
        return {
            name: Usual(
                seconds=statistics.median(seconds for seconds, _ in values),
                peak_bytes=int(statistics.median(peak for _, peak in values)),
            )
            for name, values in seen.items()
        }

    def reproducers(self, signatures: Collection[str]) -> dict[str, str]:
        """The folder that was last named as showing each failure with one of these signatures,
        where there is one, by `identity.of`."""
        return dict(self._of_failures("reproducer", "", signatures))

    def findings(self, signatures: Collection[str]) -> dict[str, tuple[Finding, ...]]:
        """Latest finding about each failure with one of these signatures, where
        something was, by `identity.of`."""
        found = self._of_failures("findings", "[]", signatures)
        return {failure: _FINDINGS.decode(text) for failure, text in found}

    def _of_failures(
        self, column: str, nothing: str, signatures: Collection[str]
    ) -> list[tuple[str, str]]:
        """(`identity.of`, what a column has of it unless that is `nothing`), the latest last."""
        with self.reading() as database:
            rows = database.execute(
                f"SELECT j.signature, o.program, o.files, c.source, j.{column} FROM judgements j"
                " JOIN outcomes o ON o.id = j.outcome_id JOIN cases c ON c.id = o.case_id"
                f" WHERE j.{column} != ?"
                " AND j.signature IN (SELECT value FROM json_each(?)) ORDER BY j.outcome_id",
                (nothing, _json(sorted(signatures))),
            ).fetchall()
        return [
            (identity.of(signature, identity.model(program, _FILES.decode(files)), source), text)
            for signature, program, files, source, text in rows
        ]

    def latest(self) -> list[Latest]:
        """Latest outcome of each case in a finished night."""
        with self.reading() as database:
            rows = database.execute(
                # With a bare max() SQLite takes the other columns from the row that has it.
                "SELECT c.definition, o.status, max(r.begun) FROM outcomes o"
                " JOIN cases c ON c.id = o.case_id JOIN runs r ON r.id = o.run_id"
                " WHERE r.finished IS NOT NULL AND o.status IS NOT NULL GROUP BY c.id ORDER BY c.id"
            ).fetchall()
        return [
            Latest(case=msgspec.json.decode(text, type=Case), status=status, begun=started)
            for text, status, started in rows
        ]

    def artifact(self, run: int, case: str, kind: str, path: Path | str) -> None:
        """Writes down what a night left for a case, like `reproducer` or `ir`."""
        with self.writing() as database:
            number, _ = self._outcome(database, run, case)
            database.execute(
                "INSERT OR IGNORE INTO artifacts VALUES (?, ?, ?)", (number, kind, str(path))
            )

    def artifacts(self, run: int) -> list[Artifact]:
        """All that a night left."""
        with self.reading() as database:
            rows = database.execute(
                "SELECT c.name, a.kind, a.path FROM outcomes o JOIN cases c ON c.id = o.case_id"
                " JOIN artifacts a ON a.outcome_id = o.id WHERE o.run_id = ?"
                " ORDER BY o.id, a.kind, a.path",
                (run,),
            ).fetchall()
        return [Artifact(case=case, kind=kind, path=path) for case, kind, path in rows]

    def _outcomes(self, where: str, values: tuple[object, ...]) -> list[CaseOutcome]:
        with self.reading() as database:
            rows = database.execute(f"{queries.OUTCOMES} WHERE {where}", values).fetchall()
            numbers = {row[9] for row in rows if row[9] is not None}
            loaded = results.load(database, numbers)
        fields = ("case", "why", "key", "machine", "worker", "begun", "seconds", "peak_bytes")
        return [
            CaseOutcome(
                **dict(zip(fields, row[:8], strict=True)),
                reused=bool(reused),
                result=loaded.get(number),
                attempts=_STRINGS.decode(attempts),
                metrics=_METRICS.decode(metrics),
                program=program,
                files=_FILES.decode(files),
                source=_SOURCE.decode(source),
            )
            for *row, reused, number, attempts, metrics, program, files, source in rows
        ]

    def _outcome(self, database: sqlite3.Connection, run: int, case: str) -> tuple[int, int | None]:
        """(number of an outcome's row, of its result's)."""
        row = database.execute(
            "SELECT o.id, o.result_id FROM outcomes o JOIN cases c ON c.id = o.case_id"
            " WHERE o.run_id = ? AND c.name = ?",
            (run, case),
        ).fetchone()
        if row is None:
            raise KeyError(f"run {run} has no case {case}")
        return row[0], row[1]

    def _runs(self, where: str, values: tuple[object, ...], *, limit: int) -> list[NightRun]:
        with self.reading() as database:
            rows = database.execute(
                f"WITH chosen AS (SELECT * FROM runs {where} ORDER BY begun DESC, id DESC LIMIT ?)"
                f" {queries.RUNS}",
                (*values, limit),
            ).fetchall()
        fields = ("id", "uuid", "config", "title", "machine", "begun", "finished", "cases", "done")
        return [
            NightRun(
                **dict(zip(fields, row[:-4], strict=True)),
                revision=_REVISION.decode(row[-4]),
                verdicts=_VERDICTS.decode(row[-3]),
                notes=_STRINGS.decode(row[-2]),
                accept=_STRINGS.decode(row[-1]),
            )
            for row in rows
        ]


_FINDINGS = msgspec.json.Decoder(tuple[Finding, ...])
_STRINGS = msgspec.json.Decoder(tuple[str, ...])
_FAILURES = msgspec.json.Decoder(list[tuple[int, str, str, str]])
_METRICS = msgspec.json.Decoder(dict[str, float])
_REVISION = _FILES = msgspec.json.Decoder(dict[str, str])
_SOURCE = msgspec.json.Decoder(SourceLines | None)
_VERDICTS = msgspec.json.Decoder(dict[str, int])


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
