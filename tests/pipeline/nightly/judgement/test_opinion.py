"""What is thought of a case: each verdict, told once, and nothing told that is not news."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any, ClassVar

import msgspec
import pytest
from fake.nights import case, failure, outcome, result
from hypothesis import given
from hypothesis import strategies as st

from iree_pilot.pipeline.failures.diagnostics import Failure
from iree_pilot.pipeline.nightly.history.history import Past
from iree_pilot.pipeline.nightly.judgement.expectations import Expectation
from iree_pilot.pipeline.nightly.judgement.opinion import judge, unsettled
from iree_pilot.pipeline.nightly.records import CaseOutcome, Judgement

CASE = case().name
ABSENT = "compiled, not run: no HIP device"
LINK = "https://example.org/7"


class Nights:
    """A case's nights one after the other, each judged in view of those before it."""

    def __init__(self) -> None:
        self.past: list[Past] = []

    def night(self, why: Failure | str = "", *expected: Expectation, **fields: Any) -> Judgement:
        """The next night: a failure, "" for a pass, or why it could only be compiled."""
        return self.told(outcome(why=why, **fields), *expected)

    def told(self, tonight: CaseOutcome, *expected: Expectation) -> Judgement:
        number = len(self.past)
        started = f"2026-{1 + number // 28:02}-{1 + number % 28:02}T02:00:00+00:00"
        judgement = judge(tonight, self.past, expected, started)
        assert judgement.case == tonight.case
        found = tonight.failure
        self.past.insert(
            0,
            Past(
                run=number + 1,
                begun=started,
                status=tonight.status,
                kind=found.kind if found else "",
                phase=(found.phase or "") if found else "",
                signatures=(found.signature, *(f.signature for f in found.also)) if found else (),
                verdict=judgement.verdict,
                ran=tonight.result is not None,
                reused=tonight.reused,
                machine=tonight.machine,
                metrics=tonight.metrics,
                program=tonight.program,
                files=msgspec.json.encode(tonight.files).decode(),
            ),
        )
        return judgement

    def verdicts(self, *whys: Failure | str) -> list[str]:
        return [self.night(why).verdict for why in whys]


@pytest.fixture
def nights() -> Nights:
    return Nights()


def expect(signature: str, name: str = CASE, **fields: Any) -> Expectation:
    return Expectation(case=name, signature=signature, reason="we know", **fields)


A, B = failure("a"), failure("b")


class TestFailures:
    def test_a_first_failure_is_new(self, nights: Nights) -> None:
        told = nights.night(A)
        assert (told.verdict, told.signature, told.news) == ("new failure", "a", True)
        assert told.since == "2026-01-01T02:00:00+00:00"
        assert told.why == "it was never run before"

    def test_a_failure_after_a_pass_is_new(self, nights: Nights) -> None:
        assert nights.verdicts("", A) == ["pass", "new failure"]
        assert nights.night("").verdict == "fixed"
        assert nights.night(A).why == "it passed on 2026-01-03"

    def test_the_next_night_it_is_the_same_and_no_news(self, nights: Nights) -> None:
        nights.verdicts("", A)
        for _ in range(3):
            told = nights.night(A)
            assert (told.verdict, told.news) == ("same failure", False)
            assert told.since == "2026-01-02T02:00:00+00:00"

    def test_another_signature_is_a_changed_failure_once(self, nights: Nights) -> None:
        nights.verdicts(A, A)
        told = nights.night(B)
        assert (told.verdict, told.signature, told.news) == ("changed failure", "b", True)
        assert told.why == "last night it was a"
        assert nights.verdicts(B) == ["same failure"]

    def test_signatures_that_alternate_are_told_once_each(self, nights: Nights) -> None:
        assert nights.verdicts(A, B, A, B, A) == [
            "new failure",
            "changed failure",
            "same failure",
            "same failure",
            "same failure",
        ]
        assert nights.past[0].begun > nights.night(A).since == "2026-01-01T02:00:00+00:00"

    def test_after_a_pass_an_old_signature_is_new_again(self, nights: Nights) -> None:
        assert nights.verdicts(A, "", A) == ["new failure", "fixed", "new failure"]

    def test_which_of_several_failures_comes_first_does_not_matter(self, nights: Nights) -> None:
        assert nights.verdicts(failure("a", "b"), failure("b", "a")) == [
            "new failure",
            "same failure",
        ]

    def test_a_further_failure_that_comes_first_is_a_change(self, nights: Nights) -> None:
        assert nights.verdicts(A, failure("b", "a"))[1] == "changed failure"

    @pytest.mark.parametrize("kind", ["timeout", "out-of-memory"])
    def test_a_limit_may_strike_in_any_phase(self, nights: Nights, kind: Any) -> None:
        found = [failure(f"{kind}/{p}", kind=kind, phase=p) for p in ("flow", "hal", "run")]
        assert nights.verdicts(*found) == ["new failure", "same failure", "changed failure"]

    def test_a_fixed_case_tells_what_it_was_and_since_when(self, nights: Nights) -> None:
        nights.verdicts("", A, A, B)
        told = nights.night("")
        assert (told.verdict, told.signature, told.news) == ("fixed", "b", True)
        assert told.since == "2026-01-02T02:00:00+00:00"
        assert nights.verdicts("", "") == ["pass", "pass"]


