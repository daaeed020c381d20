"""Several children at once are waited for together, and ended together."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
from fake.processes import alive, wait_until

from iree_pilot.pipeline.processes import process
from iree_pilot.pipeline.processes.process import Outcome
from iree_pilot.pipeline.processes.workers import side_by_side

HANG = "import os, signal; open('pid', 'w').write(str(os.getpid())); signal.pause()"


@pytest.fixture
def child(tmp_path: Path) -> Path:
    """The file in which a child that `hangs` leaves its process number."""
    return tmp_path / "pid"


def hangs(child: Path) -> Outcome:
    out, err = child.with_name("out"), child.with_name("err")
    argv = [sys.executable, "-I", "-S", "-c", HANG]
    return process.run(argv, stdout=out, stderr=err, cwd=child.parent)


def pid_of(child: Path) -> int:
    wait_until(lambda: child.exists() and child.read_text() != "")
    return int(child.read_text())


def test_answers_come_in_the_order_of_the_questions(tmp_path: Path) -> None:
    def after(last: int) -> int:
        wait_until(lambda: last == 2 or (tmp_path / str(last + 1)).exists())
        (tmp_path / str(last)).touch()
        return last

    assert side_by_side(after, [0, 1, 2], width=3) == [0, 1, 2]
    assert side_by_side(after, [], width=3) == []


def test_a_fault_ends_the_others_and_keeps_the_rest_from_beginning(child: Path) -> None:
    started: list[str] = []

    def work(what: str) -> None:
        started.append(what)
        if what == "hang":
            hangs(child)
        pid_of(child)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        side_by_side(work, ["hang", "fault", "later", "later"], width=2)
    assert not alive(pid_of(child))
    assert "later" not in started


def test_ctrl_c_ends_children_that_other_threads_wait_for(child: Path) -> None:
    def work(what: str) -> None:
        if what == "hang":
            hangs(child)
        pid_of(child)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        side_by_side(work, ["hang", "interrupt"], width=2)
    assert not alive(pid_of(child))
