"""Histories move between machines: nothing is lost on the way, and nothing arrives twice."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake.disk import tiny_disk
from fake.nights import case, failure, night, outcome

from iree_pilot.pipeline.errors import EnvironmentFault, UsageError
from iree_pilot.pipeline.nightly.history import schema
from iree_pilot.pipeline.nightly.history.history import History
from iree_pilot.pipeline.nightly.history.moving import Merged, export, merge
from iree_pilot.pipeline.nightly.records import Judgement

CASES = [case(f"model{n}") for n in range(3)]
JUDGED = [Judgement(case=one.name, verdict="pass", why="all well") for one in CASES]


@pytest.fixture
def here(tmp_path: Path) -> Iterator[History]:
    with History(tmp_path / "here" / "history.db") as history:
        yield history


@pytest.fixture
def there(tmp_path: Path) -> Iterator[History]:
    with History(tmp_path / "there" / "history.db") as history:
        yield history


def fill(history: History, machine: str, *days: int) -> None:
    """A night of three cases for each day: two pass, the last one fails."""
    for day in days:
        found = [
            outcome(
                one,
                why=failure("a", "b") if one is CASES[-1] else "",
                metrics={"dispatches": 10.0, "compile_seconds": 1 + day / 7},
                machine=machine,
                reused=day > 3,
            )
            for one in CASES
        ]
        run = night(history, found, number=day, cases=CASES, judgements=JUDGED, machine=machine)
        history.artifact(run.id, CASES[-1].name, "reproducer", f"/{machine}/{day}")


def contents(history: History) -> list[object]:
    """All that a history says, but for the numbers of its rows."""
    return [
        (
            (run.uuid, run.machine, run.begun, run.finished, run.revision, run.verdicts),
            history.outcomes(run.id),
            history.judgements(run.id),
            history.artifacts(run.id),
        )
        for run in history.runs()
    ]


def count(history: History, table: str) -> int:
    with history.reading() as database:
        (number,) = database.execute(f"SELECT count(*) FROM {table}").fetchone()
    return int(number)


class TestExport:
    def test_it_says_all_that_the_history_says(self, here: History, tmp_path: Path) -> None:
        fill(here, "a", 0, 1, 2)
        path = tmp_path / "away" / "export.db"
        path.parent.mkdir()
        for _ in range(2):
            export(here, path)
        assert [p.name for p in path.parent.iterdir()] == ["export.db"]
        with History(path) as other:
            assert contents(other) == contents(here)

    def test_the_history_itself_is_not_written_over(self, here: History) -> None:
        fill(here, "a", 0)
        with pytest.raises(UsageError, match="to itself"):
            export(here, here.path)
        assert len(here.runs()) == 1

    def test_a_place_that_cannot_be_written_is_told(self, here: History, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(UsageError, match="it is a directory"):
            export(here, tmp_path)
        for place in ("file", "missing"):
            with pytest.raises(UsageError, match="cannot write"):
                export(here, tmp_path / place / "export.db")
        assert not (tmp_path / "missing").exists()
        with pytest.raises(EnvironmentFault, match="cannot export the history"):
            export(here, Path("/proc/export.db"))

    def test_a_full_disk_leaves_nothing_half_written(self, here: History, tmp_path: Path) -> None:
        fill(here, "a", 0, 1)
        with tiny_disk(tmp_path / "disk", 64 * 1024) as directory:
            with pytest.raises(EnvironmentFault, match="full"):
                export(here, directory / "export.db")
            assert list(directory.iterdir()) == []
        assert len(here.runs()) == 2


class TestMerge:
    def test_two_machines_nights_come_together(self, here: History, there: History) -> None:
        fill(here, "a", 0, 2)
        fill(there, "b", 1, 3, 5)
        both = sorted(
            [*contents(here), *contents(there)],
            key=lambda night: night[0][2],  # type: ignore[index]
            reverse=True,
        )
        done = merge(here, there.path)
        assert done == Merged(added=3, known=0, unfinished=0, outcomes=9)
        assert contents(here) == both
        assert [run.machine for run in here.runs()] == ["b", "b", "a", "b", "a"]

    def test_a_second_time_adds_nothing(self, here: History, there: History) -> None:
        fill(there, "b", 0, 1)
        merge(here, there.path)
        before = contents(here)
        rows = {t: count(here, t) for t in ("outcomes", "results", "metrics", "steps", "failures")}
        assert merge(here, there.path) == Merged(added=0, known=2, unfinished=0, outcomes=0)
        assert contents(here) == before
        assert {table: count(here, table) for table in rows} == rows

    def test_what_comes_back_merged_adds_only_the_rest(self, here: History, there: History) -> None:
        fill(here, "a", 0)
        fill(there, "b", 1)
        merge(there, here.path)
        assert merge(here, there.path) == Merged(added=1, known=1, unfinished=0, outcomes=3)
        assert contents(here) == contents(there)

    def test_results_that_both_have_are_kept_once(self, here: History, there: History) -> None:
        fill(here, "a", 0)
        fill(there, "b", 1)
        merge(here, there.path)
        assert count(here, "results") == 2
        assert count(here, "failures") == 2
        assert count(here, "phases") == 4
        assert count(here, "cases") == 3

    def test_a_night_that_goes_on_is_left_out_until_it_is_finished(
        self, here: History, there: History
    ) -> None:
        run = night(there, [outcome(CASES[0])], cases=CASES, finish=False)
        with there.hold():
            assert merge(here, there.path) == Merged(added=0, known=0, unfinished=1, outcomes=0)
        there.finish(run.id, [])
        assert merge(here, there.path) == Merged(added=1, known=0, unfinished=0, outcomes=3)
        assert contents(here) == contents(there)

    def test_its_past_counts_from_then_on(self, here: History, there: History) -> None:
        fill(there, "b", 0, 1)
        fill(here, "a", 2)
        merge(here, there.path)
        tonight = night(here, number=3, cases=CASES)
        past = here.past([CASES[-1].name], before=tonight.id)[CASES[-1].name]
        assert [(p.machine, p.signatures) for p in past] == [
            ("a", ("a", "b")),
            ("b", ("a", "b")),
            ("b", ("a", "b")),
        ]
        assert past[1].metrics["dispatches"] == 10.0

    def test_the_other_file_stays_as_it_is(self, here: History, tmp_path: Path) -> None:
        path = tmp_path / "other.db"
        with History(path) as other:
            fill(other, "b", 0)
        before = path.read_bytes()
        merge(here, path)
        assert path.read_bytes() == before
        assert sorted(p.name for p in here.path.parent.iterdir()) == [
            "history.db",
            "history.db-shm",
            "history.db-wal",
        ]


class TestBadInput:
    @pytest.mark.parametrize("content", [None, b"", b"no database" * 100, "folder"])
    def test_what_is_no_history_is_told(
        self, here: History, tmp_path: Path, content: bytes | str | None
    ) -> None:
        path = tmp_path / "other.db"
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif content:
            path.mkdir()
        with pytest.raises(UsageError) as caught:
            merge(here, path)
        assert str(path) in caught.value.message
        assert "export" in caught.value.advice
        assert here.runs() == []

    def test_another_programs_database_is_told(self, here: History, tmp_path: Path) -> None:
        path = tmp_path / "other.db"
        database = sqlite3.connect(path)
        database.executescript("CREATE TABLE runs (id INTEGER); PRAGMA user_version = 1")
        database.close()
        with pytest.raises(UsageError, match="no history of iree-pilot"):
            merge(here, path)

    def test_a_damaged_one_is_told_and_nothing_of_it_taken(
        self, here: History, tmp_path: Path
    ) -> None:
        path = tmp_path / "other.db"
        with History(path) as other:
            fill(other, "b", *range(20))
        with path.open("r+b") as file:
            file.seek(path.stat().st_size // 2)
            file.write(b"\xff" * 20000)
        with pytest.raises(UsageError, match=r"damaged|malformed"):
            merge(here, path)
        assert here.runs() == []

    def test_a_newer_schema_is_told_with_both_versions(self, here: History, there: History) -> None:
        with there.writing() as database:
            database.execute(f"PRAGMA user_version = {schema.VERSION + 1}")
        with pytest.raises(EnvironmentFault) as caught:
            merge(here, there.path)
        assert f"schema {schema.VERSION + 1}" in caught.value.message
        assert f"up to {schema.VERSION}" in caught.value.message

    def test_a_full_disk_leaves_the_history_as_it_was(self, there: History, tmp_path: Path) -> None:
        fill(there, "b", *range(30))
        with (
            tiny_disk(tmp_path / "disk", 512 * 1024) as directory,
            History(directory / "history.db") as history,
        ):
            fill(history, "a", 0)
            before = contents(history)
            with pytest.raises(EnvironmentFault, match="the disk is full"):
                for day in range(30):
                    fill(there, "b", 100 + day)
                    merge(history, there.path)
                    before = contents(history)
            assert contents(history) == before
