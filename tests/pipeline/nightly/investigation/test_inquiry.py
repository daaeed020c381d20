"""What is asked about a failure of a night: its answers on one line, and once for real."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
from driver import pilot
from fake.nights import case, failure, result
from places import CASES

from iree_pilot.pipeline.nightly.investigation import alone, inquiry
from iree_pilot.pipeline.nightly.investigation.inquiry import Inquiry
from iree_pilot.repro import deep
from iree_pilot.repro.since_release.release_search import Change, Verdict, changes
from iree_pilot.repro.since_release.trials import ReleasesFound
from iree_pilot.repro.workarounds.find_workarounds import (
    Attempt,
    Cost,
    WorkaroundAnswer,
    Workarounds,
)

OFFLINE = {
    "PIP_CONFIG_FILE": "/dev/null",
    "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
    "PIP_EXTRA_INDEX_URL": "",
    "PIP_RETRIES": "0",
}


def found(**verdicts: Verdict) -> ReleasesFound:
    """What releases 3.1.0 and so on said."""
    releases = {f"3.{name[1:]}.0": verdict for name, verdict in verdicts.items()}
    return ReleasesFound(
        releases=releases,
        boundaries=changes([*releases], releases),
        assumed=(),
        revisions={},
        reasons={},
        failure=failure("crash/here"),
        compiles=len(releases),
    )


class TestReleases:
    @pytest.mark.parametrize(
        ("verdicts", "said"),
        [
            ({"r1": "passes", "r2": "same"}, "since 3.2.0 (3.1.0 passes)"),
            ({"r1": "different", "r2": "same"}, "since 3.2.0 (3.1.0 fails in another way)"),
            (
                {"r1": "passes", "r2": "same", "r3": "passes"},
                "since 3.2.0 (3.1.0 passes); gone in 3.3.0 (3.2.0 reproduces it)",
            ),
            (
                {"r1": "same", "r2": "unsupported", "r3": "same"},
                "in all releases that give a verdict, 3.1.0 to",
            ),
            ({"r1": "unsupported", "r2": "same"}, "reproduces in 3.2.0, the only release"),
            ({"r1": "passes", "r2": "passes"}, "no release reproduces it"),
            ({"r1": "passes", "r2": "different"}, "3.1.0 passes, 3.2.0 fails in another way"),
        ],
    )
    def test_an_answer_is_one_line(self, verdicts: dict[str, Verdict], said: str) -> None:
        assert deep.summary(found(**verdicts)).startswith(said)

    def test_commits_stand_beside_a_change(self) -> None:
        change = Change(
            good="3.1.0",
            bad="3.2.0",
            good_verdict="passes",
            bad_verdict="same",
            came=True,
            good_revision="a" * 40,
            bad_revision="b" * 40,
        )
        assert deep._change(change) == (
            "since 3.2.0 (3.1.0 passes, commits aaaaaaaaaaaa to bbbbbbbbbbbb)"
        )


class TestWorkaround:
    def answer(self, **fields: Any) -> WorkaroundAnswer:
        given = {
            "names": ("--iree-opt-level=O0",),
            "reasons": ("less is done",),
            "state": "works",
            "price": "slower",
            "target": "llvm-cpu",
            "flags": ("--iree-opt-level=O0",),
            "settings": {},
            "command": ("iree-pilot", "run", "a b.py"),
            "compile": (),
            "cost": Cost(),
        }
        return WorkaroundAnswer(**(given | fields))

    def test_it_is_a_command_to_paste_with_what_it_costs(self) -> None:
        said = deep.way_around(Workarounds(status="found", answers=(self.answer(),)))
        assert said == "--iree-opt-level=O0 (slower): iree-pilot run 'a b.py'"

    def test_one_that_was_not_run_says_so(self) -> None:
        for state, said in (("compiles", "compiles, not run here"), ("runs", "runs, not compared")):
            only = (self.answer(state=state),)
            assert said in deep.way_around(Workarounds(status="found", answers=only))

    def test_where_there_is_none_the_reason_is_told(self) -> None:
        tried = (Attempt(names=("x",), state="same"),)
        said = deep.way_around(Workarounds(status="none", tried=tried, why="all was tried"))
        assert said == "none was found among 1 candidate: all was tried"


class TestChild:
    def asked(self, **fields: Any) -> Inquiry:
        given: dict[str, Any] = {
            "question": "releases",
            "case": case("nothing.mlir"),
            "result": result(failure("crash/here")),
            "reproducer": "",
            "place": "",
            "directory": "",
            "seconds": 60.0,
        }
        return Inquiry(**(given | fields))

    @pytest.mark.real
    def test_what_keeps_an_answer_from_coming_is_the_answer(self, tmp_path: Path) -> None:
        asked = self.asked(directory=str(tmp_path), place=str(tmp_path / "x"))
        finding = inquiry.ask(asked, tmp_path)
        assert finding.done
        assert "nothing.mlir" in finding.said

    @pytest.mark.parametrize(
        ("question", "tried", "said"),
        [
            (
                "releases",
                "3.12.0\n3.11.0\n",
                "not within 60 s, tried until then: 3.12.0, 3.11.0; the next night resumes there",
            ),
            (
                "releases",
                "",
                "not within 60 s, and none was installed and tried until then: "
                "give [news] more time for `each`",
            ),
            ("workaround", "", "not within 60 s; the next night resumes there"),
        ],
    )
    def test_one_that_time_ended_says_how_far_it_came(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, question: str, tried: str, said: str
    ) -> None:
        def late(*_: object, **__: object) -> None:
            if tried:
                (tmp_path / "tried.txt").write_text(tried)
            raise alone.Unfinished("not within 60 s", late=True)

        monkeypatch.setattr(alone, "run", late)
        asked = self.asked(question=question, directory=str(tmp_path))
        finding = inquiry.ask(asked, tmp_path)
        assert (finding.done, finding.said) == (False, said)

    def test_names_the_setting_that_ended_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def late(*_: object, **__: object) -> None:
            raise alone.Unfinished("not within 1 s", late=True)

        monkeypatch.setattr(alone, "run", late)
        asked = self.asked(directory=str(tmp_path), seconds=1.0, limits=("budget",))
        assert inquiry.ask(asked, tmp_path).said.endswith("give [news] more time for `budget`")


@pytest.mark.real
def test_a_real_night_says_since_when_without_a_network(shared_cache: Path, tmp_path: Path) -> None:
    shutil.copy(CASES / "zero_rows.py", tmp_path)
    (tmp_path / "nightly.toml").write_text(
        '[matrix]\nmodels = ["zero_rows.py"]\ntargets = ["llvm-cpu"]\nreleases = ["3.12.0"]\n'
        "[schedule]\nreruns = 0\n[news]\nisolate = false\nworkaround = false\n"
    )
    own = {"IREE_PILOT_CACHE": shared_cache}
    with_it = ("compile", "zero_rows.py", "-t", "llvm-cpu", "--release", "3.12.0")
    ready = pilot(*with_it, env=own, cwd=tmp_path)
    assert ready.code == 1, ready.err
    words = ("nightly", "run", "--json", "--database", "history.db")
    done = pilot(*words, env=own | OFFLINE, cwd=tmp_path)
    assert done.code == 1, done.err
    (row,) = done.document["rows"]
    (finding,) = row["judgement"]["findings"]
    assert "gone in 3.13.0 (3.12.0 reproduces it, commits 2b05c5dbb2f2 to" in finding["said"]
    change = finding["details"]["boundaries"][-1]
    assert Path(change["script"]).is_file()
    (note,) = done.document["notes"]
    assert note.endswith("using the releases that are installed")
    told = pilot("nightly", "report", "--database", "history.db", cwd=tmp_path)
    assert "releases: " in told.out and "gone in 3.13.0" in told.out


@pytest.mark.real
def test_a_real_night_tells_a_way_around_wrong_numbers(tmp_path: Path) -> None:
    shutil.copy(CASES / "u8_sort.py", tmp_path)
    (tmp_path / "nightly.toml").write_text(
        '[matrix]\nmodels = ["u8_sort.py"]\ntargets = ["llvm-cpu"]\n'
        "[schedule]\nreruns = 0\n[news]\nisolate = false\nreleases = false\n"
    )
    done = pilot("nightly", "run", "--json", "--database", "history.db", cwd=tmp_path)
    assert done.code == 1, done.err
    (row,) = done.document["rows"]
    (finding,) = row["judgement"]["findings"]
    assert finding["done"]
    assert "in i32 (slower): " in finding["said"]
    (answer,) = finding["details"]["answers"]
    assert (answer["state"], answer["comparison"]["verdict"]) == ("works", "ok")
    before = sorted(tmp_path.iterdir())
    pasted = pilot(*shlex.split(finding["said"].rpartition(": iree-pilot ")[2]), cwd=tmp_path)
    assert pasted.code == 0, pasted.err
    assert sorted(tmp_path.iterdir()) == before