class TestDevices:
    """A night without the device says nothing of what happens on it."""

    ON_DEVICE = failure("mismatch/values", kind="mismatch", phase="compare")

    def test_what_can_only_be_compiled_does_not_pass_and_says_so(self, nights: Nights) -> None:
        told = nights.night(ABSENT)
        assert (told.verdict, told.why, told.news) == ("compiled", ABSENT, False)

    def test_a_failure_on_the_device_is_not_fixed_without_it(self, nights: Nights) -> None:
        nights.night(self.ON_DEVICE)
        for _ in range(2):
            told = nights.night(ABSENT)
            assert (told.verdict, told.signature) == ("compiled", "mismatch/values")
            assert told.why == f"{ABSENT}; on the device it failed last"
        assert nights.night(self.ON_DEVICE).verdict == "same failure"
        nights.night(ABSENT)
        assert nights.night("").verdict == "fixed"

    def test_a_failure_of_the_compiler_is_fixed_without_it(self, nights: Nights) -> None:
        assert nights.verdicts(A, ABSENT, ABSENT, "") == [
            "new failure",
            "fixed",
            "compiled",
            "pass",
        ]

    def test_a_failure_to_compile_after_compiling_is_new(self, nights: Nights) -> None:
        assert nights.verdicts(self.ON_DEVICE, ABSENT, A)[2] == "new failure"

    def test_an_expected_failure_on_the_device_is_not_fixed_without_it(
        self, nights: Nights
    ) -> None:
        known = expect("mismatch/values")
        assert nights.night(ABSENT, known).verdict == "compiled"
        assert nights.night(self.ON_DEVICE, known).verdict == "fail"
        assert nights.night(ABSENT, known).verdict == "compiled"


class TestNotCompared:
    """What ran without being compared proves nothing of the numbers, and all that comes before."""

    WRONG = failure("mismatch/values", kind="mismatch", phase="compare")
    CRASH = failure("runtime-error/x", kind="runtime-error", phase="run")

    def ran(self, nights: Nights, *expected: Expectation) -> Judgement:
        why = "ran, not compared: there is no reference"
        return nights.told(outcome(result=result(status="ran", why=why)), *expected)

    def test_it_does_not_pass_and_says_why(self, nights: Nights) -> None:
        told = self.ran(nights)
        assert (told.verdict, told.news) == ("ran", False)
        assert told.why == "ran, not compared: there is no reference"

    def test_a_comparison_that_is_lost_is_told_once(self, nights: Nights) -> None:
        nights.verdicts("", "")
        told = self.ran(nights)
        assert (told.verdict, told.news) == ("comparison lost", True)
        assert told.why.startswith("it passed on 2026-01-02; ran, not compared: ")
        assert self.ran(nights).verdict == "ran"
        assert nights.verdicts(ABSENT, "", ABSENT) == ["compiled", "pass", "comparison lost"]

    def test_wrong_numbers_are_not_fixed_by_not_comparing(self, nights: Nights) -> None:
        nights.night(self.WRONG)
        for _ in range(2):
            told = self.ran(nights)
            assert (told.verdict, told.signature) == ("ran", "mismatch/values")
            assert told.why.endswith("; its numbers were wrong last")
        assert nights.night(self.WRONG).verdict == "same failure"
        self.ran(nights)
        assert nights.verdicts("") == ["fixed"]

    def test_a_failure_to_run_is(self, nights: Nights) -> None:
        nights.night(self.CRASH)
        told = self.ran(nights)
        assert told.verdict == "fixed" and "not compared" in told.why
        assert self.ran(nights).verdict == "ran"
        told = nights.night(self.CRASH)
        assert (told.verdict, told.why) == ("new failure", "it ran on 2026-01-03")

    def test_expected_wrong_numbers_are_not_fixed_by_not_comparing(self, nights: Nights) -> None:
        assert self.ran(nights, expect("mismatch/values")).verdict == "ran"

    def test_a_metric_is_told_of_it_too(self, nights: Nights) -> None:
        ran = result(status="ran", why="no reference")
        for dispatches in (20.0, 20.0, 40.0):
            told = nights.told(outcome(result=ran, metrics={"dispatches": dispatches}))
        assert told.verdict == "bigger"


