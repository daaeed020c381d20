"""The nightly's memory: what is written is there, whatever dies, and nothing is there twice."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from fake.disk import tiny_disk
from fake.nights import case, failure, night, outcome, result
from places import ROOT, TESTS

from iree_pilot.pipeline.errors import EnvironmentFault
from iree_pilot.pipeline.nightly.history import schema
from iree_pilot.pipeline.nightly.history.history import History, Usual
from iree_pilot.pipeline.nightly.history.moving import merge
from iree_pilot.pipeline.nightly.records import Judgement
from iree_pilot.pipeline.program.source_lines import SourceLines

SQL = re.MULTILINE | re.DOTALL


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "nightly" / "history.db"


@pytest.fixture
def history(path: Path) -> Iterator[History]:
    with History(path) as opened:
        yield opened


def rows(path: Path, query: str) -> list[tuple[object, ...]]:
    """What anybody's SQL finds in the file."""
    database = sqlite3.connect(path)
    try:
        return database.execute(query).fetchall()
    finally:
        database.close()


class TestNights:
    def test_a_night_is_planned_found_and_judged(self, history: History) -> None:
        cases = [case(), case("llama:small")]
        run = night(history, [outcome(cases[1])], cases=cases, finish=False)
        assert (run.cases, run.done, run.finished, run.verdicts) == (2, 1, None, {})
        assert run.begun == "2026-01-01T02:00:00+00:00"
        assert run.revision == {"iree": "3.13.0"}
        history.record(run.id, outcome(cases[0]))
        judgements = [Judgement(case=c.name, verdict="pass", why="all well") for c in cases]
        history.finish(run.id, judgements)
        run = history.run()
        assert (run.cases, run.done, run.verdicts) == (2, 2, {"pass": 2})
        assert run.finished is not None
        assert history.judgements(run.id) == judgements

    def test_an_outcome_comes_back_as_it_was(self, history: History) -> None:
        full = outcome(
            why=failure("a", "b", "c"),
            key="k1",
            metrics={"compile_seconds": 0.1, "dispatches": 12.0},
            worker="w1",
            begun="2026-01-01T04:00:00+02:00",
            peak_bytes=3 * 2**30,
            reused=True,
            attempts=("failed", "failed"),
            program="0123",
            files={"net.py": "4567"},
            source=SourceLines(text="%0 = x", python="net.py:3", python_text="y = x + 1"),
        )
        run = night(history, [full])
        assert history.outcomes(run.id) == {full.case: full}

    def test_what_was_never_run_comes_back_with_its_reason(self, history: History) -> None:
        absent = outcome(result=None, why="", case=case().name)
        absent = msgspec.structs.replace(absent, why="no such release")
        run = night(history, [absent])
        assert history.outcomes(run.id) == {absent.case: absent}

    def test_a_second_record_replaces_the_first(self, history: History, path: Path) -> None:
        first = outcome(why=failure("a"), metrics={"compile_seconds": 1.0})
        second = outcome(metrics={"dispatches": 2.0})
        run = night(history, [first, second])
        assert history.outcomes(run.id) == {second.case: second}
        assert rows(path, "SELECT count(*) FROM outcomes") == [(1,)]
        assert rows(path, "SELECT count(*) FROM results") == [(1,)]
        assert rows(path, "SELECT count(*) FROM failures") == [(0,)]
        assert rows(path, "SELECT name FROM metrics") == [("dispatches",)]

    def test_a_result_that_nights_share_is_kept_once(self, history: History, path: Path) -> None:
        once = outcome(metrics={"dispatches": 2.0})
        for number in range(5):
            night(history, [msgspec.structs.replace(once, reused=number > 0)], number=number)
        assert rows(path, "SELECT count(*) FROM results") == [(1,)]
        assert all(
            history.outcomes(run.id)[once.case].result == once.result for run in history.runs()
        )

    def test_the_latest_nights_come_first(self, history: History) -> None:
        for number in (3, 1, 2):
            night(history, number=number)
        started = [run.begun[:10] for run in history.runs()]
        assert started == ["2026-01-04", "2026-01-03", "2026-01-02"]
        assert history.run().begun[:10] == "2026-01-04"
        assert len(history.runs(limit=2)) == 2

    def test_a_night_goes_on_where_it_stopped(self, history: History) -> None:
        cases = [case(), case("llama:small")]
        done = night(history, cases=cases, number=0)
        started = night(history, [outcome(cases[0])], cases=cases, number=1, finish=False)
        night(history, cases=cases, number=2, finish=False, config="another")
        found = history.unfinished("config")
        assert found is not None
        assert (found.id, found.done) == (started.id, 1)
        assert found.id != done.id
        history.finish(started.id, [])
        assert history.unfinished("config") is None

    def test_an_empty_history_has_no_night(self, history: History) -> None:
        assert history.runs() == []
        with pytest.raises(KeyError):
            history.run()
        with pytest.raises(KeyError):
            history.run(7)

    def test_what_was_not_planned_is_not_written(self, history: History) -> None:
        run = night(history)
        with pytest.raises(KeyError, match="llama:big"):
            history.record(run.id, outcome(case("llama:big")))
        with pytest.raises(KeyError, match="llama:big"):
            history.finish(run.id, [Judgement(case="llama:big", verdict="pass")])
        with pytest.raises(ValueError, match="one name"):
            night(history, cases=[case(), case(tags=("other",))])

    def test_artifacts_are_named_by_case_and_kind(self, history: History) -> None:
        run = night(history, [outcome()])
        for _ in range(2):
            history.artifact(run.id, case().name, "reproducer", Path("/runs/1/repro"))
        history.artifact(run.id, case().name, "ir", "/runs/1/flow.mlir")
        found = [(a.case, a.kind, a.path) for a in history.artifacts(run.id)]
        assert found == [
            (case().name, "ir", "/runs/1/flow.mlir"),
            (case().name, "reproducer", "/runs/1/repro"),
        ]


