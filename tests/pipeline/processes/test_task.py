"""Calling a function in a child: what it replies, raises, and leaves behind when it dies."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from places import TESTS
from task_functions import Reply, Request

from iree_pilot.pipeline.errors import EnvironmentFault
from iree_pilot.pipeline.processes import task
from iree_pilot.pipeline.processes.process import Limits

ENV = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path])}


def call(function: str, directory: Path, then: str = "", **rest: Limits) -> task.Done[Reply]:
    request = Request(numbers=(2, 3), then=then)
    return task.call(f"task_functions:{function}", request, Reply, directory, env=ENV, **rest)


class TestCall:
    def test_the_reply_comes_back_and_files_stay(self, tmp_path: Path) -> None:
        done = call("total", tmp_path / "new" / "place")
        assert (done.reply, done.why, done.fault) == (Reply(square=13), "", None)
        assert (tmp_path / "new/place/beside.txt").read_text() == "written"

    def test_a_second_call_in_the_same_directory_has_its_own_replies(self, tmp_path: Path) -> None:
        assert len(call("squares", tmp_path).replies) == 2
        assert call("raises", tmp_path).replies == ()
        assert call("squares", tmp_path).fault is None

    def test_each_reply_of_many_comes_back(self, tmp_path: Path) -> None:
        assert call("squares", tmp_path).replies == (Reply(square=4), Reply(square=9))

    @pytest.mark.parametrize(
        ("then", "why"),
        [
            ("dies", "the child process met SIGSEGV"),
            ("leaves", "the child process met exit code 7: gone"),
            ("tears", "the child process met SIGKILL"),
        ],
    )
    def test_what_was_replied_outlives_the_child(self, tmp_path: Path, then: str, why: str) -> None:
        done = call("squares", tmp_path, then)
        assert done.replies == (Reply(square=4), Reply(square=9))
        assert done.reply is None
        assert done.fault is None
        assert done.why.startswith(why)

    @pytest.mark.slow
    def test_a_limit_ends_it(self, tmp_path: Path) -> None:
        done = call("squares", tmp_path, "hangs", limits=Limits(idle_seconds=1.0))
        assert len(done.replies) == 2
        assert done.why == "the child process met its idle limit"


class TestFaults:
    def test_what_the_function_raises_comes_back_with_its_place(self, tmp_path: Path) -> None:
        done = call("raises", tmp_path)
        assert done.fault is not None
        assert (done.fault.exception, done.fault.message) == ("ValueError", "not this")
        assert (done.fault.notes, done.fault.exit_code) == (("a note",), 0)
        assert done.fault.frames[-1][2] == "raises"
        assert done.why == "not this"
        assert "ValueError: not this" in done.stderr

    def test_wrong_usage_keeps_its_advice(self, tmp_path: Path) -> None:
        fault = call("raises", tmp_path, "usage").fault
        assert fault is not None
        assert (fault.exit_code, fault.message, fault.advice) == (
            2,
            "no such thing",
            "Name another.",
        )

    def test_a_model_that_exits_is_a_fault_too(self, tmp_path: Path) -> None:
        fault = call("raises", tmp_path, "exit").fault
        assert fault is not None
        assert fault.exception == "SystemExit"

    @pytest.mark.parametrize(
        ("then", "message"), [("environment", "no driver"), ("import", "No module named 'nosuch'")]
    )
    def test_the_environments_faults_are_raised(
        self, tmp_path: Path, then: str, message: str
    ) -> None:
        with pytest.raises(EnvironmentFault, match=message):
            call("raises", tmp_path, then)

    def test_a_module_that_is_not_there_is_one(self, tmp_path: Path) -> None:
        with pytest.raises(EnvironmentFault, match="cannot start nosuch:work"):
            task.call("nosuch:work", Request(), Reply, tmp_path)


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Iterator[task.Worker]:
    monkeypatch.setenv("PYTHONPATH", ENV["PYTHONPATH"])
    worker = task.Worker("task_functions:squares")
    yield worker
    worker.close()


class TestWorker:
    def test_one_process_answers_all_calls(self, worker: task.Worker, tmp_path: Path) -> None:
        done = [
            worker.call(Request(numbers=(n,)), Reply, tmp_path / str(n), seconds=60)
            for n in range(3)
        ]
        assert [one.reply for one in done] == [Reply(square=n * n) for n in range(3)]

    @pytest.mark.parametrize(
        ("then", "why"),
        [
            ("dies", "the child process met SIGSEGV"),
            ("leaves", "the child process met exit code 7: gone"),
        ],
    )
    def test_a_call_that_dies_costs_itself(
        self, worker: task.Worker, tmp_path: Path, then: str, why: str
    ) -> None:
        done = worker.call(Request(numbers=(2,), then=then), Reply, tmp_path / "a", seconds=60)
        assert done.replies == (Reply(square=4),)
        assert done.why.startswith(why)
        done = worker.call(Request(numbers=(3,)), Reply, tmp_path / "b", seconds=60)
        assert done.reply == Reply(square=9)

    @pytest.mark.slow
    def test_a_call_that_hangs_is_ended_and_the_next_one_answered(
        self, worker: task.Worker, tmp_path: Path
    ) -> None:
        done = worker.call(Request(numbers=(2,), then="hangs"), Reply, tmp_path / "a", seconds=2)
        assert done.why == "the child process met its time limit"
        done = worker.call(Request(numbers=(3,)), Reply, tmp_path / "b", seconds=60)
        assert done.reply == Reply(square=9)

    def test_a_module_that_is_not_there_is_the_environments_fault(self, tmp_path: Path) -> None:
        worker = task.Worker("nosuch:work")
        try:
            with pytest.raises(EnvironmentFault, match="cannot start nosuch:work"):
                worker.call(Request(), Reply, tmp_path / "place", seconds=60)
        finally:
            worker.close()