class TestNotRun:
    def test_its_reason_is_told_and_nothing_is_compared(self, nights: Nights) -> None:
        absent = CaseOutcome(case=CASE, result=None, why="no such release", machine="m")
        nights.verdicts("", A)
        told = nights.told(absent)
        assert (told.verdict, told.why, told.news) == ("not run", "no such release", False)
        assert nights.verdicts(A) == ["same failure"]


class TestFlaky:
    def test_attempts_that_differ_are_flaky_whatever_came_last(self, nights: Nights) -> None:
        told = nights.night("", attempts=("failed", "ok"))
        assert (told.verdict, told.news) == ("flaky", True)
        assert told.why == "2 attempts: failed, ok"
        told = nights.night(A, attempts=("ok", "failed"))
        assert (told.verdict, told.signature) == ("flaky", "a")

    def test_attempts_that_agree_are_not(self, nights: Nights) -> None:
        assert nights.night(A, attempts=("failed", "failed")).verdict == "new failure"

    def test_a_flaky_night_proves_nothing_for_the_next(self, nights: Nights) -> None:
        nights.verdicts("")
        nights.night(A, attempts=("ok", "failed"))
        assert nights.verdicts("", A) == ["pass", "new failure"]

    def test_known_to_be_flaky_it_is_no_news(self, nights: Nights) -> None:
        known = expect("flaky")
        told = nights.night("", known, attempts=("failed", "ok"))
        assert (told.verdict, told.why) == (
            "pass",
            "2 attempts: failed, ok; known to be intermittent: we know",
        )
        assert nights.night(A, known, attempts=("ok", "failed")).verdict == "fail"

    def test_known_to_be_flaky_it_may_not_fail_always(self, nights: Nights) -> None:
        told = nights.night(A, expect("flaky"), attempts=("failed", "failed"))
        assert told.verdict == "new failure"


