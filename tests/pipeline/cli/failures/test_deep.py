"""`bisect --deep`: what else is known of a failure goes into its folder."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from driver import pilot
from fake.nights import failure
from fake.reports import CPU, report
from places import CASES

from iree_pilot.pipeline.cli import boundary, cli, several
from iree_pilot.pipeline.cli.boundary import Interrupted
from iree_pilot.pipeline.cli.failures import bisect, deep, releases_bisect, workaround
from iree_pilot.pipeline.cli.options import SourceOptions
from iree_pilot.pipeline.cli.session import Session
from iree_pilot.pipeline.errors import EnvironmentFault
from iree_pilot.pipeline.toolchain.toolchain import installed
from iree_pilot.repro.bisect import Bisection
from iree_pilot.repro.reproducer import verify
from iree_pilot.repro.reproducer.folder import bundle
from iree_pilot.repro.reproducer.known.found import Found, reproduced
from iree_pilot.repro.since_release.release_search import changes
from iree_pilot.repro.since_release.trials import ReleasesFound as Releases
from iree_pilot.repro.trust import trust
from iree_pilot.repro.workarounds import find_workarounds
from iree_pilot.repro.workarounds.answers import Cost, WorkaroundAnswer
from iree_pilot.repro.workarounds.find_workarounds import Attempt, Workarounds

CHOSEN = SourceOptions(
    settings={}, dtype=None, seed=0, weights=(), inputs=(), inline=False, fresh=False
)
RELEASES = {"3.1.0": "passes", "3.2.0": "same"}


class Desk:
    """A folder of a failure, and stand-ins for what answers for it."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.notes, self.asked = directory / "repro", list[str](), list[str]()
        one = bundle.level("mlir", CPU, verified=True)
        made = report(failure("crash/here"), one, verified=True)
        bundle.write(self.folder, made, {"repro.mlir": "//\n"})
        self.releases: Any = Releases(
            releases=cast(Any, RELEASES),
            boundaries=changes([*RELEASES], cast(Any, RELEASES)),
            assumed=(),
            revisions={},
            reasons={},
            failure=failure("crash/here"),
            compiles=2,
        )
        answer = WorkaroundAnswer(
            names=("--iree-opt-level=O0",),
            reasons=("less is done",),
            state="compiles",
            price="slower",
            target="llvm-cpu",
            flags=(*CPU, "--iree-opt-level=O0"),
            settings={},
            command=("iree-pilot", "run", "repro.mlir"),
            compile=(),
            cost=Cost(),
        )
        tried = (Attempt(names=("x",), state="compiles"),)
        self.workarounds: Any = Workarounds(status="found", answers=(answer,), tried=tried)
        monkeypatch.setattr(releases_bisect, "names", lambda live: [*RELEASES])
        monkeypatch.setattr(find_workarounds, "expected", lambda folder, toolchain: 3)
        monkeypatch.setattr(releases_bisect, "of_reproducer", self._answer("releases"))
        monkeypatch.setattr(workaround, "of_reproducer", self._answer("workarounds"))

    def _answer(self, name: str) -> Any:
        def answered(*_: object) -> Any:
            self.asked.append(name)
            said = getattr(self, name)
            if isinstance(said, BaseException):
                raise said
            return said

        return answered

    def note(self, text: str) -> None:
        self.notes.append(text)

    def doing(self, what: str, part: str = "") -> None:
        pass

    def ask(self, **fields: Any) -> Any:
        made = reproduced(self.folder, bundle.read(self.folder))
        found = Found(failure=failure("crash/here", **fields), reproducer=made)
        result = Bisection(status="isolated", failures=(found,))
        result = deep.ask(
            cast(Session, SimpleNamespace(toolchain=SimpleNamespace(version="3.2.0"))),
            result,
            CHOSEN,
            None,
            cast(Any, self),
        )
        return result.failures[0].reproducer


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    return Desk(tmp_path, monkeypatch)


def test_the_answers_are_in_the_report_and_in_both_documents(desk: Desk) -> None:
    made = desk.ask()
    assert made.since_release.said == "since 3.2.0 (3.1.0 passes)"
    kept = bundle.read(desk.folder)
    assert (kept.since_release, kept.workarounds) == (made.since_release, made.workarounds)
    draft = (desk.folder / "ISSUE.md").read_text()
    assert "#### Since which release\n\nSince 3.2.0 (3.1.0 passes).\n" in draft
    assert "| 3.1.0 | passes |" in draft
    assert "`--iree-opt-level=O0`: compiles, not run; costs: slower. less is done" in draft
    assert f"iree-compile repro.mlir {' '.join(CPU)} --iree-opt-level=O0 -o module.vmfb" in draft
    text = (desk.folder / "README.md").read_text()
    assert "Since which release? Since 3.2.0 (3.1.0 passes)." in text
    assert "    iree-pilot run repro.mlir\n" in text