class TestQueries:
    """What the site and people ask in SQL."""

    def test_failures_phases_and_steps_are_rows(self, history: History, path: Path) -> None:
        night(history, [outcome(why=failure("a", "b"))])
        assert rows(path, "SELECT position, signature, kind, phase FROM failures") == [
            (0, "a", "diagnostic", "flow"),
            (1, "b", "diagnostic", "flow"),
        ]
        assert rows(path, "SELECT name, status, cached FROM steps ORDER BY position") == [
            ("trace", "ok", 1),
            ("compile", "failed", 0),
        ]
        linalg = "SELECT name, ops ->> 'linalg' FROM phases ORDER BY position"
        assert rows(path, linalg) == [("input", 7), ("flow", None)]

    def test_a_metric_over_the_nights(self, history: History, path: Path) -> None:
        for number in range(3):
            night(history, [outcome(metrics={"dispatches": 10.0 + number})], number=number)
        query = (
            "SELECT substr(runs.begun, 1, 10), value FROM metrics"
            " JOIN outcomes ON outcomes.id = outcome_id JOIN runs ON runs.id = run_id"
            " JOIN cases ON cases.id = case_id"
            " WHERE cases.source = 'llama:tiny' AND metrics.name = 'dispatches' ORDER BY 1"
        )
        assert rows(path, query) == [
            ("2026-01-01", 10.0),
            ("2026-01-02", 11.0),
            ("2026-01-03", 12.0),
        ]

    def test_the_queries_of_the_guide_answer(self, history: History, path: Path) -> None:
        guide = ROOT / "docs" / "nightly.md"
        latency, failures, dialect = re.findall(r"^    (SELECT .+?;)$", guide.read_text(), SQL)
        fast, bad = case(target="vulkan"), case("llama:small")
        for number, seconds in enumerate((0.25, 0.5)):
            found = [
                outcome(fast, metrics={"latency_seconds": seconds}),
                outcome(bad, why=failure("a", "b")),
            ]
            night(history, found, number=number, cases=[fast, bad])
        assert rows(path, latency) == [("2026-01-01", 0.25), ("2026-01-02", 0.5)]
        assert rows(path, failures) == [("a", 1, "2026-01-01T02:00:00+00:00")]
        assert rows(path, dialect) == [
            ("llvm-cpu", "input", 7),
            ("llvm-cpu", "flow", None),
            ("vulkan", "input", 7),
            ("vulkan", "flow", None),
        ]

    def test_a_case_keeps_its_latest_definition(self, history: History, path: Path) -> None:
        night(history, cases=[case(tags=("old",))])
        night(history, cases=[case(tags=("new",))], number=1)
        assert rows(path, "SELECT definition ->> '$.tags[0]' FROM cases") == [("new",)]