class TestExpectations:
    def test_an_expected_failure_is_no_news(self, nights: Nights) -> None:
        told = nights.night(A, expect("a", link=LINK))
        assert (told.verdict, told.signature, told.news) == ("fail", "a", False)
        assert told.why == f"expected: we know ({LINK})"

    def test_it_may_be_of_many_cases_and_signatures(self, nights: Nights) -> None:
        assert nights.night(A, expect("*", "llama*")).verdict == "fail"
        assert nights.night(A, expect("b"), expect("a")).verdict == "fail"

    def test_that_of_another_case_does_not_count(self, nights: Nights) -> None:
        assert nights.night(A, expect("a", "gemma*")).verdict == "new failure"

    def test_another_failure_than_the_expected_one_is_changed_once(self, nights: Nights) -> None:
        known = expect("a")
        told = nights.night(B, known)
        assert (told.verdict, told.why) == ("changed failure", "expected is a: we know")
        assert nights.night(B, known).verdict == "same failure"
        assert nights.night(A, known).verdict == "fail"

    def test_an_expected_failure_stays_one_when_another_comes_first(self, nights: Nights) -> None:
        known = expect("a")
        assert nights.night(failure("a", "b"), known).verdict == "fail"
        assert nights.night(failure("b", "a"), known).verdict == "fail"
        assert nights.night(failure("c", "a"), known).verdict == "changed failure"

    @pytest.mark.parametrize(
        ("signature", "verdict"),
        [
            ("timeout/flow", "fail"),
            ("timeout/*", "fail"),
            ("*", "fail"),
            ("out-of-memory/hal", "changed failure"),
        ],
    )
    def test_an_expected_timeout_may_strike_in_any_phase(
        self, nights: Nights, signature: str, verdict: str
    ) -> None:
        found = failure("timeout/hal", kind="timeout", phase="hal")
        assert nights.night(found, expect(signature)).verdict == verdict

    def test_a_known_failure_that_goes_away_is_fixed_once(self, nights: Nights) -> None:
        known = expect("a")
        nights.night(A, known)
        told = nights.night("", known)
        assert (told.verdict, told.signature) == ("fixed", "a")
        for _ in range(2):
            told = nights.night("", known)
            assert told.verdict == "pass"
            assert told.why == "expected to fail, but passes since 2026-01-02: we know"

    def test_with_no_history_an_expected_failure_that_passes_is_fixed(self, nights: Nights) -> None:
        told = nights.night("", expect("a"))
        assert (told.verdict, told.signature) == ("fixed", "a")
        assert told.why == "it was expected to fail: we know"

    def test_a_pattern_says_nothing_of_a_case_that_passes(self, nights: Nights) -> None:
        assert nights.night("", expect("a", "llama*")).verdict == "pass"

    def test_when_it_expires_the_failure_is_news_once_and_says_why(self, nights: Nights) -> None:
        known = expect("a", expires=date(2026, 1, 2))
        assert [nights.night(A, known).verdict for _ in range(2)] == ["fail", "fail"]
        told = nights.night(A, known)
        assert (told.verdict, told.news) == ("new failure", True)
        assert told.why == "expected until 2026-01-02: we know"
        assert told.since == "2026-01-01T02:00:00+00:00"
        assert nights.night(A, known).verdict == "same failure"

    def test_when_it_is_taken_out_the_failure_is_news_once(self, nights: Nights) -> None:
        nights.night(A, expect("a"))
        told = nights.night(A)
        assert (told.verdict, told.why) == ("new failure", "not expected any more")
        assert nights.night(A).verdict == "same failure"


class TestMachines:
    def test_a_case_is_compared_with_its_own_class_of_machine(self, nights: Nights) -> None:
        nights.night("", machine="large")
        assert nights.night(A, machine="small").verdict == "new failure"
        assert nights.night("", machine="large").verdict == "pass"
        assert nights.night(A, machine="small").verdict == "same failure"

    def test_where_there_is_none_of_it_any_machine_counts(self, nights: Nights) -> None:
        nights.night(A, machine="large")
        assert nights.night(A, machine="small").verdict == "same failure"


def measured(nights: Nights, name: str, values: Sequence[float], **fields: Any) -> list[str]:
    """The verdicts of nights with these values; times are never twice the same."""
    jitter = 1e-6 if name.endswith("_seconds") else 0
    return [
        nights.night(metrics={name: value * (1 + jitter * n)}, **fields).verdict
        for n, value in enumerate(values)
    ]


