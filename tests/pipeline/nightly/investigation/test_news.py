"""What is found out about new failures: in which order, within which time, kept for how long."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from fake.nights import case, failure, night, outcome

from iree_pilot.pipeline.nightly.cases import config
from iree_pilot.pipeline.nightly.history.history import History
from iree_pilot.pipeline.nightly.investigation import isolation
from iree_pilot.pipeline.nightly.investigation.alone import Unfinished
from iree_pilot.pipeline.nightly.investigation.inquiry import Inquiry
from iree_pilot.pipeline.nightly.investigation.news import News
from iree_pilot.pipeline.nightly.records import Finding, Judgement, Verdict
from iree_pilot.pipeline.nightly.reports import report
from iree_pilot.pipeline.nightly.reports.junit import junit
from iree_pilot.pipeline.nightly.reports.markdown import markdown
from iree_pilot.pipeline.nightly.reports.report import NightReport
from iree_pilot.repro.bisect import Bisection, Found, Reproducer

FAILS, OTHER = failure("crash/SIGSEGV/here/1"), failure("crash/SIGSEGV/there/2")
A, B, C = case("a:tiny"), case("a:tiny", "vulkan"), case("b:tiny")
TIME_IS_UP = 1e-9


class Quiet:
    """Hears everything and does nothing."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *facts: None


class Desk:
    """News on one history; what is isolated and asked, in order."""

    def __init__(self, directory: Path, history: History) -> None:
        (directory / "nightly.toml").write_text('[matrix]\nmodels = ["a"]\ntargets = ["llvm-cpu"]')
        self.nightly = config.read(directory / "nightly.toml")
        self.directory, self.history = directory, history
        self.did: list[tuple[str, str]] = []
        self.inquiries: list[Inquiry] = []
        self.isolates: bool | Unfinished = True
        self.attributes = ""
        self.says: dict[str, Finding] = {}
        self.nights = 0

    def isolate(self, orders: isolation.Orders, scratch: Path, seconds: float) -> Bisection:
        why = orders.result.failure
        assert why is not None
        self.did.append(("isolate", why.signature))
        if isinstance(self.isolates, Unfinished):
            raise self.isolates
        if not self.isolates:
            return Bisection(status="gave-up", why="it does not fail by itself")
        Path(orders.place).mkdir(parents=True, exist_ok=True)
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
            not_iree=self.attributes,
        )
        return Bisection(status="isolated", failures=(Found(failure=why, reproducer=made),))

    def ask(self, asked: Inquiry, scratch: Path) -> Finding:
        assert asked.result.failure is not None
        self.did.append((asked.question, asked.result.failure.signature))
        self.inquiries.append(asked)
        plain = Finding(question=asked.question, said=f"told of {asked.question}")
        return self.says.get(asked.question, plain)

    def set(self, **settings: Any) -> None:
        changed = msgspec.structs.replace(self.nightly.config, **settings)
        self.nightly = msgspec.structs.replace(self.nightly, config=changed)

    def night(self, *shown: tuple[Any, Any, Verdict]) -> NightReport:
        """A night with (case, failure, verdict) of each; as it is told afterwards."""
        self.did, self.inquiries = [], []
        found = [
            outcome(c, why, program="" if why.phase == "trace" else c.program)
            for c, why, _ in shown
        ]
        run = night(
            self.history, found, cases=[c for c, _, _ in shown], number=self.nights, finish=False
        )
        self.nights += 1
        judgements = [
            Judgement(case=c.name, verdict=verdict, signature=why.signature)
            for c, why, verdict in shown
        ]
        news = News(
            self.nightly,
            self.history,
            Quiet(),  # type: ignore[arg-type]
            self.directory / "reproducers",
            isolate=self.isolate,
            ask=self.ask,
        )
        cases = {c.name: c for c, _, _ in shown}
        outcomes = {o.case: o for o in found}
        self.history.finish(run.id, news.look_into(run.id, cases, outcomes, judgements))
        return report.of(self.history, self.history.run(run.id))


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with History(tmp_path / "history.db") as history:
        yield Desk(tmp_path, history)


