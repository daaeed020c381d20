"""One night: what is reused, run, run again, judged and isolated, with a scheduler that runs
nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from fake.nights import case, failure, outcome, result

from iree_pilot.pipeline.failures import diagnostics
from iree_pilot.pipeline.nightly.cases import config
from iree_pilot.pipeline.nightly.history.history import History
from iree_pilot.pipeline.nightly.investigation import isolation
from iree_pilot.pipeline.nightly.investigation.inquiry import Inquiry
from iree_pilot.pipeline.nightly.judgement.expectations import Expectation
from iree_pilot.pipeline.nightly.night import Night, NightOptions
from iree_pilot.pipeline.nightly.records import Case, CaseOutcome, Finding
from iree_pilot.pipeline.nightly.reports import report
from iree_pilot.pipeline.nightly.reports.report import NightReport
from iree_pilot.pipeline.nightly.workers.orders import JobWatcher as Hearer
from iree_pilot.pipeline.nightly.workers.orders import NightJob, Order
from iree_pilot.repro.bisect import Bisection, Found, Reproducer

FAILS = failure("crash/SIGSEGV/here/1")
OTHER = failure("crash/SIGSEGV/there/2")
CASES = (case("a:tiny"), case("a:tiny", "vulkan"), case("b:tiny"))


class Stopped(Exception):
    """The night is killed."""


class Quiet:
    """Notes which calls there were."""

    def __init__(self) -> None:
        self.said: list[tuple[Any, ...]] = []

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *facts: self.said.append((name, *facts))


class Keyring:
    """The key of a case is its name, where nothing else is said."""

    def __init__(self) -> None:
        self.keys: dict[str, str] = {}

    def key(self, case: Case) -> str:
        return self.keys.get(case.name, case.name)

    def program(self, case: Case) -> None:
        return None

    def release(self, case: Case) -> str:
        return "3.13.0"


class Scheduler:
    """Gives each case the outcomes that it was told of, in order; the last one for ever."""

    here = True

    def __init__(self) -> None:
        self.gives: dict[str, list[Any]] = {}
        self.ran: list[str] = []
        self.fresh: list[str] = []
        self.stop_after: int | None = None

    def run(self, jobs: Sequence[NightJob], watcher: Hearer) -> None:
        for order in [job.order for job in jobs if job.order.what == "case"]:
            if self.stop_after == len(self.ran):
                raise Stopped
            watcher.began(order, "here")
            watcher.done(self._outcome(order))

    def _outcome(self, order: Order) -> CaseOutcome:
        self.ran.append(order.case.name)
        if order.fresh:
            self.fresh.append(order.case.name)
        elif not self.here and order.case.name in order.known:
            return CaseOutcome(case=order.case.name, result=None, key=order.case.name, reused=True)
        gives = self.gives.get(order.case.name, [""])
        what = gives.pop(0) if len(gives) > 1 else gives[0]
        if isinstance(what, CaseOutcome):
            return what
        return outcome(order.case, what, key=order.case.name)


class Desk:
    """Nights on one history."""

    def __init__(self, directory: Path, history: History) -> None:
        (directory / "nightly.toml").write_text(
            '[matrix]\nmodels = ["llama:tiny"]\ntargets = ["llvm-cpu"]\n'
        )
        self.nightly = config.read(directory / "nightly.toml")
        self.directory = directory
        self.history = history
        self.scheduler = Scheduler()
        self.keys = Keyring()
        self.watcher = Quiet()
        self.expected: list[Expectation] = []
        self.notes: list[str] = []
        self.isolated: list[str] = []
        self.asked: list[tuple[str, str]] = []
        self.cases: tuple[Case, ...] = CASES

    def isolate(self, orders: isolation.Orders, scratch: Path, seconds: float) -> Bisection:
        assert scratch.is_dir() and seconds > 0
        assert orders.result.failure is not None
        self.isolated.append(orders.result.failure.signature)
        made = Reproducer(
            path=orders.place,
            ops=1,
            op_names=("torch.aten.mm",),
            bytes=10,
            minimal=True,
            verified=True,
            oracle_calls=3,
            seconds=1.0,
            levels=("mlir",),
        )
        found = Found(failure=orders.result.failure, reproducer=made)
        return Bisection(status="isolated", failures=(found,))

    def ask(self, asked: Inquiry, scratch: Path) -> Finding:
        assert scratch.is_dir() and asked.seconds > 0
        self.asked.append((asked.question, asked.case.name))
        return Finding(question=asked.question, said=f"{asked.question} told")

    def night(self, *, fresh: bool = False, unused: Sequence[Expectation] = ()) -> NightReport:
        self.scheduler.ran, self.scheduler.fresh = [], []
        self.isolated, self.asked = [], []
        night = Night(
            self.nightly,
            self.cases,
            self.history,
            self.scheduler,
            self.watcher,  # type: ignore[arg-type]
            NightOptions(
                keys=self.keys,  # type: ignore[arg-type]
                artifacts=self.directory / "reproducers",
                expectations=self.expected,
                unused=unused,
                fresh=fresh,
                notes=self.notes,
                isolate=self.isolate,
                ask=self.ask,
            ),
        )
        return night.run()

    def set(self, **settings: Any) -> None:
        """Other [schedule] and [bisect] settings."""
        changed = msgspec.structs.replace(self.nightly.config, **settings)
        self.nightly = msgspec.structs.replace(self.nightly, config=changed)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with History(tmp_path / "history.db") as history:
        yield Desk(tmp_path, history)


def verdicts(report: NightReport) -> list[str]:
    return [row.verdict for row in report.rows]


class TestReuse:
    def test_what_is_unchanged_is_not_run_again(self, desk: Desk) -> None:
        assert verdicts(desk.night()) == ["pass"] * 3
        second = desk.night()
        assert desk.scheduler.ran == []
        assert (verdicts(second), second.reused) == (["pass"] * 3, 3)
        assert second.title.endswith("nothing new in 3 cases")

    def test_what_has_another_key_is_run(self, desk: Desk) -> None:
        desk.night()
        desk.keys.keys = {CASES[1].name: "another driver"}
        report = desk.night()
        assert desk.scheduler.ran == [CASES[1].name]
        assert report.reused == 2

    def test_what_cannot_have_a_key_is_run(self, desk: Desk) -> None:
        desk.night()
        desk.keys.keys = {CASES[2].name: ""}
        desk.night()
        assert desk.scheduler.ran == [CASES[2].name]

    def test_workers_elsewhere_find_out_what_is_unchanged(self, desk: Desk) -> None:
        desk.scheduler.here = False
        assert desk.night().reused == 0
        second = desk.night()
        assert len(desk.scheduler.ran) == 3
        assert (verdicts(second), second.reused) == (["pass"] * 3, 3)

    def test_a_known_key_that_a_worker_meets_is_not_run(self, desk: Desk) -> None:
        desk.night()
        name = CASES[0].name
        desk.keys.keys = {name: ""}  # not in the store here, and traced anew by the worker
        met = CaseOutcome(case=name, result=None, key=name, reused=True)
        desk.scheduler.gives[name] = [met]
        report = desk.night()
        assert report.reused == 3
        assert report.rows[0].outcome is not None and report.rows[0].outcome.status == "ok"

    def test_fresh_runs_everything_anew(self, desk: Desk) -> None:
        desk.night()
        desk.night(fresh=True)
        assert desk.scheduler.fresh == [c.name for c in CASES]


class TestGoingOn:
    def test_a_stopped_night_goes_on_with_what_is_missing(self, desk: Desk) -> None:
        desk.scheduler.stop_after = 2
        with pytest.raises(Stopped):
            desk.night()
        desk.scheduler.stop_after = None
        report = desk.night()
        assert desk.scheduler.ran == [CASES[2].name]
        assert verdicts(report) == ["pass"] * 3
        assert len(desk.history.runs()) == 1

    def test_a_doubted_failure_is_run_again_after_a_stop(self, desk: Desk) -> None:
        desk.scheduler.gives = {CASES[0].name: [FAILS]}
        desk.scheduler.stop_after = 3
        with pytest.raises(Stopped):
            desk.night()
        desk.scheduler.stop_after = None
        report = desk.night()
        assert desk.scheduler.ran == [CASES[0].name]
        assert verdicts(report) == ["new failure", "pass", "pass"]

    def test_another_matrix_is_another_night(self, desk: Desk) -> None:
        desk.scheduler.stop_after = 1
        with pytest.raises(Stopped):
            desk.night()
        desk.scheduler.stop_after = None
        desk.cases = CASES[:2]
        desk.night(fresh=True)
        assert len(desk.scheduler.ran) == 2
        assert len(desk.history.runs()) == 2


class TestDoubts:
    def test_a_new_failure_is_run_again_compile_included(self, desk: Desk) -> None:
        desk.scheduler.gives = {CASES[0].name: [FAILS]}
        report = desk.night()
        assert desk.scheduler.fresh == [CASES[0].name]
        assert verdicts(report) == ["new failure", "pass", "pass"]

    def test_one_that_passes_the_second_time_is_flaky(self, desk: Desk) -> None:
        desk.scheduler.gives = {CASES[0].name: [FAILS, ""]}
        report = desk.night()
        assert verdicts(report) == ["flaky", "pass", "pass"]
        assert report.rows[0].outcome is not None
        assert report.rows[0].outcome.attempts == ("failed", "ok")
        assert report.rows[0].outcome.failure == FAILS

    def test_an_error_of_the_source_is_not_run_again(self, desk: Desk) -> None:
        written = diagnostics.trace_failure("SyntaxError", "invalid syntax (net.py, line 3)")
        desk.scheduler.gives = {CASES[0].name: [written]}
        report = desk.night()
        assert desk.scheduler.fresh == []
        assert verdicts(report)[0] == "new failure"

    def test_the_same_failure_is_not_run_again(self, desk: Desk) -> None:
        desk.scheduler.gives = {CASES[0].name: [FAILS]}
        desk.night()
        report = desk.night(fresh=True)
        assert desk.scheduler.ran == [c.name for c in CASES]
        assert (verdicts(report)[0], report.news) == ("same failure", ())

    def test_no_rerun_where_none_is_wanted(self, desk: Desk) -> None:
        desk.set(schedule=config.Schedule(reruns=0))
        desk.scheduler.gives = {CASES[0].name: [FAILS, ""]}
        assert verdicts(desk.night())[0] == "new failure"

    def test_an_expected_failure_is_no_news_and_not_run_again(self, desk: Desk) -> None:
        desk.expected = [
            Expectation(case=CASES[0].name, signature="crash/SIGSEGV/here/1", reason="known")
        ]
        desk.scheduler.gives = {CASES[0].name: [FAILS]}
        report = desk.night()
        assert desk.scheduler.ran == [c.name for c in CASES]
        assert (verdicts(report)[0], report.news, desk.isolated) == ("fail", (), [])


class TestIsolation:
    def test_one_reproducer_for_all_cases_of_a_signature(self, desk: Desk) -> None:
        desk.scheduler.gives = {CASES[0].name: [FAILS], CASES[1].name: [FAILS]}
        report = desk.night()
        assert desk.isolated == ["crash/SIGSEGV/here/1"]
        places = {row.judgement.reproducer for row in report.news if row.judgement}
        assert places == {str(desk.directory / "reproducers" / "crash-SIGSEGV-here-1")}
        kept = desk.history.artifacts(report.run.id)
        assert [a.case for a in kept] == [CASES[0].name, CASES[1].name]

    def test_the_same_failure_keeps_its_reproducer_while_it_is_there(self, desk: Desk) -> None:
        desk.scheduler.gives = {CASES[0].name: [FAILS]}
        place = desk.directory / "reproducers" / "crash-SIGSEGV-here-1"
        place.mkdir(parents=True)
        desk.night()
        kept = [row.judgement.reproducer for row in desk.night().rows if row.judgement]
        assert kept == [str(place), "", ""]
        place.rmdir()
        kept = [row.judgement.reproducer for row in desk.night().rows if row.judgement]
        assert kept == ["", "", ""]

    def test_a_changed_failure_is_isolated_too(self, desk: Desk) -> None:
        desk.scheduler.gives = {CASES[0].name: [FAILS]}
        desk.night()
        desk.scheduler.gives = {CASES[0].name: [OTHER]}
        report = desk.night(fresh=True)
        assert verdicts(report)[0] == "changed failure"
        assert desk.isolated == ["crash/SIGSEGV/there/2"]

    def test_nothing_known_or_flaky_is_isolated(self, desk: Desk) -> None:
        desk.scheduler.gives = {CASES[0].name: [FAILS, ""], CASES[1].name: [OTHER]}
        desk.night()
        assert desk.isolated == ["crash/SIGSEGV/there/2"]
        desk.scheduler.gives = {CASES[1].name: [OTHER]}
        desk.night(fresh=True)
        assert desk.isolated == []

    def test_the_budget_ends_it(self, desk: Desk) -> None:
        desk.set(bisect=config.TimeBudget(budget=1e-9))
        desk.scheduler.gives = {CASES[0].name: [FAILS], CASES[2].name: [OTHER]}
        report = desk.night()
        assert desk.isolated == ["crash/SIGSEGV/here/1"]
        assert [bool(row.judgement and row.judgement.reproducer) for row in report.news] == [
            True,
            False,
        ]

    def test_a_case_that_is_not_to_be_isolated_is_not(self, desk: Desk) -> None:
        desk.cases = (case("a:tiny", bisect=False),)
        desk.scheduler.gives = {desk.cases[0].name: [FAILS]}
        desk.night()
        assert desk.isolated == []


class TestFindings:
    def test_what_was_answered_is_kept_with_the_failure_and_not_asked_again(
        self, desk: Desk
    ) -> None:
        desk.scheduler.gives = {CASES[0].name: [FAILS]}
        first = desk.night()
        assert ("releases", CASES[0].name) in desk.asked
        second = desk.night(fresh=True)
        assert (verdicts(second)[0], desk.asked) == ("same failure", [])
        assert first.rows[0].findings == second.rows[0].findings
        assert ("releases", "releases told") in second.rows[0].findings

    def test_notes_of_a_night_are_told_again(self, desk: Desk) -> None:
        desk.notes = ["2 cases left out (vulkan): too slow there"]
        desk.night()
        told = report.of(desk.history, desk.history.run())
        assert told.notes == tuple(desk.notes)


class TestReleases:
    def test_one_that_was_not_compared_is_no_good_neighbour_of_wrong_numbers(
        self, desk: Desk
    ) -> None:
        wrong = failure("mismatch/values", kind="mismatch", phase="compare")
        desk.cases = tuple(case("a:tiny", release=r) for r in ("3.11.0", "3.12.0", "3.13.0"))
        results = {
            "3.11.0": result(release="3.11.0"),
            "3.12.0": result(release="3.12.0", status="ran", why="ran, not compared: no reference"),
            "3.13.0": result(wrong, release="3.13.0"),
        }
        desk.scheduler.gives = {c.name: [outcome(c, result=results[c.release])] for c in desk.cases}
        assert "3.13.0 fails, 3.11.0 passes" in desk.night().rows[2].why

    def test_the_releases_around_a_failure_are_named(self, desk: Desk) -> None:
        desk.cases = tuple(case("a:tiny", release=r) for r in ("3.11.0", "3.12.0", "3.13.0"))
        desk.scheduler.gives = {
            c.name: [
                outcome(c, result=result(FAILS if c.release == "3.12.0" else "", release=c.release))
            ]
            for c in desk.cases
        }
        report = desk.night()
        (news,) = report.news
        assert news.why.endswith("3.12.0 fails, 3.11.0 passes; 3.12.0 fails, 3.13.0 passes")

    def test_a_release_that_could_not_be_tried_says_nothing(self, desk: Desk) -> None:
        desk.cases = tuple(case("a:tiny", release=r) for r in ("3.11.0", "3.12.0"))
        older, newer = desk.cases
        desk.scheduler.gives = {
            older.name: [CaseOutcome(case=older.name, result=None, why="cannot be installed")],
            newer.name: [outcome(newer, result=result(FAILS, release="3.12.0"))],
        }
        report = desk.night()
        assert verdicts(report) == ["not run", "new failure"]
        assert "3.11.0" not in report.rows[1].why


class TestNotes:
    def test_expectations_of_no_case_and_expired_ones_are_told(self, desk: Desk) -> None:
        from datetime import date

        desk.expected = [
            Expectation(case="gone:tiny | llvm-cpu | installed", signature="x", reason="r"),
            Expectation(case=CASES[0].name, signature="x", reason="r", expires=date(2020, 1, 31)),
        ]
        notes = desk.night(unused=desk.expected[:1]).notes
        assert any("gone:tiny" in note and "no case" in note for note in notes)
        assert any(CASES[0].name in note and "2020-01-31" in note for note in notes)

    def test_what_is_expected_and_has_not_been_so_for_nights_is_told(self, desk: Desk) -> None:
        first, second, third = (one.name for one in CASES)
        desk.scheduler.gives = {second: [FAILS], third: [FAILS]}
        started = desk.night().run.begun[:10]
        for name in (first, second, third):
            signature = FAILS.signature if name == third else OTHER.signature
            desk.expected.append(Expectation(case=name, signature=signature, reason="r"))
        desk.expected.append(Expectation(case=f"{first[:2]}*", signature="x", reason="r"))
        for _ in range(2):
            report = desk.night(fresh=True)
            passes, fails = report.notes
            assert passes.startswith(
                f"{first} is expected to fail, but passes since {started}: remove"
            )
            says = f"{second} is expected to fail with {OTHER.signature}"
            says += f", but fails with {FAILS.signature}"
            assert fails.startswith(f"{says} since {started}: bring it up to date with iree-pilot")
            assert passes.endswith(report.accept) and fails.endswith(report.accept)
        desk.expected = desk.expected[2:]
        assert (desk.night().accept, desk.night().notes) == ("", ())

    def test_a_reason_is_asked_for_what_is_added_only(self, desk: Desk) -> None:
        first, second, _ = (one.name for one in CASES)
        desk.expected = [Expectation(case=first, signature=FAILS.signature, reason="r")]
        desk.scheduler.gives = {first: [FAILS]}
        assert desk.night().accept == ""
        desk.scheduler.gives = {}
        mended = desk.night(fresh=True)
        assert verdicts(mended)[0] == "fixed"
        assert (mended.accept, mended.removes) == ("iree-pilot nightly expect --accept", True)
        desk.scheduler.gives = {second: [FAILS]}
        more = desk.night(fresh=True)
        assert " --reason 'known since " in more.accept and not more.removes