class TestWhetherTheModelChanged:
    """A failure in a program that was changed yesterday is another piece of news."""

    @pytest.mark.parametrize(
        ("program", "files", "said"),
        [
            ("p", {"mlp.py": "1", "w.bin": "1"}, "; the program is the same"),
            (
                "q",
                {"mlp.py": "2", "w.bin": "1"},
                "; since then the model changed (mlp.py, program)",
            ),
            (
                "q",
                {"mlp.py": "1", "w.bin": "1"},
                "; since then the model changed (program, none of its files)",
            ),
            (
                "p",
                {"mlp.py": "1", "w.bin": "2"},
                "; since then the model changed (w.bin), its program did not",
            ),
            (
                "q",
                {"mlp.py": "1", "w.bin": "1", "src/more.py": "1"},
                "; since then the model changed (more.py, program)",
            ),
            (
                "q",
                {"mlp.py": "2", "a": "1", "b": "1", "c": "1", "w.bin": "1"},
                "; since then the model changed (a, b, c, 1 more, program)",
            ),
            ("", {"mlp.py": "2"}, "; since then the model changed (mlp.py)"),
            ("", {"mlp.py": "1"}, ""),
        ],
    )
    def test_is_said_of_a_new_failure(
        self, nights: Nights, program: str, files: dict[str, str], said: str
    ) -> None:
        nights.night(program="p", files={"mlp.py": "1", "w.bin": "1"})
        told = nights.night(A, program=program, files=files)
        assert told.why == f"it passed on 2026-01-01{said}"

    def test_is_said_of_one_that_went_away_and_of_one_that_is_another(self, nights: Nights) -> None:
        nights.night(A, program="p", files={"mlp.py": "1"})
        other = nights.night(B, program="p", files={"mlp.py": "1"})
        assert other.why == "last night it was a; the program is the same"
        fixed = nights.night(program="q", files={"mlp.py": "2"})
        assert fixed.why.endswith("; since then the model changed (mlp.py, program)")

    def test_nights_that_do_not_know_say_nothing(self, nights: Nights) -> None:
        nights.night()
        assert nights.night(A, program="p", files={"mlp.py": "1"}).why == "it passed on 2026-01-01"

    def test_is_said_once_of_one_that_stays(self, nights: Nights) -> None:
        nights.night(A, program="p", files={"mlp.py": "1"})
        told = nights.night(A, program="q", files={"mlp.py": "2"})
        assert (told.verdict, told.news) == ("same failure", False)
        changed = "it failed so on 2026-01-01; since then the model changed (mlp.py, program)"
        assert told.why == changed
        assert nights.night(A, program="q", files={"mlp.py": "2"}).why == ""

    def test_metrics_of_another_program_are_not_compared(self, nights: Nights) -> None:
        nights.night(metrics={"dispatches": 40}, program="p")
        assert nights.night(metrics={"dispatches": 80}, program="q").verdict == "pass"
        told = nights.night(metrics={"dispatches": 90}, program="q")
        assert (told.verdict, told.why) == ("bigger", "dispatches 90, 80 the one time before")