def findings(told: NightReport, row: int = 0) -> Sequence[tuple[str, str]]:
    return told.rows[row].findings


def test_a_case_that_is_fixed_repeats_nothing_of_its_old_failure() -> None:
    found = (Finding(question="releases", said="told of releases"),)
    judgement = Judgement(case=A.name, verdict="fixed", signature="", findings=found)
    row = report.CaseRow(case=A, outcome=None, judgement=judgement)
    assert row.findings == ()
    failed = msgspec.structs.replace(judgement, verdict="new failure")
    assert msgspec.structs.replace(row, judgement=failed).findings != ()


class TestOrder:
    def test_all_are_isolated_before_the_first_is_asked_about(self, desk: Desk) -> None:
        desk.set(news=config.NewsConfig(workaround=False))
        desk.night((A, FAILS, "new failure"), (C, OTHER, "changed failure"))
        assert desk.did == [
            ("isolate", "crash/SIGSEGV/here/1"),
            ("isolate", "crash/SIGSEGV/there/2"),
            ("releases", "crash/SIGSEGV/here/1"),
            ("releases", "crash/SIGSEGV/there/2"),
        ]

    def test_the_reproducer_is_what_is_asked_about(self, desk: Desk) -> None:
        desk.night((A, FAILS, "new failure"))
        place = desk.directory / "reproducers" / "crash-SIGSEGV-here-1"
        assert {asked.reproducer for asked in desk.inquiries} == {str(place)}

    def test_without_a_reproducer_the_case_is(self, desk: Desk) -> None:
        desk.isolates = False
        told = desk.night((A, FAILS, "new failure"))
        assert {asked.reproducer for asked in desk.inquiries} == {""}
        assert ("not isolated", "it does not fail by itself") in findings(told)

    def test_one_signature_is_looked_into_once_and_told_of_all_its_cases(self, desk: Desk) -> None:
        told = desk.night((A, FAILS, "same failure"), (B, FAILS, "new failure"))
        assert [what for what, _ in desk.did].count("releases") == 1
        assert {asked.case.name for asked in desk.inquiries} == {B.name}
        assert findings(told, 0) == findings(told, 1) != ()

    def test_wrong_numbers_are_looked_into_once_for_each_program(self, desk: Desk) -> None:
        desk.set(news=config.NewsConfig(workaround=False))
        wrong = failure("mismatch/values/1", kind="mismatch", phase="compare")
        news: Verdict = "new failure"
        first = desk.night((A, wrong, news), (B, wrong, news))
        assert desk.did == [("isolate", wrong.signature), ("releases", wrong.signature)]
        second = desk.night((A, wrong, "fail"), (C, wrong, news))
        assert desk.did == [("isolate", wrong.signature), ("releases", wrong.signature)]
        assert desk.inquiries[0].case.name == C.name
        assert findings(first) == findings(second) == findings(second, 1) != ()
        places = {row.judgement.reproducer for row in second.rows if row.judgement}
        assert len(places) == 2, "one does not take the other's place"
        desk.isolates = False
        third = desk.night((C, wrong, "fail"), (case("d:tiny"), wrong, news))
        places = [row.judgement.reproducer for row in third.rows if row.judgement]
        assert places[0] and not places[1], "what shows one of them does not show the other"

    def test_a_failure_to_trace_is_isolated_only(self, desk: Desk) -> None:
        desk.night((A, failure("trace-error/x", phase="trace"), "new failure"))
        assert desk.did == [("isolate", "trace-error/x")]

    @pytest.mark.parametrize(
        "signature",
        [
            "trace-error/GuardOnDataDependentSymNode/could-not-guard-on-data-dependent/1",
            "timeout/trace/1",
        ],
    )
    def test_models_that_do_not_trace_are_isolated_each(self, desk: Desk, signature: str) -> None:
        guard = failure(signature, phase="trace", kind="trace-error")
        desk.isolates = False
        told = desk.night((A, guard, "new failure"), (C, guard, "new failure"))
        assert desk.did == [("isolate", signature), ("isolate", signature)]
        again = desk.night((A, guard, "fail"), (C, guard, "fail"))
        assert desk.did == [], "what was answered is kept for each"
        assert findings(told) == findings(again) and findings(told, 1) == findings(again, 1)

    def test_whose_failure_it_is_comes_of_isolating_it(self, desk: Desk) -> None:
        desk.attributes = "PyTorch, not IREE: torch.export alone rejects the model"
        first = desk.night((A, failure("trace-error/x", phase="trace"), "new failure"))
        again = desk.night((A, failure("trace-error/x", phase="trace"), "same failure"))
        assert desk.did == [], "it is not isolated again"
        assert findings(first) == findings(again) == (("attribution", desk.attributes),)
        assert f"- attribution: `{desk.attributes}`" in markdown(first)
        assert f"attribution: {desk.attributes}" in junit(first)

    def test_what_is_known_or_mended_is_left_alone(self, desk: Desk) -> None:
        desk.night((A, FAILS, "same failure"), (B, OTHER, "fail"))
        assert desk.did == []

    @pytest.mark.parametrize("off", ["isolate", "releases", "workaround"])
    def test_what_is_switched_off_is_not_done(self, desk: Desk, off: str) -> None:
        desk.set(news=config.NewsConfig(**{off: False}))  # type: ignore[arg-type]
        desk.night((A, FAILS, "new failure"))
        assert off not in [what for what, _ in desk.did]
        assert desk.did != []

    def test_a_case_that_is_not_to_be_looked_into_is_not(self, desk: Desk) -> None:
        desk.night((case("a:tiny", bisect=False), FAILS, "new failure"))
        assert desk.did == []


