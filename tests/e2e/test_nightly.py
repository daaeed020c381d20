"""`iree-pilot nightly` as a team uses it, with a stand-in for the compiler's slowness."""

from __future__ import annotations

import json
import random
import shlex
import signal
import sqlite3
import subprocess
from pathlib import Path
from typing import Any

import pytest
from driver import Done, pilot, start
from fake import stub_release
from fake.disk import tiny_disk
from fake.processes import running, wait_until

pytestmark = pytest.mark.real

OPS = ["one", "two", "three", "{0}", "five", "six", "seven"]
PROGRAM = (
    "func.func @main(%0: tensor<4xf32>) -> tensor<4xf32> {{\n"
    + "".join(
        f'  %{i + 1} = "test.{name}"(%{i}) : (tensor<4xf32>) -> tensor<4xf32>\n'
        for i, name in enumerate(OPS)
    )
    + f"  return %{len(OPS)} : tensor<4xf32>\n}}}}\n"
)


class Team:
    """A team's directory: models, a configuration, a compiler, a history."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.release = directory / "release"
        stub_release(self.release)
        self.history = directory / "history.db"

    def models(self, *names: str, bisect: bool = False, news: bool = False) -> None:
        for name in names:
            (self.directory / f"{name}.mlir").write_text(PROGRAM.format(name))
        files = ", ".join(f'"{name}.mlir"' for name in names)
        (self.directory / "nightly.toml").write_text(
            f'title = "ours"\n[matrix]\nmodels = [{files}]\ntargets = ["hip:gfx942"]\n'
            f'releases = ["{self.release}"]\nbisect = {str(bisect).lower()}\n'
            f"[news]\nreleases = {str(news).lower()}\nworkaround = {str(news).lower()}\n"
        )

    def fails(self, **when: str) -> None:
        """What the compiler says of programs with these words."""
        said = {f'"test.{word}"': f"// stub: error-at flow {text}" for word, text in when.items()}
        for file in self.release.rglob("stub.json"):
            file.write_text(json.dumps({"when": said}))

    def arguments(self, *words: str) -> list[str]:
        return ["nightly", *words, "--database", str(self.history)]

    def __call__(self, *words: str, **options: Any) -> Done:
        return pilot(*self.arguments(*words), cwd=self.directory, **options)

    def done(self) -> int:
        """How many outcomes are in the history."""
        try:
            return int(self.query("SELECT count(status) FROM outcomes")[0][0])
        except sqlite3.OperationalError:  # it is only being made
            return 0

    def outcomes(self) -> dict[str, tuple[Any, ...]]:
        """What is known of each case that is done, but of what may yet be run once more."""
        return {
            name: facts
            for name, *facts in self.query(
                "SELECT c.name, o.begun, o.seconds, o.worker, o.status FROM outcomes o"
                " JOIN cases c ON c.id = o.case_id WHERE o.status IS NOT NULL"
                " AND c.name NOT LIKE 'model7.%'"
            )
        }

    def killed(self, *, progress: bool, seconds: float) -> None:
        """A night that is killed some time after it begins, or after one more case is done."""
        before = self.done()
        night = start(*self.arguments("run", "-q"), cwd=self.directory, start_new_session=True)
        try:
            if progress:  # which begins when all 60 sources are traced
                wait_until(lambda: self.done() > before or night.poll() is not None, seconds=300)
            with pytest.raises(subprocess.TimeoutExpired):
                night.communicate(timeout=seconds)
        finally:
            night.kill()
            night.communicate(timeout=30)

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        database = sqlite3.connect(self.history)
        try:
            return database.execute(sql).fetchall()
        finally:
            database.close()


@pytest.fixture
def team(tmp_path: Path) -> Team:
    (tmp_path / "team").mkdir()
    return Team(tmp_path / "team")


def verdicts(done: Done) -> dict[str, str]:
    return {
        row["case"]["source"].removesuffix(".mlir"): row["judgement"]["verdict"]
        for row in done.document["rows"]
    }


def test_a_team_goes_through_its_first_nights(team: Team) -> None:
    team.models("good", "bad")
    team.fails(bad="it is bad")
    first = team("run", "--json")
    assert first.code == 1, first.err
    unsaid = team("expect", "--accept")
    assert (unsaid.code, "needs a reason for 1 failure" in unsaid.err) == (2, True)
    assert verdicts(first) == {"good": "compiled", "bad": "new failure"}
    accepted = team("expect", "--accept", "--reason", "known when we began")
    assert accepted.code == 0, accepted.err
    assert "known when we began" in (team.directory / "expectations.toml").read_text()
    second = team("run", "--json")
    assert (second.code, verdicts(second)) == (0, {"good": "compiled", "bad": "fail"})
    assert all(row["outcome"]["reused"] for row in second.document["rows"])
    team.fails(bad="it is worse")
    third = team("run", "--json", "--fresh", "--markdown", "report.md", "--junit", "report.xml")
    assert (third.code, verdicts(third)) == (1, {"good": "compiled", "bad": "changed failure"})
    assert "changed failure" in (team.directory / "report.md").read_text()
    assert "<testsuites" in (team.directory / "report.xml").read_text()
    assert third.err.endswith("wrote report.md\nwrote report.xml\n")
    team.fails()
    fourth = team("run", "--json", "--fresh")
    assert (fourth.code, verdicts(fourth)) == (1, {"good": "compiled", "bad": "fixed"})
    assert team("expect", "--accept").out.startswith("removed  bad.mlir")
    assert team("expect").out.startswith("nothing is expected to fail")
    fifth = team("run", "--json", "--fresh")
    assert (fifth.code, verdicts(fifth)) == (0, {"good": "compiled", "bad": "compiled"})


def test_a_failure_says_whether_the_model_changed(team: Team) -> None:
    team.models("good", "same")
    assert team("run", "-q").code == 0
    (team.directory / "good.mlir").write_text(PROGRAM.format("bad"))
    team.fails(bad="it is bad", same="so is this")
    told = {
        row["case"]["source"]: row["judgement"]["why"]
        for row in team("run", "--json", "--fresh").document["rows"]
    }
    changed = "; since then the model changed (good.mlir, program)"
    assert told["good.mlir"].endswith(changed), told
    assert told["same.mlir"].endswith("; the program is the same"), told


def test_people_are_told_in_lines(team: Team) -> None:
    team.models("good", "bad", bisect=True)
    team.fails(bad="'test.bad' op is not supported")
    told = team("run")
    assert told.code == 1
    assert "new failure     bad.mlir" in told.out
    assert "op is not supported" in told.out
    (reproducer,) = team.directory.glob("reproducers/*")
    assert f"reproducer: {reproducer}" in told.out
    left = (reproducer / "repro.mlir").read_text()
    assert ("test.bad" in left, "test.one" in left) == (True, False)
    *_, counted, _ = told.out.splitlines()
    assert counted.endswith("news in 1 of 2 cases: 1 new failure, 1 compiled")
    assert "\x1b" not in told.out
    (took,) = (line for line in told.out.splitlines() if line.startswith("took "))
    assert ": start " in took and "cases " in took and "isolate " in took
    status = team("status")
    assert (status.code, "1 new failure, 1 compiled" in status.out) == (0, True)
    assert "\n\n\n" not in status.out
    again = team("report", "--format", "markdown")
    assert "### new failure: bad.mlir" in again.out
    assert team("report", "7").code == 2


def test_each_nights_artifacts_have_what_its_report_names(team: Team) -> None:
    team.models("bad", bisect=True)
    team.fails(bad="'test.bad' op is not supported")
    for name in ("first", "second"):
        told = team("run", "--json", "--artifacts", name)
        (row,) = told.document["rows"]
        folder = Path(row["judgement"]["reproducer"])
        assert folder.parent == team.directory / name
        assert "test.bad" in (folder / "repro.mlir").read_text()
    (folder / "repro.mlir").write_text("")
    third = team("run", "--json", "--artifacts", "third")
    kept = third.document["rows"][0]["judgement"]["reproducer"]
    assert kept == str(folder), "one that was changed is named, and not passed on"


def test_after_news_comes_the_command_that_accepts_them(team: Team) -> None:
    team.models("good", "bad")
    team.fails(bad="it is bad")
    *_, accept = team("run").out.splitlines()
    label, _, command = accept.partition(" $ iree-pilot ")
    assert label.strip() == "accept"
    assert team("report").out.endswith(f"{accept}\n")
    assert team("status").out.endswith(f"{accept}\n")
    assert f"`iree-pilot {command}`" in team("report", "--format", "markdown").out
    document = team("report", "--json").document
    anywhere = document["run"]["accept"]
    assert anywhere[:6] == [
        *("iree-pilot", "nightly", "expect", "--accept"),
        *("-c", str(team.directory / "nightly.toml")),
    ]
    accepted = pilot(*shlex.split(command), cwd=team.directory)
    assert (accepted.code, "added    bad.mlir" in accepted.out) == (0, True)
    known = team("run", "--fresh")
    assert "nothing new in 2 cases" in known.out and "accept" not in known.out
    assert "accept" not in team("report", "1").out, "what is accepted is that of the latest night"
    team.fails()
    *_, remove = team("run", "--fresh").out.splitlines()
    assert remove == accept.replace("accept", "remove", 1).partition(" --reason ")[0]
    removed = pilot(*shlex.split(remove.partition(" $ iree-pilot ")[2]), cwd=team.directory)
    assert (removed.code, "removed  bad.mlir" in removed.out) == (0, True)
    team.fails(bad="it is bad")
    assert team("run", "--fresh").code == 1
    elsewhere = team.directory.parent
    assert pilot(*anywhere[1:], cwd=elsewhere).code == 0
    assert team("run").code == 0


def test_commands_are_for_the_directory_in_which_they_are_printed(team: Team) -> None:
    team.models("bad")
    team.fails(bad="it is bad")
    elsewhere = team.directory.parent
    words = ("nightly", "run", "-c", "team/nightly.toml", "--database", "team/history.db")
    told = pilot(*words, cwd=elsewhere).out
    commands = [line.partition("$ iree-pilot ")[2] for line in told.splitlines() if " $ " in line]
    assert commands[0].startswith("run team/bad.mlir -t hip:gfx942 --release ")
    named = "-c team/nightly.toml --database team/history.db"
    assert commands[-1].startswith(f"nightly expect --accept {named} --reason ")
    assert pilot(*shlex.split(commands[0]), cwd=elsewhere).code == 1
    assert pilot(*shlex.split(commands[-1]), cwd=elsewhere).code == 0


def test_an_expectation_that_the_case_outlived_is_told_every_night(team: Team) -> None:
    team.models("good")
    assert team("run", "-q").code == 0
    known = team.directory / "expectations.toml"
    known.write_text(
        f'# ours\n[[expect]]\ncase = "good.mlir | hip:gfx942 | {team.release}"\n'
        'signature = "diagnostic/x/y/z"\nreason = "it failed"\n'
    )
    for words in (("run",), ("run", "--fresh"), ("report",)):
        told = team(*words)
        assert told.code == 0, told.err
        (line,) = (line for line in told.out.splitlines() if "is expected to fail" in line)
        command = line.partition(" remove the expectation with iree-pilot ")[2]
        assert f"| {team.release} is expected to fail, but compiles since " in line
        assert "remove    $ iree-pilot nightly expect --accept -c nightly.toml" in told.out
    accepted = pilot(*shlex.split(command), cwd=team.directory)
    assert (accepted.code, accepted.out.startswith("removed  good.mlir")) == (0, True)
    assert known.read_text() == "# ours\n"
    assert "expected" not in team("run").out


def test_in_a_pipe_it_is_said_what_begins_and_nothing_is_cut(team: Team) -> None:
    team.models("good", "bad")
    message = f"'test.bad' op {'is not supported ' * 20}here"
    team.fails(bad=message)
    told = team("run").out.splitlines()
    assert told[1:3] == ["tracing good.mlir", "tracing bad.mlir"]
    (line,) = (line for line in told if "/2 failed" in line and "times" not in line)
    assert line.endswith(f"diagnostic: {message}")


def test_a_reason_is_told_as_it_was_written(team: Team) -> None:
    team.models("good")
    (team.directory / "expectations.toml").write_text(
        '[[expect]]\ncase = "*"\nsignature = "*"\nreason = "[link] see [bold]"\n'
    )
    assert "[link] see [bold]" in team("expect").out


def test_a_night_is_told_with_the_lines_that_its_sources_had_then(team: Team) -> None:
    (team.directory / "nightly.toml").write_text(
        '[matrix]\nmodels = ["net.py"]\ntargets = ["hip:gfx942"]\nbisect = false\n'
        f'releases = ["{team.release}"]\n[news]\nreleases = false\n'
    )
    net = team.directory / "net.py"
    net.write_text("import torch\ndef model(:\n")
    told = team("run")
    assert (told.code, "def model(:" in told.out) == (1, True)
    net.write_text("import torch\ndef fixed():\n    pass\n")
    for again in ("status", "report"):
        assert "def model(:" in team(again).out
        assert "def fixed" not in team(again).out


def test_a_configuration_chooses_its_own_nights(team: Team) -> None:
    team.models("good", "bad")
    written = (team.directory / "nightly.toml").read_text()
    for name, models in (("one", '"good.mlir"'), ("two", '"bad.mlir"'), ("none", '"new.mlir"')):
        text = written.replace('"good.mlir", "bad.mlir"', models)
        (team.directory / f"{name}.toml").write_text(text)
    (team.directory / "new.mlir").write_text(PROGRAM.format("new"))
    assert team("run", "-q", "-c", "one.toml").code == 0
    assert team("run", "-q", "-c", "two.toml").code == 0
    shown = team("status", "-c", "one.toml", "--json").document
    assert ([run["id"] for run in shown["runs"]], shown["latest"]["run"]["id"]) == ([1], 1)
    assert [run["id"] for run in team("status", "--json").document["runs"]] == [2, 1]
    assert team("report", "-c", "one.toml", "--json").document["run"]["id"] == 1
    assert team("report", "2", "-c", "two.toml", "--json").document["run"]["id"] == 2
    other = team("report", "2", "-c", "one.toml")
    assert (other.code, "there is no night 2 with a case of one.toml" in other.err) == (2, True)
    never = team("report", "-c", "none.toml")
    assert (never.code, "there was no night of none.toml yet" in never.err) == (2, True)
    assert "iree-pilot nightly run -c none.toml" in never.err
    assert "no night of none.toml yet" in team("status", "-c", "none.toml").out


def test_a_dry_run_runs_nothing(team: Team) -> None:
    team.models("good", "other")
    before = team("run", "--dry-run", "--json").document
    assert [c["seconds"] for c in before["cases"]] == [None, None]
    assert not team("status", "--json").document["runs"]
    team("run", "-q")
    after = team("run", "--dry-run", "--json").document
    assert (after["unchanged"], after["seconds"]) == (2, 0.0)
    fresh = team("run", "--dry-run", "--fresh", "--json").document
    assert fresh["unchanged"] == 0
    assert fresh["seconds"] > 0
    assert len(team("status", "--json").document["runs"]) == 1


def test_a_part_of_the_matrix(team: Team) -> None:
    team.models("good", "other", "third")
    assert set(verdicts(team("run", "--json", "--only", "not good"))) == {"other", "third"}
    shards = [set(verdicts(team("run", "--json", "--shard", f"{i}/2"))) for i in (1, 2)]
    assert sorted(shards[0] | shards[1]) == ["good", "other", "third"]
    assert not shards[0] & shards[1]
    assert team("run", "--only", "nothing-like-it").code == 2


def test_histories_move(team: Team, tmp_path: Path) -> None:
    team.models("good")
    team("run", "-q")
    assert team("export", str(tmp_path / "here.db")).code == 0
    elsewhere = [str(tmp_path / "here.db"), "--database", str(tmp_path / "all.db")]
    for added in (1, 0):
        merged = pilot("nightly", "merge", *elsewhere, "--json").document
        assert merged[elsewhere[0]]["added"] == added
    runs = pilot("nightly", "status", "--database", elsewhere[2], "--json").document["runs"]
    assert [run["title"] for run in runs] == ["ours"]


def test_the_models_list_says_where_they_passed_the_last_time(team: Team, data: Path) -> None:
    assert pilot("models", "rope", "--json").document["passes"] == {}
    (team.directory / "nightly.toml").write_text(
        '[matrix]\nmodels = ["rope:tiny"]\ntargets = ["llvm-cpu", "hip:gfx942"]\n'
        '[[include]]\nmodels = ["rope:tiny"]\nfields = {length = 8}\n'
    )
    assert pilot("nightly", "run", "-q", cwd=team.directory).code == 0
    passes = pilot("models", "rope", "--json").document["passes"]
    assert passes == {"rope:tiny": ["llvm-cpu", "hip:gfx942 (compiles)"]}
    assert "llvm-cpu, hip:gfx942 (compiles)" in pilot("models").out


def test_two_nights_do_not_mix(team: Team) -> None:
    team.models("good")
    team("run", "-q")
    for file in team.release.rglob("stub.json"):
        file.write_text(json.dumps({"when": {"test.good": "// stub: wait-at flow go"}}))
    first = start(*team.arguments("run", "--fresh"), cwd=team.directory)
    wait_until(lambda: running(f"{team.release}/iree/compiler") != [])
    refused = team("run", "--fresh")
    assert (refused.code, "another nightly" in refused.err) == (3, True)
    seen = team("status").out
    assert "running: 0 of 1 done" in seen and "it is running now; to come: good.mlir |" in seen
    first.send_signal(signal.SIGINT)
    told, _ = first.communicate(timeout=30)
    assert first.returncode == 130
    assert "stopped: 0 of 1 done; the same command resumes it" in told
    wait_until(lambda: running(str(team.directory)) == [])
    assert "stopped: 0 of 1 done" in team("status").out
    assert team("status", "--json").document["running"] is False


class TestWrong:
    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("[matrix\n", "nightly.toml:1:"),
            ('[matrix]\nmodel = ["x"]\ntargets = ["llvm-cpu"]\n', "models"),
            ('[matrix]\nmodels = ["lama:tiny"]\ntargets = ["llvm-cpu"]\n', "llama"),
            ('[matrix]\nmodels = ["llama:tiny"]\ntargets = ["vulcan"]\n', "vulkan"),
            (
                '[matrix]\nmodels = ["llama:tiny"]\ntargets = ["llvm-cpu"]\nreleases = ["3.x"]\n',
                "3.x",
            ),
        ],
    )
    def test_a_configuration_is_refused_before_anything_runs(
        self, team: Team, text: str, said: str
    ) -> None:
        (team.directory / "nightly.toml").write_text(text)
        refused = team("run")
        assert refused.code == 2
        assert "nightly.toml" in refused.err
        assert said in refused.err
        assert not team.history.exists()

    def test_a_damaged_history_is_kept_aside_and_named(self, team: Team) -> None:
        team.models("good")
        team("run", "-q")
        damaged = b"SQLite format 3\0" + b"\xff" * 5000
        for content in (damaged, damaged[:50]):
            team.history.write_bytes(content)
            for words in (("status",), ("report",), ("expect", "--accept", "--reason", "x")):
                read = team(*words)
                assert (read.code, "it is damaged" in read.err) == (3, True), read.err
                assert "moves a damaged history aside and begins a new one" in read.err
            assert team.history.read_bytes() == content
        team.history.write_bytes(damaged)
        done = team("run")
        (aside,) = team.directory.glob("history.db.damaged-*")
        assert done.code == 0
        assert aside.name in done.err
        assert team.query("SELECT count(*) FROM runs") == [(1,)]

    def test_a_disk_that_fills_up_loses_nothing_that_was_done(
        self, team: Team, tmp_path: Path
    ) -> None:
        team.models("good", "late")
        waits = {"when": {'"test.late"': "// stub: wait-at flow go"}}
        for file in team.release.rglob("stub.json"):
            file.write_text(json.dumps(waits))
        with tiny_disk(tmp_path / "disk", 2 * 1024 * 1024) as disk:
            team.history = disk / "history.db"
            night = start(*team.arguments("run", "-q"), cwd=team.directory)
            wait_until(lambda: team.done() == 1 and running("late.mlir") != [])
            with pytest.raises(OSError), (disk / "filler").open("wb", buffering=0) as filler:
                while True:
                    filler.write(bytes(4096))
            (team.directory / "go").touch()
            _, err = night.communicate(timeout=60)
            assert (night.returncode, "the disk is full" in err) == (3, True)
            assert "Traceback" not in err
            (disk / "filler").unlink()
            done = team("run", "--json")
            assert (done.code, len(done.document["rows"])) == (0, 2)
            assert team.query("SELECT count(*) FROM runs") == [(1,)]

    def test_a_history_of_a_newer_iree_pilot_is_not_touched(self, team: Team) -> None:
        team.models("good")
        team("run", "-q")
        database = sqlite3.connect(team.history)
        database.execute("PRAGMA user_version = 1000")
        database.close()
        refused = team("run")
        assert (refused.code, "schema 1000" in refused.err) == (3, True)

    def test_a_scheduler_that_is_not_there(self, team: Team) -> None:
        team.models("good")
        refused = team("run", "--scheduler", "tcp://127.0.0.1:9")
        assert (refused.code, "127.0.0.1:9" in refused.err) == (3, True)

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (("--scheduler", "nope"), "'nope' is no address of a scheduler"),
            (("--markdown", "-", "--json"), "--json and --markdown - cannot both have stdout"),
        ],
    )
    def test_wrong_usage_starts_no_night(
        self, team: Team, words: tuple[str, ...], said: str
    ) -> None:
        team.models("good")
        assert team("run", "-q").code == 0
        refused = team("run", *words)
        assert (refused.code, said in refused.err) == (2, True)
        assert len(team("status", "--json").document["runs"]) == 1

    @pytest.mark.parametrize("words", [("report",), ("expect", "--accept", "--reason", "r")])
    def test_to_look_at_a_history_that_is_not_there_makes_none(
        self, team: Team, words: tuple[str, ...]
    ) -> None:
        team.models("good")
        refused = team(*words)
        assert (refused.code, "there is no history" in refused.err) == (2, True)
        assert "there was no night yet" in team("status").out
        assert not team.history.exists()

    def test_accepting_needs_a_reason(self, team: Team) -> None:
        team.models("good")
        assert team("expect", "--accept").code == 2
        past = team("expect", "--accept", "--reason", "r", "--expires", "2020-01-31")
        assert (past.code, "--expires 2020-01-31 is past" in past.err) == (2, True)

    def test_a_report_that_cannot_be_written_is_shown_before(self, team: Team) -> None:
        team.models("good")
        refused = team("run", "--markdown", "no/such/report.md")
        assert (refused.code, "no/such" in refused.err) == (2, True)
        assert not team.history.exists()


@pytest.mark.slow
def test_a_night_that_is_killed_again_and_again_loses_nothing(team: Team) -> None:
    """Each outcome that was in the history when the kill came is there, as it was, at the end."""
    names = [f"model{i}" for i in range(60)]
    team.models(*names)
    team.fails(model7="it is bad")
    chance = random.Random(20)
    found: dict[str, tuple[Any, ...]] = {}
    kills = 0
    while kills < 20 and (not team.history.exists() or team.done() < 30):  # else it may end first
        team.killed(progress=kills % 4 != 0, seconds=chance.uniform(0.05, 0.5))
        kills += 1
        if team.done():
            assert team.query("PRAGMA integrity_check") == [("ok",)]
            now = team.outcomes()
            assert {name: now[name] for name in found} == found
            found = now
    assert found and kills >= 5
    done = team("run", "--json")
    assert verdicts(done)["model7"] == "new failure"
    rows = done.document["rows"]
    assert len(rows) == len({row["case"]["source"] for row in rows}) == len(names)
    kept = {row["outcome"]["case"]: row["outcome"]["begun"] for row in rows}
    assert {name: kept[name] for name in found} == {name: facts[0] for name, facts in found.items()}
    assert team.query("SELECT count(*), count(DISTINCT case_id) FROM outcomes") == [(60, 60)]
    wait_until(lambda: running(str(team.directory)) == [])