class TestAcceptedOfOneProgram:
    """What was accepted is a failure of a program; another program may fail in another way."""

    WRONG = failure("mismatch/values/902927c2", kind="mismatch", phase="compare")
    OLD: ClassVar[dict[str, Any]] = {"program": "p" * 64, "files": {"head.py": "1"}}
    NEW: ClassVar[dict[str, Any]] = {"program": "q" * 64, "files": {"head.py": "2"}}

    def accepted(self, nights: Nights, found: Failure, **fields: Any) -> Expectation:
        """What expects a failure after the night that showed it in the old program."""
        nights.night(found, **self.OLD)
        return expect(found.signature, model="p" * 16, **fields)

    def test_wrong_numbers_of_another_program_are_news_once(self, nights: Nights) -> None:
        known = self.accepted(nights, self.WRONG)
        assert nights.night(self.WRONG, known, **self.OLD).verdict == "fail"
        told = nights.night(self.WRONG, known, **self.NEW)
        assert (told.verdict, told.news) == ("changed failure", True)
        assert told.why == (
            "expected is mismatch/values/902927c2 of another program: we know; "
            "since then the model changed (head.py, program)"
        )
        assert told.since == "2026-01-03T02:00:00+00:00"
        assert nights.night(self.WRONG, known, **self.NEW).verdict == "same failure"
        assert nights.night(self.WRONG, known, **self.OLD).verdict == "fail"

    @pytest.mark.parametrize(
        "found",
        [
            failure("timeout/flow/1", kind="timeout"),
            failure("crash/SIGSEGV/1", kind="crash"),
            failure("diagnostic/torch.constant/failed-to-legalize-operation/1"),
            failure("diagnostic/no-word-of-an-operation/1"),
        ],
    )
    def test_so_is_all_whose_signature_does_not_say_what_fails(
        self, nights: Nights, found: Failure
    ) -> None:
        known = self.accepted(nights, found)
        assert nights.night(found, known, **self.NEW).verdict == "changed failure"

    @pytest.mark.parametrize(
        "found",
        [
            failure("diagnostic/vector.bitcast/failed-to-legalize-operation/1"),
            failure("crash/SIGSEGV/IntegerAttr.getInt/1", kind="crash"),
        ],
    )
    def test_one_that_says_what_fails_stays_and_the_change_is_said(
        self, nights: Nights, found: Failure
    ) -> None:
        known = self.accepted(nights, found)
        for _ in range(2):
            told = nights.night(found, known, **self.NEW)
            assert (told.verdict, told.news) == ("fail", False)
            assert told.why == (
                "expected: we know; since then the model changed (head.py, program)"
            )

    def test_what_does_not_trace_is_known_by_its_files(self, nights: Nights) -> None:
        found = failure("trace-error/x", kind="trace-error", phase="trace")
        before, after = ({"files": {"head.py": state}} for state in ("1", "2"))
        nights.night(found, **before)
        known = expect(found.signature, model=outcome(why=found, **before).model)
        assert nights.night(found, known, **before).why == "expected: we know"
        told = nights.night(found, known, **after)
        assert told.verdict == "fail"
        assert told.why == "expected: we know; since then the model changed (head.py)"

    def test_a_compiler_alone_makes_no_news(self, nights: Nights) -> None:
        known = self.accepted(nights, self.WRONG)
        upgraded = result(self.WRONG, release="3.14.0")
        told = nights.told(outcome(result=upgraded, **self.OLD), known)
        assert (told.verdict, told.why) == ("fail", "expected: we know")

    def test_a_file_alone_makes_no_news(self, nights: Nights) -> None:
        known = self.accepted(nights, self.WRONG)
        told = nights.night(self.WRONG, known, program="p" * 64, files={"head.py": "2"})
        assert (told.verdict, told.why) == ("fail", "expected: we know")

    def test_without_a_program_it_holds_for_any(self, nights: Nights) -> None:
        for found in (self.OLD, self.NEW):
            told = nights.night(self.WRONG, expect(self.WRONG.signature), **found)
            assert (told.verdict, told.why) == ("fail", "expected: we know")

    def test_another_expectation_may_still_cover_it(self, nights: Nights) -> None:
        known = self.accepted(nights, self.WRONG)
        told = nights.night(self.WRONG, known, expect("mismatch/*", "llama*"), **self.NEW)
        assert told.verdict == "fail"

    def test_where_the_history_does_not_know_that_program_it_is_said_all_the_same(
        self, nights: Nights
    ) -> None:
        told = nights.night(self.WRONG, expect(self.WRONG.signature, model="x" * 16), **self.NEW)
        assert told.verdict == "changed failure"
        assert told.why.endswith(": we know; since then the model changed")

    def test_what_is_intermittent_is_so_for_its_program(self, nights: Nights) -> None:
        known = expect("flaky", model="p" * 16)
        tries = ("ok", "failed")
        assert nights.night(A, known, attempts=tries, **self.OLD).verdict == "fail"
        told = nights.night(A, known, attempts=tries, **self.NEW)
        assert told.verdict == "flaky"
        assert "known to be intermittent of another program: we know; since then" in told.why

    def test_wrong_numbers_that_nobody_accepted_are_another_failure_too(
        self, nights: Nights
    ) -> None:
        nights.night(self.WRONG, **self.OLD)
        told = nights.night(self.WRONG, **self.NEW)
        assert told.verdict == "changed failure"
        assert told.why.endswith("; since then the model changed (head.py, program)")
        assert nights.night(self.WRONG, **self.NEW).verdict == "same failure"