class TestPast:
    def test_it_is_of_finished_nights_before_newest_first(self, history: History) -> None:
        night(history, [outcome(metrics={"dispatches": 1.0})], number=1)
        night(history, [outcome()], number=2, finish=False)
        night(
            history,
            [outcome(why=failure("a", "b"))],
            number=3,
            judgements=[Judgement(case=case().name, verdict="new failure")],
        )
        tonight = night(history, [outcome()], number=4)
        night(history, [outcome()], number=5)
        past = history.past([case().name, "unheard of"], before=tonight.id)
        assert past["unheard of"] == []
        assert [
            (p.begun[:10], p.status, p.kind, p.phase, p.signatures, p.verdict, p.metrics)
            for p in past[case().name]
        ] == [
            ("2026-01-04", "failed", "diagnostic", "flow", ("a", "b"), "new failure", {}),
            ("2026-01-02", "ok", "", "", (), "", {"dispatches": 1.0}),
        ]

    def test_reused_nights_do_not_push_out_the_measured_ones(self, history: History) -> None:
        night(history, [outcome(metrics={"dispatches": 1.0})], number=0)
        for number in range(1, 9):
            night(history, [outcome(reused=True)], number=number)
        tonight = night(history, number=9)
        past = history.past([case().name], before=tonight.id, limit=3)[case().name]
        assert [p.reused for p in past] == [True, True, True, False]

    def test_the_class_of_the_machine_is_that_of_the_run_unless_told(
        self, history: History
    ) -> None:
        night(history, [outcome(machine="")], machine="big", number=0)
        night(history, [outcome(machine="small")], machine="big", number=1)
        tonight = night(history, number=2)
        past = history.past([case().name], before=tonight.id)[case().name]
        assert [p.machine for p in past] == ["small", "big"]


class TestUsual:
    def test_it_is_the_median_of_what_was_run(self, history: History) -> None:
        for number, seconds in enumerate((1.0, 2.0, 30.0)):
            night(history, [outcome(seconds=seconds, peak_bytes=2**20)], number=number)
        night(history, [outcome(seconds=0.01, reused=True)], number=4)
        assert history.usual([case().name, "never run"]) == {
            case().name: Usual(seconds=2.0, peak_bytes=2**20)
        }