class TestTime:
    @pytest.mark.parametrize("verdict", ["same failure", "fail"])
    def test_what_there_was_no_time_for_is_told_and_done_the_next_night(
        self, desk: Desk, verdict: Verdict
    ) -> None:
        desk.set(news=config.NewsConfig(budget=TIME_IS_UP, workaround=False))
        first = desk.night((A, FAILS, "new failure"), (C, OTHER, "new failure"))
        assert ("releases", "crash/SIGSEGV/there/2") not in desk.did
        (note,) = first.notes
        assert "for lack of time" in note and "releases of crash/SIGSEGV/there/2" in note
        desk.set(news=config.NewsConfig(workaround=False))
        second = desk.night((A, FAILS, verdict), (C, OTHER, verdict))
        assert desk.did == [("releases", "crash/SIGSEGV/there/2")]
        assert second.notes == ()
        assert findings(second, 1) == (("releases", "told of releases"),)

    def test_nothing_is_promised_that_the_configuration_switched_off(self, desk: Desk) -> None:
        desk.set(news=config.NewsConfig(budget=TIME_IS_UP, workaround=False))
        desk.night((A, FAILS, "new failure"), (C, OTHER, "new failure"))
        desk.set(news=config.NewsConfig(releases=False, workaround=False))
        second = desk.night((C, OTHER, "same failure"))
        assert findings(second) == (("releases", "not looked for yet: [news] releases = false"),)
        assert second.notes == ()
        desk.set(news=config.NewsConfig(workaround=False))
        third = desk.night((C, OTHER, "same failure"))
        assert findings(third) == (("releases", "told of releases"),)

    @pytest.mark.parametrize(
        ("budget", "limits"),
        [("1s", ("budget",)), ("10min", ("budget", "each")), ("20min", ("each",))],
    )
    def test_a_question_knows_which_setting_limits_it(
        self, desk: Desk, budget: str, limits: tuple[str, ...]
    ) -> None:
        desk.set(news=config.NewsConfig(budget=budget, each="10min", workaround=False))
        desk.night((A, FAILS, "new failure"))
        (asked,) = desk.inquiries
        assert asked.limits == limits

    def test_so_is_an_isolation(self, desk: Desk) -> None:
        desk.set(bisect=config.TimeBudget(budget=TIME_IS_UP))
        first = desk.night((A, FAILS, "new failure"), (C, OTHER, "new failure"))
        assert any("isolate of crash/SIGSEGV/there/2" in note for note in first.notes)
        desk.set(bisect=config.TimeBudget())
        second = desk.night((C, OTHER, "same failure"))
        assert ("isolate", "crash/SIGSEGV/there/2") in desk.did
        assert second.rows[0].judgement is not None and second.rows[0].judgement.reproducer
        assert "not isolated" not in dict(findings(second))

    def test_a_search_that_time_ended_goes_on_and_one_that_died_does_not(self, desk: Desk) -> None:
        desk.isolates = Unfinished("not within 600 s", late=True)
        first = desk.night((A, FAILS, "new failure"))
        assert "not within 600 s; the next night resumes" in dict(findings(first))["not isolated"]
        desk.isolates = Unfinished("SIGSEGV", late=False)
        desk.night((A, FAILS, "same failure"))
        assert ("isolate", "crash/SIGSEGV/here/1") in desk.did
        desk.night((A, FAILS, "same failure"))
        assert desk.did == []

    def test_one_question_gets_no_more_than_its_time(self, desk: Desk) -> None:
        desk.set(news=config.NewsConfig(each="90s"))
        desk.night((A, FAILS, "new failure"))
        assert all(asked.seconds == 90 for asked in desk.inquiries)