class TestMetrics:
    def test_a_slower_compile_is_told_once_with_number_usual_and_since(
        self, nights: Nights
    ) -> None:
        assert measured(nights, "compile_seconds", [1.1] * 12 + [3.2] * 2) == ["pass"] * 14
        told = nights.night(metrics={"compile_seconds": 3.21})
        assert (told.verdict, told.news) == ("slower", True)
        assert told.why == "compile 3.2 s, usually 1.1 s (12 nights)"
        assert told.since == "2026-01-13T02:00:00+00:00"
        assert measured(nights, "compile_seconds", [3.2001] * 9) == ["pass"] * 9

    @pytest.mark.parametrize(
        ("metric", "usual", "now", "why"),
        [
            ("latency_seconds", 0.00123, 0.0042, "latency 4.2 ms, usually 1.23 ms (12 nights)"),
            ("latency_seconds", 5e-5, 9e-5, "latency 90 us, usually 50 us (12 nights)"),
            ("peak_bytes", 2**30, 2**31, "peak memory 2 GiB, usually 1 GiB (12 nights)"),
        ],
    )
    def test_units_are_those_of_people(
        self, nights: Nights, metric: str, usual: float, now: float, why: str
    ) -> None:
        values = [usual * (1 + n * 1e-6) for n in range(12)] + [
            now * (1 + n * 1e-6) for n in range(3)
        ]
        told = [nights.night(metrics={metric: value}) for value in values][-1]
        assert told.verdict == ("slower" if metric.endswith("seconds") else "bigger")
        assert told.why == why

    @pytest.mark.parametrize(
        ("metric", "usual", "now", "why"),
        [
            ("dispatches", 40, 44, "dispatches 44, usually 40 (2 nights)"),
            ("module_bytes", 100000, 120000, "module 117.2 KiB, usually 97.66 KiB (2 nights)"),
            ("transient_bytes", 0, 5000, "transient memory 4.883 KiB, usually 0 bytes (2 nights)"),
            ("registers", 64, 80, "registers 80, usually 64 (2 nights)"),
        ],
    )
    def test_what_the_compiler_decides_is_told_after_one_night(
        self, nights: Nights, metric: str, usual: float, now: float, why: str
    ) -> None:
        assert measured(nights, metric, [usual, usual]) == ["pass", "pass"]
        told = nights.night(metrics={metric: now})
        assert (told.verdict, told.why) == ("bigger", why)
        assert measured(nights, metric, [now, now]) == ["pass", "pass"]

    def test_one_or_two_noisy_nights_are_not_told(self, nights: Nights) -> None:
        values = [1.0] * 10 + [5.0, 5.0] + [1.0] * 3 + [5.0] + [1.0] * 3
        assert set(measured(nights, "compile_seconds", values)) == {"pass"}

    def test_getting_better_is_told_but_no_news_and_a_new_baseline(self, nights: Nights) -> None:
        measured(nights, "dispatches", [40, 40])
        told = nights.night(metrics={"dispatches": 20})
        assert (told.verdict, told.why) == ("pass", "dispatches 20, usually 40 (2 nights)")
        assert measured(nights, "dispatches", [40]) == ["bigger"]

    def test_all_that_moved_is_told_together(self, nights: Nights) -> None:
        old = {"compile_seconds": 1.0, "dispatches": 10.0, "module_bytes": 5e6}
        for n in range(12):
            nights.night(metrics=old | {"compile_seconds": 1 + n * 1e-6})
        for n in range(2):
            nights.night(metrics=old | {"compile_seconds": 2 + n * 1e-6})
        told = nights.night(
            metrics={"compile_seconds": 2.1, "dispatches": 12.0, "module_bytes": 6e6}
        )
        assert told.verdict == "slower"
        assert [part.split()[0] for part in told.why.split("; ")] == [
            "compile",
            "dispatches",
            "module",
        ]

    @pytest.mark.parametrize(
        "fields",
        [{"why": A}, {"reused": True}, {"attempts": ("ok", "failed")}],
        ids=["failed", "reused", "flaky"],
    )
    def test_some_nights_are_not_measured(self, nights: Nights, fields: dict[str, Any]) -> None:
        """With the two that do not count there would be three slow nights."""
        measured(nights, "compile_seconds", [1.0] * 10)
        measured(nights, "compile_seconds", [5.0] * 2, **fields)
        told = nights.night(metrics={"compile_seconds": 5.1})
        assert "compile" not in told.why
        assert measured(nights, "compile_seconds", [5.2, 5.3]) == ["pass", "slower"]

    def test_a_change_is_not_told_again_for_the_copy_of_its_last_time(self, nights: Nights) -> None:
        measured(nights, "compile_seconds", [1.0] * 10 + [2.0, 2.0])
        again = {"compile_seconds": 2.2}
        assert [nights.night(metrics=again).verdict for _ in range(2)] == ["slower", "pass"]

    def test_a_compile_from_the_store_is_no_measurement(self, nights: Nights) -> None:
        """The time of when it was done, however often it is taken, is one noisy night."""
        measured(nights, "compile_seconds", [1.0] * 10)
        for _ in range(5):
            assert nights.night(metrics={"compile_seconds": 2.0}).verdict == "pass"
        assert measured(nights, "compile_seconds", [2.1, 2.2]) == ["pass", "slower"]

    def test_a_reused_night_is_never_slower(self, nights: Nights) -> None:
        measured(nights, "dispatches", [10, 10])
        assert nights.night(metrics={"dispatches": 20.0}, reused=True).verdict == "pass"

    def test_another_class_of_machine_is_another_baseline(self, nights: Nights) -> None:
        measured(nights, "compile_seconds", [1.0] * 10, machine="fast")
        assert set(measured(nights, "compile_seconds", [3.0] * 5, machine="slow")) == {"pass"}

    def test_the_first_night_on_a_machine_has_no_baseline(self, nights: Nights) -> None:
        measured(nights, "module_bytes", [10**5] * 3, machine="x86")
        assert measured(nights, "module_bytes", [10**6], machine="arm") == ["pass"]

    def test_a_fixed_case_tells_what_moved_meanwhile(self, nights: Nights) -> None:
        measured(nights, "dispatches", [10, 10])
        nights.night(A)
        told = nights.night(metrics={"dispatches": 20.0})
        assert told.verdict == "fixed"
        assert told.why.endswith("; dispatches 20, usually 10 (2 nights)")

    def test_what_could_only_be_compiled_is_compared_too(self, nights: Nights) -> None:
        measured(nights, "dispatches", [10, 10], why=ABSENT)
        told = nights.night(ABSENT, metrics={"dispatches": 20.0})
        assert told.verdict == "bigger"
        assert told.why.startswith(ABSENT)