class TestReusable:
    def test_it_is_the_newest_under_the_key(self, history: History) -> None:
        older, newer = outcome(key="k", seconds=1.0), outcome(key="k", seconds=2.0)
        night(history, [newer], number=2)
        night(history, [older], number=1)
        night(history, [outcome(key="other")], number=3)
        assert history.reusable("k") == newer
        assert history.reusable("unknown") is None

    def test_an_older_one_is_not_where_the_newest_was_in_doubt(self, history: History) -> None:
        night(history, [outcome(key="k")], number=1)
        night(history, [outcome(key="k", attempts=("ok", "failed"))], number=2)
        assert history.reusable("k") is None
        night(history, [outcome(key="k", result=None)], number=3)
        assert history.reusable("k") is None
        night(history, [outcome(key="k", seconds=7.0)], number=4)
        assert history.reusable("k") == outcome(key="k", seconds=7.0)

    def test_one_that_was_reused_leads_to_the_one_that_was_run(self, history: History) -> None:
        night(history, [outcome(key="k", seconds=7.0)], number=1)
        night(history, [outcome(key="k", seconds=0.0, reused=True)], number=2)
        assert history.reusable("k") == outcome(key="k", seconds=7.0)

    def test_without_a_key_nothing_is(self, history: History) -> None:
        night(history, [outcome(key="")])
        assert history.reusable("") is None

    @pytest.mark.parametrize(
        "found",
        [
            outcome(key="k", result=None),
            outcome(key="k", attempts=("ok", "failed", "ok")),
            outcome(key="k", why=failure("t", kind="timeout")),
            outcome(key="k", why=failure("t", kind="out-of-memory")),
        ],
        ids=["never run", "flaky", "timeout", "out of memory"],
    )
    def test_what_may_come_out_otherwise_is_not(self, history: History, found: object) -> None:
        night(history, [found])  # type: ignore[list-item]
        assert history.reusable("k") is None

    def test_the_keys_of_cases_are_known_the_latest_first(self, history: History) -> None:
        for number, key in enumerate(("a", "b", "a", "")):
            night(history, [outcome(key=key)], number=number)
        other = case("flaky")
        flaky = outcome(other, key="f", attempts=("ok", "failed"))
        night(history, [flaky], cases=[other], number=9)
        name = case().name
        known = history.known([name, flaky.case, "never"])
        assert known == {name: ("a", "b"), flaky.case: (), "never": ()}
        assert history.known([name], limit=1) == {name: ("a",)}
        night(history, [outcome(key="a", why=failure("t", kind="timeout"))], number=10)
        assert history.known([name]) == {name: ("b",)}
        assert [history.reusable(key) is None for key in ("a", "b")] == [True, False]

    def test_a_failure_of_the_compiler_is(self, history: History) -> None:
        crash = outcome(key="k", why=failure("c", kind="crash"), attempts=("failed", "failed"))
        night(history, [crash])
        assert history.reusable("k") == crash


class TestTwoAtOnce:
    def test_a_second_nightly_is_refused_or_waits(self, path: Path) -> None:
        waited: list[str] = []
        with History(path) as first, History(path) as second:
            with first.hold():
                with pytest.raises(EnvironmentFault, match="another nightly"), second.hold():
                    pass
                child = holder(path)
                assert child.stdout is not None
                assert child.stdout.readline() == "waiting\n"
            assert child.communicate(timeout=30)[0] == "held\n"
            with second.hold(wait=True, on_wait=lambda: waited.append("!")):
                pass
        assert waited == []

    def test_who_only_reads_does_not_wait(self, path: Path) -> None:
        with History(path) as first, first.hold():
            run = night(first, [outcome()])
            with History(path) as reader:
                assert reader.run().id == run.id

    def test_the_hold_of_a_killed_nightly_is_free(self, path: Path) -> None:
        with History(path) as history:
            child = holder(path, "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
            assert child.wait(timeout=30) == -signal.SIGKILL
            with history.hold():
                pass


def holder(path: Path, then: str = "") -> subprocess.Popen[str]:
    code = (
        "import sys; from pathlib import Path\n"
        "from iree_pilot.pipeline.nightly.history.history import History\n"
        "history = History(Path(sys.argv[1]))\n"
        "with history.hold(wait=True, on_wait=lambda: print('waiting', flush=True)):\n"
        f"    print('held', flush=True); {then}\n"
    )
    return subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE, text=True)


WRITER = """
import sys
import zlib
from pathlib import Path
from fake.nights import case, outcome
from iree_pilot.pipeline.nightly.history.history import History
history = History(Path(sys.argv[1]))
cases = [case(f"m{n}") for n in range(400)]
with history.hold():
    run = history.unfinished("c") or history.begin(
        cases, config="c", title="", machine="m", revision={})
    found = history.outcomes(run.id)
    for one in cases:
        if one.name not in found:
            print("begin", one.name, flush=True)
            history.record(run.id, outcome(one, metrics={"dispatches": 1.0}))
            print("done", one.name, flush=True)
    history.finish(run.id, [])
"""


