"""A night on this machine: as much at once as cores and memory allow, traces once and first."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import msgspec
import pytest
from fake import jobs
from fake.jobs import Heard, case, jobs_of, marks
from fake.processes import alive, wait_until

from iree_pilot.pipeline.nightly.history.history import Usual
from iree_pilot.pipeline.nightly.records import CaseOutcome
from iree_pilot.pipeline.nightly.workers.orders import Order
from iree_pilot.pipeline.nightly.workers.pool import Pool

GIB = 2**30
TARGETS = ("llvm-cpu", "vulkan", "hip")


class Meeting:
    """A worker whose jobs wait for each other: it knows how many there were at once.

    together: how many must be there before any of them goes on.
    """

    def __init__(self, together: int) -> None:
        self.most = 0
        self._now: set[str] = set()
        self._met = False
        self._together = together
        self._changed = threading.Condition()

    def __call__(self, order: Order) -> CaseOutcome:
        with self._changed:
            self._now.add(order.name)
            self.most = max(self.most, len(self._now))
            self._met = self._met or len(self._now) == self._together
            self._changed.notify_all()
            assert self._changed.wait_for(lambda: self._met, timeout=30)
            self._now.remove(order.name)
        return jobs.outcome(order)


def usual(**gib: float) -> dict[str, Usual]:
    return {
        f"{name} | llvm-cpu | installed": Usual(seconds=1.0, peak_bytes=int(size * GIB))
        for name, size in gib.items()
    }


class TestHowMuchAtOnce:
    def test_as_many_jobs_as_it_is_wide(self, tmp_path: Path) -> None:
        meeting = Meeting(together=3)
        cases = [case(f"model{n}") for n in range(9)]
        heard = Heard()
        Pool(3, 99 * GIB, meeting).run(jobs_of(cases, tmp_path), heard)
        assert meeting.most == 3
        assert sorted(heard.names) == sorted(c.name for c in cases)

    def test_one_a_core_where_nothing_is_said(self) -> None:
        assert Pool().width == len(os.sched_getaffinity(0))

    def test_no_more_than_fits_into_memory(self, tmp_path: Path) -> None:
        meeting = Meeting(together=2)
        cases = [case(name) for name in "abcd"]
        needs = usual(a=3, b=3, c=3, d=3)
        Pool(4, 7 * GIB, meeting).run(jobs_of(cases, tmp_path, usual=needs), Heard())
        assert meeting.most == 2

    def test_what_is_small_goes_beside_what_is_large(self, tmp_path: Path) -> None:
        meeting = Meeting(together=2)
        cases = [case(name) for name in ("large", "also", "small")]
        needs = usual(large=6, also=6, small=1)
        Pool(2, 8 * GIB, meeting).run(jobs_of(cases, tmp_path, usual=needs), Heard())
        assert meeting.most == 2

    def test_what_needs_more_than_there_is_runs_by_itself(self, tmp_path: Path) -> None:
        meeting = Meeting(together=1)
        heard = Heard()
        needs = usual(huge=100, vast=100)
        Pool(2, 8 * GIB, meeting).run(
            jobs_of([case("huge"), case("vast")], tmp_path, usual=needs), heard
        )
        assert meeting.most == 1
        assert len(heard.outcomes) == 2

    def test_a_step_may_take_what_the_night_may(self, tmp_path: Path) -> None:
        seen: list[int | None] = []

        def employ(order: Order) -> CaseOutcome:
            seen.append(order.memory_limit)
            return jobs.outcome(order)

        Pool(1, 8 * GIB, employ).run(jobs_of([case("x")], tmp_path), Heard())
        assert seen == [8 * GIB]


class TestOrder:
    def test_each_program_is_traced_once_before_its_cases(self, tmp_path: Path) -> None:
        cases = [case(s, t) for s in ("a", "b") for t in TARGETS]
        heard = Heard()
        Pool(1, 99 * GIB, jobs.light).run(jobs_of(cases, tmp_path, traced=False), heard)
        started = [name for _, name in marks(tmp_path)]
        assert started[:2] == ["trace a", "trace b"]
        assert sorted(started[2:]) == sorted(c.name for c in cases)
        assert started == [name for name, _ in heard.began_at]

    def test_what_takes_longest_begins_first(self, tmp_path: Path) -> None:
        seconds = {"short": 1.0, "long": 60.0, "medium": 20.0}
        cases = [case(name) for name in seconds]
        needs = {c.name: Usual(seconds=seconds[c.source], peak_bytes=GIB) for c in cases}
        Pool(1, 99 * GIB, jobs.light).run(jobs_of(cases, tmp_path, usual=needs), heard := Heard())
        assert [name.split()[0] for name in heard.names] == ["long", "medium", "short"]

    def test_of_unknown_cases_those_begin_first_whose_trace_took_longest(
        self, tmp_path: Path
    ) -> None:
        def employ(order: Order) -> CaseOutcome:
            seconds = {"small": 1.0, "large": 9.0, "medium": 4.0, "known": 0.0}[order.case.source]
            return msgspec.structs.replace(jobs.outcome(order), seconds=seconds)

        cases = [case(name) for name in ("small", "large", "medium", "known")]
        needs = {cases[3].name: Usual(seconds=5.0, peak_bytes=GIB)}
        heard = Heard()
        Pool(1, 99 * GIB, employ).run(jobs_of(cases, tmp_path, usual=needs, traced=False), heard)
        assert [name.split()[0] for name in heard.names] == ["large", "known", "medium", "small"]

    def test_the_first_case_has_what_the_trace_took(self, tmp_path: Path) -> None:
        cases = [case("a", t) for t in TARGETS]
        heard = Heard()
        Pool(2, 99 * GIB, jobs.light).run(jobs_of(cases, tmp_path, traced=False), heard)
        traced = {o.case: o.metrics.get("trace_seconds") for o in heard.outcomes}
        assert traced == {cases[0].name: 7.0, cases[1].name: None, cases[2].name: None}

    def test_a_trace_that_fails_is_the_outcome_of_all_its_cases(self, tmp_path: Path) -> None:
        cases = [case(s, t) for s in ("bad", "good") for t in TARGETS]
        heard = Heard()
        Pool(2, 99 * GIB, jobs.light).run(jobs_of(cases, tmp_path, traced=False), heard)
        assert sorted(heard.names) == sorted(c.name for c in cases)
        failed = [o for o in heard.outcomes if o.status == "failed"]
        assert [(o.case, o.result.target) for o in failed if o.result] == [
            (f"bad | {t} | installed", t) for t in TARGETS
        ]
        assert "bad | llvm-cpu | installed" not in [name for _, name in marks(tmp_path)]


class TestWhatEndsEarly:
    def test_what_the_watcher_raises_kills_all_that_runs(self, tmp_path: Path) -> None:
        file = tmp_path / "pid"

        def employ(order: Order) -> CaseOutcome:
            if order.case.source == "hang":
                return jobs.hanging(order)
            wait_until(lambda: file.exists() and file.read_text() != "")
            return jobs.outcome(order)

        def full(outcome: CaseOutcome) -> None:
            raise OSError("the disk is full")

        cases = [case("hang"), case("x"), case("later")]
        with pytest.raises(OSError, match="the disk is full"):
            Pool(2, 99 * GIB, employ).run(jobs_of(cases, tmp_path), Heard(full))
        assert not alive(int(file.read_text()))

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
    def test_a_night_that_is_killed_leaves_nothing_running(
        self, tmp_path: Path, number: signal.Signals
    ) -> None:
        code = (
            "import pathlib, sys\n"
            "from fake import jobs\n"
            "from iree_pilot.pipeline.nightly.workers.pool import Pool\n"
            "given = jobs.jobs_of([jobs.case('x')], pathlib.Path(sys.argv[1]))\n"
            "Pool(1, 2**40, jobs.hanging).run(given, jobs.Heard())\n"
        )
        env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        with (tmp_path / "log").open("wb") as log:
            night = subprocess.Popen(
                [sys.executable, "-c", code, tmp_path], env=env, stdout=log, stderr=log
            )
        file = tmp_path / "pid"
        wait_until(lambda: file.exists() and file.read_text() != "")
        os.kill(night.pid, number)
        night.wait()
        wait_until(lambda: not alive(int(file.read_text())))