class TestUnsettled:
    def test_it_asks_for_another_measurement_until_it_can_tell(self, nights: Nights) -> None:
        measured(nights, "latency_seconds", [0.01] * 10)
        assert not unsettled(nights.past)
        for value in (0.02, 0.0201):
            measured(nights, "latency_seconds", [value])
            assert unsettled(nights.past)
        measured(nights, "latency_seconds", [0.0202])
        assert not unsettled(nights.past)

    def test_a_reused_night_in_between_changes_nothing(self, nights: Nights) -> None:
        measured(nights, "latency_seconds", [0.01] * 10 + [0.02])
        measured(nights, "latency_seconds", [0.02], reused=True)
        assert unsettled(nights.past)

    def test_without_a_past_it_is_settled(self) -> None:
        assert not unsettled([])


ANY = st.sampled_from(["", ABSENT, A, B, failure("a", "b"), TestDevices.ON_DEVICE])


class TestAlways:
    @given(st.lists(ANY, max_size=8), ANY, st.booleans())
    def test_the_second_of_two_equal_nights_is_no_news(
        self, before: list[Failure | str], why: Failure | str, known: bool
    ) -> None:
        nights = Nights()
        expected = [expect("a")] if known else []
        for earlier in before:
            nights.night(earlier, *expected)
        first, second = nights.night(why, *expected), nights.night(why, *expected)
        assert not second.news, (first, second)

    @given(st.lists(ANY, min_size=1, max_size=8), st.lists(st.sampled_from("ab*"), max_size=2))
    def test_a_failure_has_a_verdict_of_failure_and_a_pass_has_none(
        self, whys: list[Failure | str], known: list[str]
    ) -> None:
        nights = Nights()
        for why in whys:
            told = nights.night(why, *(expect(signature) for signature in known))
            failed = isinstance(why, Failure)
            assert failed == (told.verdict in FAILED)
            assert not failed or told.since <= nights.past[0].begun

    @given(st.lists(ANY, min_size=1, max_size=6), ANY)
    def test_nothing_that_nobody_heard_of_is_called_the_same(
        self, whys: list[Failure | str], last: Failure | str
    ) -> None:
        nights = Nights()
        for why in [*whys, last]:
            told = nights.night(why)
            if told.verdict == "same failure":
                earlier = {s for p in nights.past[1:] for s in p.signatures}
                assert told.signature in earlier


FAILED = ("fail", "new failure", "same failure", "changed failure")


def test_a_failure_without_a_record_is_a_failure(nights: Nights) -> None:
    lost = outcome(result=result(status="failed"))
    assert nights.told(lost).verdict == "new failure"
    assert nights.told(lost).verdict == "same failure"