class TestKept:
    def test_an_answer_is_told_every_night_and_not_asked_again(self, desk: Desk) -> None:
        first = desk.night((A, FAILS, "new failure"))
        second = desk.night((A, FAILS, "fail"))
        assert desk.did == []
        assert findings(first) == findings(second) != ()

    def test_a_failure_that_comes_back_is_isolated_anew_and_keeps_its_answers(
        self, desk: Desk
    ) -> None:
        desk.night((A, FAILS, "new failure"))
        desk.night((A, FAILS, "changed failure"))
        assert desk.did == [("isolate", "crash/SIGSEGV/here/1")]

    def test_what_kept_an_answer_from_being_better_is_noted_once(self, desk: Desk) -> None:
        note = "cannot ask pip: using the releases that are installed"
        desk.says["releases"] = Finding(question="releases", said="since 3.12.0", note=note)
        told = desk.night((A, FAILS, "new failure"), (C, OTHER, "new failure"))
        assert told.notes == (note,)


class TestTold:
    @pytest.fixture
    def told(self, desk: Desk) -> NightReport:
        said = "since 3.12.0 (3.11.0 passes, commits 1a2b to 3c4d)"
        desk.says["releases"] = Finding(question="releases", said=said, details={"compiles": 6})
        return desk.night((A, FAILS, "new failure"), (C, OTHER, "same failure"))

    def test_in_markdown(self, told: NightReport) -> None:
        assert "- releases: `since 3.12.0 (3.11.0 passes, commits 1a2b to 3c4d)`" in markdown(told)

    def test_in_markdown_of_what_fails_as_before(self, desk: Desk, told: NightReport) -> None:
        again = markdown(desk.night((A, FAILS, "same failure")))
        (line,) = (line for line in again.splitlines() if line.startswith("| a:tiny \\|"))
        assert "since 3.12.0" in line

    def test_in_junit(self, told: NightReport) -> None:
        assert "releases: since 3.12.0" in junit(told)

    def test_in_json_with_all_that_was_found(self, told: NightReport) -> None:
        document = msgspec.json.decode(msgspec.json.encode(told))
        found = document["rows"][0]["judgement"]["findings"]
        assert found[0]["details"] == {"compiles": 6}
