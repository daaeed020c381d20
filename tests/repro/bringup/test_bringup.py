"""The search for a way past a failure: what is asked first, its limits, and how far it is."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from iree_pilot.pipeline.failures.diagnostics import Failure
from iree_pilot.pipeline.processes.process import Limits
from iree_pilot.repro.bringup import bringup
from iree_pilot.repro.reducer.effort import Effort
from iree_pilot.repro.workarounds.candidate import Candidate
from iree_pilot.repro.workarounds.combination_search import CombinationOutcome
from iree_pilot.repro.workarounds.table import TABLE

WANTED = [*TABLE[:5]]
SAME, WORKS = CombinationOutcome(state="same"), CombinationOutcome(state="works")
FAILURE = Failure(kind="diagnostic", message="m", signature="a/attention/c", phase="flow")
EAGER, SDPA = (
    Candidate(
        name=f"--set attn={value}",
        reason="",
        group="rewrite",
        fields={"attn": value},
        helps="attention",
    )
    for value in ("eager", "sdpa")
)


class Trials:
    """What a search asks, each answered by the same failure."""

    asked: ClassVar[list[Limits]] = []
    working: ClassVar[list[str]] = []

    def __init__(self, subject: Any, context: Any, *, width: int, on_progress: Any) -> None:
        self._on_progress = on_progress
        self.asked.append(context.limits)

    def ask(self, combinations: Any) -> list[CombinationOutcome]:
        given = [WORKS if one[0].name in self.working else SAME for one in combinations]
        for one, outcome in zip(combinations, given, strict=True):
            self._on_progress(one, outcome)
        return given


def result(failure: Failure | None, status: str = "failed") -> Any:
    return SimpleNamespace(
        failure=failure,
        status=status,
        target="vulkan",
        compile_seconds=2.0,
        steps=(),
        peak_bytes=1,
        functions=(),
    )


def one_at_a_time(failure: Failure, seconds: float, peak: int, given: Limits) -> Effort:
    return Effort(limits=Limits(seconds=60.0), width=1)


@pytest.fixture
def heard() -> list[tuple[int, int]]:
    return []


@pytest.fixture
def search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, heard: list[tuple[int, int]]) -> Any:
    monkeypatch.setattr(bringup, "Trials", Trials)
    monkeypatch.setattr(Trials, "asked", [])
    monkeypatch.setattr(Trials, "working", [])
    monkeypatch.setattr(bringup.find_workarounds.effort, "estimate", one_at_a_time)
    monkeypatch.setattr(bringup, "FailingCase", SimpleNamespace)
    monkeypatch.setattr(bringup.find_workarounds, "reduced", lambda *given: object())
    monkeypatch.setattr(bringup.find_workarounds, "wanted", lambda *given: WANTED)
    made: Any = bringup._BringUp.__new__(bringup._BringUp)
    made._root = tmp_path
    made._open = []
    made._subject = SimpleNamespace(job=None, settings={}, device=None)
    made._context = Context(Limits(seconds=600.0))
    made._bounds = bringup.Bounds(place=tmp_path)
    made._heard = bringup.Heard(tried=lambda count, total: heard.append((count, total)))
    return made


class Context(SimpleNamespace):
    """A context of which only the limits are known."""

    def __init__(self, limits: Limits) -> None:
        super().__init__(limits=limits, toolchain=None)

    def at(self, place: Path) -> Context:
        return self

    def bounded(self, limits: Limits) -> Context:
        return Context(limits)


def opened(tmp_path: Path) -> bringup._OpenFailure:
    found: Any = SimpleNamespace(path=str(tmp_path), whole=False, op_names=("a",))
    return bringup._OpenFailure(FAILURE, found, "")


def test_candidates_are_counted(tmp_path: Path, search: Any, heard: list[tuple[int, int]]) -> None:
    now = opened(tmp_path)
    assert list(search._rehearsed(now, None, result(FAILURE), ())) == []
    assert heard == [(n, 5) for n in range(1, 6)]
    assert now.tried == 5


def test_a_trial_has_not_much_more_time_than_the_program_took(tmp_path: Path, search: Any) -> None:
    assert not list(search._rehearsed(opened(tmp_path), None, result(FAILURE), ()))
    assert [one.seconds for one in Trials.asked] == [60.0]


def test_others_are_tried_only_if_what_is_free_is_not_enough(
    tmp_path: Path, search: Any, heard: list[tuple[int, int]]
) -> None:
    slow, free, last = WANTED[0], WANTED[1], WANTED[4]
    assert (slow.price, free.price, last.price) == ("slower", "free", "slower")
    Trials.working += [slow.name, free.name, last.name]
    now = opened(tmp_path)
    ways = search._rehearsed(now, None, result(FAILURE), ())
    assert next(ways) == (free,)
    assert (len(heard), now.tried, now.rehearsed) == (2, 2, [(free,)])
    assert list(ways) == [(slow,), (last,)]
    assert (len(heard), now.tried) == (5, 5)
    assert now.rehearsed == [(free,), (slow,), (last,)]


def test_a_free_switch_that_is_made_for_the_failure_is_tried_before_the_reproducer_is_asked(
    tmp_path: Path, search: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bringup.find_workarounds, "wanted", lambda *given: [*WANTED, EAGER])
    made: Any = SimpleNamespace(loaded=None, plan=None, flags=())
    ways = search._ways(opened(tmp_path), made, result(FAILURE))
    assert next(ways) == (EAGER,)
    assert not Trials.asked
    assert list(ways) == []
    assert len(Trials.asked) == 1


def test_what_is_decided_is_not_decided_otherwise() -> None:
    assert bringup._undecided([SDPA, *WANTED], (EAGER,)) == WANTED
    assert bringup._undecided([SDPA], ()) == [SDPA]


def test_wrong_numbers_are_not_got_past_by_what_is_not_compared() -> None:
    wrong = Failure(kind="mismatch", message="m", signature="mismatch/values", phase="compare")
    assert not bringup._gone(wrong, result(None, "ran"), rehearsed=True)
    assert bringup._gone(wrong, result(None, "ok"), rehearsed=False)
    assert bringup._gone(FAILURE, result(None, "ran"), rehearsed=False)