def test_what_is_asked_and_how_long_a_compile_took_is_said_first(desk: Desk) -> None:
    desk.ask()
    assert desk.notes[:5] == [
        f"\n--deep investigates {desk.folder} further; this can take minutes",
        "  releases     2 releases at most, 3.1.0 to 3.2.0",
        "  disk         up to 0.4 GB for 1 not here yet; `releases remove` frees it",
        "  workarounds  3 candidates and other architectures",
        # The report has 5 compiles in 1.5 s.
        "  time         a compile of the search took 300 ms on average: 1.5 s for 5; "
        "downloads and runs come on top",
    ]
    said = len(desk.notes)
    desk.ask()
    assert len(desk.notes) == said, "what was answered is not announced again"


def test_the_folder_counts_as_unchanged_and_as_ones_own(desk: Desk) -> None:
    desk.ask()
    bundle.check_place(desk.folder)
    assert trust.open_folder(desk.folder).written_here


def test_what_was_answered_is_not_asked_again(desk: Desk) -> None:
    first = desk.ask()
    assert desk.ask() == first
    assert desk.asked == ["releases", "workarounds"]


def test_what_cannot_be_answered_is_said_and_asked_again(desk: Desk) -> None:
    desk.releases = EnvironmentFault("no release can be had", advice="Go online.")
    made = desk.ask()
    assert made.since_release.said == "not known: no release can be had"
    assert "Not known: no release can be had." in (desk.folder / "ISSUE.md").read_text()
    assert made.workarounds.answers, "the other question is asked all the same"
    desk.ask()
    assert desk.asked == ["releases", "workarounds", "releases"]


def test_none_is_said_where_there_is_none(desk: Desk) -> None:
    tried = (Attempt(names=("x",), state="same"),)
    desk.workarounds = Workarounds(status="none", tried=tried, why="all was tried")
    assert desk.ask().workarounds.said == "none was found among 1 candidate: all was tried"
    said = "None was found among 1 candidate: all was tried."
    assert f"#### Workaround\n\n{said}" in (desk.folder / "ISSUE.md").read_text()


def test_of_a_failure_to_trace_nothing_is_asked(desk: Desk) -> None:
    assert desk.ask(phase="trace").since_release is None
    assert not desk.asked and "does not trace" in desk.notes[0]


def test_a_release_is_asked_once_for_a_folder(desk: Desk) -> None:
    session = cast(Session, SimpleNamespace(toolchain=SimpleNamespace(version="3.2.0")))
    for _ in range(2):
        known = deep.since_release(session, desk.folder, CHOSEN, cast(Any, desk))
        assert known.said == "since 3.2.0 (3.1.0 passes)"
    assert desk.asked == ["releases"]
    assert bundle.read(desk.folder).since_release == known


@pytest.mark.slow
@pytest.mark.real
def test_without_network_what_is_here_answers(shared_cache: Path, tmp_path: Path) -> None:
    offline = {
        "PIP_CONFIG_FILE": "/dev/null",
        "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
        "PIP_EXTRA_INDEX_URL": "",
        "PIP_RETRIES": "0",
    }
    done = pilot(
        *("bisect", CASES / "i8_sub.py", "-t", "llvm-cpu", "--deep", "-o", tmp_path / "out"),
        "--json",
        env=offline | {"IREE_PILOT_CACHE": shared_cache},
        cwd=tmp_path,
    )
    assert done.code == 0, done.err
    (found,) = done.document["failures"]
    made = found["reproducer"]
    assert "same" in made["since_release"]["releases"].values()
    assert any("i32" in name for one in made["workarounds"]["answers"] for name in one["names"])
    assert bundle.read(tmp_path / "out").workarounds is not None


class TestInterrupted:
    """What was finished is in the document, whatever was interrupted after it."""

    @pytest.mark.real
    def test_the_bisection_of_the_only_target_stays(
        self, desk: Desk, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        made = reproduced(desk.folder, bundle.read(desk.folder))
        found = Found(failure=failure("crash/here"), reproducer=made)
        result = Bisection(status="isolated", failures=(found,))
        desk.workarounds = KeyboardInterrupt()
        monkeypatch.setattr(bisect, "_each", lambda *_: [("llvm-cpu", result)])
        document = interrupted(capsys, monkeypatch, "bisect", "a.mlir", "-t", "llvm-cpu", "--deep")
        assert desk.asked == ["releases", "workarounds"]
        assert document["status"] == "isolated"
        assert document["failures"][0]["reproducer"]["path"] == str(desk.folder)

    @pytest.mark.real
    def test_so_do_the_levels_of_a_verification(
        self, desk: Desk, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def stopped(*_: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(verify, "_script", stopped)
        words = ("verify", str(desk.folder), "--release", installed().version)
        document = interrupted(capsys, monkeypatch, *words)
        assert document["release"] == installed().version
        assert [one["level"]["name"] for one in document["levels"]] == ["mlir"]

    def test_of_several_targets_those_that_are_done_stay(self) -> None:
        with pytest.raises(Interrupted) as stop, several.finishing([("a", {"n": 1})], targets=2):
            raise Interrupted({"answers": {}})
        assert stop.value.finished == {"results": [{"target": "a", "n": 1}]}


def interrupted(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str
) -> Any:
    """The document of a command that is interrupted, in this process."""
    monkeypatch.setattr(boundary, "_hear_signals", lambda: None)
    assert boundary.guarded(cli, [*words, "--json"]) == boundary.INTERRUPTED
    document = json.loads(capsys.readouterr().out)
    assert document["error"]["message"] == "interrupted"
    return document