class TestKilled:
    @pytest.mark.slow
    def test_what_was_recorded_is_there_and_nothing_is_done_again(self, path: Path) -> None:
        """A writer is killed at random moments, and its successor goes on until all is done."""
        chance = random.Random(7)
        started: list[str] = []
        done: list[str] = []
        for attempt in range(12):
            limit = chance.randrange(1, 120) if attempt < 11 else 10_000
            child = subprocess.Popen(
                [sys.executable, "-c", WRITER, path],
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path])},
            )
            assert child.stdout is not None
            for count, line in enumerate(child.stdout):
                if not line.endswith("\n"):
                    continue  # it was killed while it wrote this
                word, _, name = line.strip().partition(" ")
                (started if word == "begin" else done).append(name)
                if count == limit:
                    child.kill()
            child.wait(timeout=30)
            with History(path) as history, history.hold():
                assert history.set_aside is None
                if (run := history.unfinished("c")) is not None:
                    assert set(done) <= set(history.outcomes(run.id))
        assert rows(path, "PRAGMA integrity_check") == [("ok",)]
        assert rows(path, "SELECT count(*), count(DISTINCT case_id) FROM outcomes") == [(400, 400)]
        assert rows(path, "SELECT count(*), count(finished) FROM runs") == [(1, 1)]
        assert len(done) == len(set(done)), "nothing that was finished was done again"
        assert len(started) <= 400 + 11, "only what was in flight was begun again"


