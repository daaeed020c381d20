"""Histories on the command line: exported, merged, damaged, held by another nightly."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
from pathlib import Path

import pytest
from driver import pilot
from fake.nights import case, night, outcome

from iree_pilot.pipeline.cli import boundary, cli
from iree_pilot.pipeline.cli.display import output
from iree_pilot.pipeline.nightly.history import moving
from iree_pilot.pipeline.nightly.history.history import History


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A history of two nights, the second of which was not finished."""
    path = tmp_path / "history.db"
    with History(path) as history:
        night(history, [outcome()])
        night(history, number=1, finish=False)
    return path


def size(path: Path) -> str:
    return output.size(path.stat().st_size)


def test_an_export_is_merged_once(database: Path, tmp_path: Path) -> None:
    exported, merged = tmp_path / "monday.db", tmp_path / "all.db"
    done = pilot("nightly", "export", str(exported), "--database", str(database))
    assert (done.code, done.out) == (0, f"{exported}: 2 nights, {size(exported)}\n")
    words = ["nightly", "merge", str(exported), "--database", str(merged)]
    done = pilot(*words)
    assert done.code == 0
    assert done.out == f"{exported}: 1 added, 0 known already, 1 left out: not finished\n"
    found = pilot(*words, "--json").document
    assert found == {str(exported): {"added": 0, "known": 1, "unfinished": 1, "outcomes": 0}}
    with History(merged) as history:
        assert list(history.outcomes(history.run().id)) == [case().name]


def test_a_fifo_is_said_to_wait_for_a_reader(database: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with subprocess.Popen(["cat", tmp_path / "pipe"], stdout=subprocess.PIPE) as reader:
        done = pilot("nightly", "export", tmp_path / "pipe", "--database", database)
        assert reader.stdout is not None and reader.stdout.read().startswith(b"SQLite format 3")
    assert done.err == f"{tmp_path}/pipe is a FIFO: waiting for somebody to read it\n"
    assert done.out == f"{tmp_path}/pipe: 2 nights\n"


def test_an_interruption_leaves_what_was_merged_before_it(
    database: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    merge = moving.merge

    def interrupted(history: History, path: Path) -> moving.Merged:
        if path.name == "late.db":
            raise KeyboardInterrupt
        return merge(history, path)

    monkeypatch.setattr(moving, "merge", interrupted)
    monkeypatch.setattr(boundary, "_hear_signals", lambda: None)
    words = ["nightly", "merge", str(database), "late.db", "--json"]
    assert boundary.guarded(cli, [*words, "--database", str(tmp_path / "all.db")]) == 130
    document = json.loads(capsys.readouterr().out)
    assert document[str(database)]["added"] == 1
    assert document["error"]["message"] == "interrupted"


def test_what_cannot_be_merged_is_told(database: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no history")
    for name in ("notes.txt", "none.db"):
        done = pilot("nightly", "merge", str(tmp_path / name), "--database", str(database))
        assert done.code == 2
        assert name in done.err
        assert "Traceback" not in done.err


def test_the_usual_place_is_in_the_data_directory(data: Path, tmp_path: Path) -> None:
    with History(data / "nightly" / "history.db") as history:
        night(history, [outcome()])
    done = pilot("nightly", "export", str(tmp_path / "all.db"), "--json")
    exported = tmp_path / "all.db"
    expected = {"path": str(exported), "nights": 1, "bytes": exported.stat().st_size}
    assert done.document == expected


def test_another_nightly_on_the_same_history_is_refused(database: Path, tmp_path: Path) -> None:
    config = tmp_path / "nightly.toml"
    config.write_text('[matrix]\nmodels = ["rms-norm:tiny"]\ntargets = ["llvm-cpu"]\n')
    with History(database) as history, history.hold():
        done = pilot("nightly", "run", "-c", str(config), "--database", str(database))
    assert done.code == 3
    assert "another nightly is writing" in done.err
    assert "--wait" in done.err


def test_damage_deep_in_the_file_is_told_when_a_night_begins(tmp_path: Path) -> None:
    database, config = tmp_path / "history.db", tmp_path / "nightly.toml"
    config.write_text('[matrix]\nmodels = ["rms-norm:tiny"]\ntargets = ["llvm-cpu"]\n')
    with History(database) as history:
        cases = [case(f"m{n}") for n in range(200)]
        metrics = {f"metric {n}": 1.0 for n in range(20)}
        night(history, [outcome(one, metrics=metrics) for one in cases], cases=cases)
    size = database.stat().st_size
    with database.open("r+b") as file:
        for place in range(size // 2 // 4096 * 4096, size, 4096):
            file.seek(place)
            file.write(b"\xff" * 64)
    done = pilot(
        *("nightly", "run", "-c", str(config), "--database", str(database)),
        *("--scheduler", "tcp://127.0.0.1:9"),
    )
    (aside,) = tmp_path.glob("history.db.damaged-*")
    assert f"it was moved to {aside}" in done.err
    assert done.err.count("damaged;") == 1
    fresh = sqlite3.connect(database)
    assert fresh.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    fresh.close()