class TestTrouble:
    def test_a_newer_schema_is_told_with_both_versions(self, path: Path) -> None:
        History(path).close()
        database = sqlite3.connect(path)
        database.execute(f"PRAGMA user_version = {schema.VERSION + 3}")
        database.close()
        before = path.read_bytes()
        with pytest.raises(EnvironmentFault) as caught:
            History(path)
        assert f"schema {schema.VERSION + 3}" in caught.value.message
        assert f"up to {schema.VERSION}" in caught.value.message
        assert "Update iree-pilot" in caught.value.advice
        assert path.read_bytes() == before

    def test_another_programs_database_is_left_alone(self, path: Path) -> None:
        path.parent.mkdir()
        database = sqlite3.connect(path)
        database.execute("CREATE TABLE addresses (name TEXT)")
        database.close()
        with pytest.raises(EnvironmentFault, match="not a history of iree-pilot"):
            History(path)
        assert rows(path, "SELECT name FROM sqlite_schema") == [("addresses",)]

    @pytest.mark.parametrize("size", [1, 100, 5000])
    def test_what_is_no_database_is_kept_aside(self, path: Path, size: int) -> None:
        path.parent.mkdir()
        garbage = random.Random(size).randbytes(size)
        path.write_bytes(garbage)
        with History(path) as history:
            assert history.set_aside is not None
            assert history.set_aside.name.startswith("history.db.damaged-")
            assert history.set_aside.read_bytes() == garbage
            night(history, [outcome()])
        with History(path) as history:
            assert history.set_aside is None
            assert history.run().done == 1

    @pytest.mark.parametrize("table", ["outcomes", "runs", "metrics"])
    def test_a_history_that_lacks_a_table_is_damaged(self, path: Path, table: str) -> None:
        with History(path) as history:
            night(history, [outcome()])
        database = sqlite3.connect(path)
        database.execute("PRAGMA foreign_keys = OFF")
        database.execute(f"DROP TABLE {table}")
        database.commit()
        database.close()
        with pytest.raises(EnvironmentFault, match=f"it lacks the table {table}") as caught:
            History(path, kept=True)
        assert "without --dry-run moves a damaged history aside" in caught.value.advice
        with History(path) as history:
            assert history.set_aside is not None
            night(history, [outcome()])

    def test_a_damaged_page_is_found_before_a_night_begins(self, path: Path) -> None:
        with History(path) as history:
            cases = [case(f"m{n}") for n in range(200)]
            metrics = {f"metric {n}": 1.0 for n in range(20)}
            night(history, [outcome(one, metrics=metrics) for one in cases], cases=cases)
        page = 4096
        pages = path.stat().st_size // page
        with path.open("r+b") as file:
            for number in range(pages // 2, pages):
                file.seek(number * page)
                file.write(b"\xff" * 64)
        with History(path) as history:
            assert history.set_aside is None, "it is not read as a whole just to be opened"
            with pytest.raises(EnvironmentFault, match="damaged"):
                history.past([one.name for one in cases], before=1)
            with history.hold():
                assert history.set_aside is not None
                night(history, [outcome()])
            assert len(history.runs()) == 1

    def test_a_damaged_file_that_another_nightly_uses_is_not_moved(self, path: Path) -> None:
        with History(path) as other, other.hold():
            night(other, [outcome()])
            for ending in ("", "-wal", "-shm"):
                Path(f"{path}{ending}").rename(f"{path}.moved{ending}")
            path.write_bytes(b"rubbish" * 100)
            with pytest.raises(EnvironmentFault, match="another nightly uses it"):
                History(path)
            assert path.read_bytes() == b"rubbish" * 100

    def test_a_place_that_cannot_be_written_is_told(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        for path in (tmp_path / "file" / "history.db", tmp_path):
            with pytest.raises(EnvironmentFault) as caught:
                History(path)
            assert str(path) in caught.value.message
            assert "IREE_PILOT_DATA" in caught.value.advice

    def test_a_full_disk_loses_nothing_that_was_recorded(self, tmp_path: Path) -> None:
        with tiny_disk(tmp_path / "disk", 1024 * 1024) as directory:
            path = directory / "history.db"
            cases = [case(f"m{n}") for n in range(2000)]
            recorded = []
            with History(path) as history:
                run = night(history, cases=cases[:300], finish=False)
                with pytest.raises(EnvironmentFault, match="the disk is full") as caught:
                    for one in cases[:300]:
                        noise = random.Random(one.name).randbytes(9000).hex()
                        found = outcome(one, result=result(warnings=(noise,)))
                        history.record(run.id, found)
                        recorded.append(found)
                assert "again" in caught.value.advice
                assert recorded
            with History(path) as history:
                assert list(history.outcomes(run.id).values()) == recorded
                assert rows(path, "PRAGMA integrity_check") == [("ok",)]


class TestMigrations:
    def test_an_older_schema_is_brought_up_to_date(self, path: Path) -> None:
        with History(path) as history:
            night(history, [outcome()])
        database = sqlite3.connect(path, isolation_level=None)
        later = (*schema.MIGRATIONS, ("ALTER TABLE runs ADD COLUMN weather TEXT DEFAULT 'fair'",))
        schema.migrate(database, later)
        assert schema.version(database) == schema.VERSION + 1
        assert database.execute("SELECT weather FROM runs").fetchall() == [("fair",)]

    def test_one_that_fails_changes_nothing(self, path: Path) -> None:
        History(path).close()
        before = rows(path, "SELECT sql FROM sqlite_schema")
        database = sqlite3.connect(path, isolation_level=None)
        broken = (
            *schema.MIGRATIONS,
            ("CREATE TABLE weather (name TEXT)", "ALTER TABLE nothing ADD COLUMN x"),
        )
        with pytest.raises(sqlite3.OperationalError):
            schema.migrate(database, broken)
        assert schema.version(database) == schema.VERSION
        assert rows(path, "SELECT sql FROM sqlite_schema") == before

    def test_the_released_ones_are_never_changed(self) -> None:
        """A database that had a migration never has it again: what is new must come behind it."""
        import hashlib

        digests = [hashlib.sha256(repr(m).encode()).hexdigest()[:16] for m in schema.MIGRATIONS]
        assert digests == [
            "5843ac398dd579bb",
            "3db24e65a6e9c9ec",
            "e96e754511515a23",
            "afd398db575045d4",
            "ebd45b2faa1d161b",
            "c2b3ffa7c4033571",
        ]


_STEPS = (("trace", "ok"), ("compile", "ok"), ("load", "ok"), ("run", "ok"))
_COMPARED = {
    "verdict": "ok", "why": "", "output": 0, "max_abs": 0.0, "max_rel": 0.0, "rel_l2": 0.0,
    "tolerance": 1e-5, "nan": 0, "inf": 0, "outputs": [],
}  # fmt: skip
#: Case, status, steps, comparison, attempts; then status and verdict as they are read now.
_OLD = (
    ("right", "ok", (*_STEPS, ("compare", "ok")), _COMPARED, ["ok"], "ok", "pass"),
    ("bare", "ok", (*_STEPS, ("compare", "not-run")), None, ["ok", "ok"], "ran", "ran"),
    ("hip", "not-run", (*_STEPS[:2], ("run", "not-run")), None, [], "compiled", "compiled"),
    (
        *("zeros", "failed", (*_STEPS, ("compare", "failed"))),
        *(_COMPARED | {"verdict": "refused", "why": "constant"}, [], "failed", "new failure"),
    ),
)


class TestOldWords:
    """Histories whose `ok` may be of what was not compared, and `not-run` of what compiled."""

    @pytest.fixture
    def old(self, path: Path) -> Path:
        path.parent.mkdir(parents=True)
        database = sqlite3.connect(path, isolation_level=None)
        schema.migrate(database, schema.MIGRATIONS[:2])
        database.execute(
            "INSERT INTO runs (uuid, config, title, machine, revision, begun, finished)"
            " VALUES ('u', 'c', 'old', 'm', '{}', ?, ?)",
            ("2026-01-01T02:00:00+00:00", "2026-01-01T03:00:00+00:00"),
        )
        for number, (name, status, steps, compared, attempts, _, judged) in enumerate(_OLD, 1):
            one = case(name)
            ran = [{
                "name": "main", "commands": [], "peak_bytes": 0, "latency": None,
                "latency_note": "", "comparison": compared, "evaluator": "", "failure": None,
            }]  # fmt: skip
            record = {
                "target": "llvm-cpu", "release": "3.13.0", "device": None, "arch": None,
                "status": status, "why": "", "comparison": compared,
                "functions": [] if name == "hip" else ran,
                "steps": [{"name": n, "status": s, "why": ""} for n, s in steps],
                "failure": None if status != "failed" else {
                    "kind": "mismatch", "message": "constant", "phase": "compare",
                    "signature": "mismatch/constant-reference/1",
                },
            }  # fmt: skip
            database.execute(
                "INSERT INTO results VALUES (?, ?, ?, '3.13.0', NULL, NULL, ?)",
                (number, bytes([number]), status, zlib.compress(json.dumps(record).encode())),
            )
            database.executemany(
                "INSERT INTO steps VALUES (?, ?, ?, ?, 0, 0, '')",
                [(number, place, *step) for place, step in enumerate(steps)],
            )
            database.execute(
                "INSERT INTO cases VALUES (?, ?, ?, 'llvm-cpu', 'installed', NULL, ?)",
                (number, one.name, name, msgspec.json.encode(one).decode()),
            )
            database.execute(
                "INSERT INTO outcomes (id, run_id, case_id, result_id, status, attempts)"
                " VALUES (?, 1, ?, ?, ?, ?)",
                (number, number, number, status, json.dumps(attempts)),
            )
            database.execute(
                "INSERT INTO judgements VALUES (?, ?, '', '', '', '', '[]')",
                (number, judged if status == "failed" else "pass"),
            )
        database.close()
        return path

    def test_they_are_read_in_the_new_ones(self, old: Path) -> None:
        with History(old) as history:
            found = history.outcomes(1)
            past = history.past(found, before=_later(history))
            verdicts = {j.case: j.verdict for j in history.judgements(1)}
            for name, _, _, compared, attempts, status, verdict in _OLD:
                this = found[case(name).name]
                assert this.result is not None
                assert (this.status, past[this.case][0].status) == (status, status)
                assert verdicts[this.case] == verdict
                assert this.attempts == tuple(status for _ in attempts)
                told = this.result.comparison.verdict if this.result.comparison else None
                assert told == (
                    None if compared is None else {"zeros": "not-compared"}.get(name, "ok")
                )
            compare = found[case("bare").name].result.steps[-1]
            assert (compare.name, compare.status) == ("compare", "ran")
            assert found[case("hip").name].result.steps[-1].status == "compiled"

    def test_an_export_of_them_is_merged(self, old: Path, tmp_path: Path) -> None:
        with History(tmp_path / "new.db") as history:
            assert merge(history, old).outcomes == len(_OLD)
            statuses = {o.case: o.status for o in history.outcomes(history.run().id).values()}
        assert statuses == {case(name).name: status for name, *_, status, _ in _OLD}


def _later(history: History) -> int:
    """A night after all others."""
    return night(history, number=400, finish=False).id
