"""`iree-pilot bisect` when it is stopped, and when the compiler hangs or changes its mind.

The compiler is a stand-in that fails on one operation; the IR is edited by the real bindings.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from driver import Done, pilot, start
from fake import stub_release
from fake.processes import running, wait_until

from iree_pilot.repro.reproducer.folder import bundle

OPS = ["one", "two", "three", "four", "bad", "six", "seven", "eight"]
SAYS = "'test.bad' op is not supported"

pytestmark = pytest.mark.real


def program(names: list[str]) -> str:
    lines = [
        f'    %{i + 1} = "test.{name}"(%{i}) : (tensor<4xf32>) -> tensor<4xf32>\n'
        for i, name in enumerate(names)
    ]
    return (
        "module {\n  func.func @main(%0: tensor<4xf32>) -> tensor<4xf32> {\n"
        f"{''.join(lines)}    return %{len(names)} : tensor<4xf32>\n  }}\n}}\n"
    )


class Desk:
    """A directory with a program, a stub release, and caches that nobody else uses."""

    def __init__(self, directory: Path, cache: Path, data: Path) -> None:
        self.directory = directory
        self.cache = cache
        self.data = data
        self.release = directory / "release"
        self.starts = directory / "starts"
        self.out = directory / "out"
        (directory / "scratch").mkdir()
        (directory / "a.mlir").write_text(program(OPS))

    def fails(self, how: str, *more: tuple[str, str]) -> None:
        """What goes wrong with the operation test.bad, and (word, what) of others."""
        when = dict((('"test.bad"', how), *more))
        settings = {"when": {word: f"// stub: {what}" for word, what in when.items()}}
        if not self.release.exists():
            stub_release(self.release)
        for file in self.release.rglob("stub.json"):
            file.write_text(json.dumps(settings))

    def comes_and_goes(self, turns: str) -> None:
        self.fails(f"turn-at flow {self.counter} {turns} error {SAYS}")

    @property
    def counter(self) -> Path:
        return self.directory / "counter"

    def turns(self) -> int:
        return self.counter.stat().st_size if self.counter.exists() else 0

    def arguments(self, *more: str) -> list[str]:
        words = ["bisect", "a.mlir", "-t", "llvm-cpu", "-o", "out", "--json"]
        return [*words, "--release", str(self.release), *more]

    @property
    def environment(self) -> dict[str, str | Path]:
        return {"IREE_STUB_STARTS": self.starts, "TMPDIR": self.directory / "scratch"}

    def bisect(self, *more: str) -> Done:
        return pilot(*self.arguments(*more), cwd=self.directory, env=self.environment)

    def start(self, *more: str, **options: Any) -> subprocess.Popen[str]:
        return start(*self.arguments(*more), cwd=self.directory, env=self.environment, **options)

    def asked(self) -> list[str]:
        """The command lines of the compiles of candidates so far."""
        lines = self.starts.read_text().splitlines() if self.starts.exists() else []
        return [line for line in lines if "/bisect/" in line and "--compile-to=" in line]

    def killed_after(self, compiles: int) -> Done | None:
        """A bisection that is killed once so many candidates were begun; how it ended if before."""
        search = self.start()
        wait_until(lambda: search.poll() is not None or len(self.asked()) >= compiles)
        if search.poll() is None:
            search.kill()
        out, err = search.communicate(timeout=30)
        return None if search.returncode == -9 else Done(search.returncode, out, err)

    def forget(self) -> None:
        """Leaves nothing of what was done before."""
        for directory in (self.cache, self.data, self.out):
            shutil.rmtree(directory)
            directory.mkdir()
        self.out.rmdir()
        self.starts.unlink()

    def check_nothing_is_left(self) -> None:
        wait_until(lambda: running(str(self.directory)) == [])
        assert [p.name for p in self.directory.iterdir() if p.name.startswith(".")] == []


@pytest.fixture
def desk(tmp_path: Path, cache: Path, data: Path) -> Desk:
    return Desk(tmp_path, cache, data)


def test_one_that_is_killed_again_and_again_gets_there_all_the_same(desk: Desk) -> None:
    desk.fails(f"error-at flow {SAYS}")
    (made,) = desk.bisect().document["failures"]
    uninterrupted, wanted = len(desk.asked()), (desk.out / "repro.mlir").read_text()
    desk.forget()
    kills = 0
    while (ended := desk.killed_after(len(desk.asked()) + 2)) is None:
        kills += 1
        desk.check_nothing_is_left()
        assert not desk.out.exists()
    assert kills > 0
    assert len(desk.asked()) <= uninterrupted + 2 * kills, "more was asked again than was in flight"
    (again,) = ended.document["failures"]
    assert again["reproducer"]["oracle_calls"] >= made["reproducer"]["oracle_calls"]
    assert again["reproducer"]["op_names"] == made["reproducer"]["op_names"] == ["test.bad"]
    assert (desk.out / "repro.mlir").read_text() == wanted


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_one_that_is_stopped_while_candidates_hang_leaves_nothing(desk: Desk, number: int) -> None:
    desk.fails(f"error-at flow {SAYS}", ("/edits/", "hang-at input"))
    search = desk.start()
    wait_until(lambda: len(running(str(desk.data))) >= 1)
    search.send_signal(number)
    _, err = search.communicate(timeout=30)
    assert search.returncode == (-9 if number == signal.SIGKILL else 130), err
    desk.check_nothing_is_left()
    assert not desk.out.exists()
    desk.fails(f"error-at flow {SAYS}")
    assert desk.bisect().document["failures"][0]["reproducer"]["op_names"] == ["test.bad"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("turns", ["x", "-x"], ids=["a program", "run.sh"])
def test_one_that_is_stopped_while_it_verifies_leaves_no_folder(
    desk: Desk, number: int, turns: str
) -> None:
    desk.fails(
        f"error-at flow {SAYS}", ("repro.mlir", f"turn-at input {desk.counter} {turns} hang")
    )
    search = desk.start()
    wait_until(lambda: desk.turns() == len(turns))
    search.send_signal(number)
    search.communicate(timeout=30)
    desk.check_nothing_is_left()
    assert not desk.out.exists()
    desk.fails(f"error-at flow {SAYS}")
    asked = len(desk.asked())
    assert desk.bisect().code == 0
    assert len(desk.asked()) == asked
    assert bundle.read(desk.out).verified


def test_of_two_at_once_one_isolates_and_the_other_then_knows(desk: Desk) -> None:
    go = desk.directory / "go"
    desk.fails(f"error-at flow {SAYS}", ("/edits/", f"wait-at input {go}"))
    first = desk.start()
    wait_until(lambda: len(desk.asked()) > 0)
    words = [word for word in desk.arguments() if word != "--json"]
    second = start(*words, cwd=desk.directory, env=desk.environment)
    assert second.stdout is not None
    while "another process is isolating the same; waiting" not in second.stdout.readline():
        assert second.poll() is None
    go.touch()
    first.communicate(timeout=60)
    out, _ = second.communicate(timeout=60)
    assert (first.returncode, second.returncode) == (0, 0)
    assert "known since" in out


class TestComesAndGoes:
    def test_a_failure_that_does_not_appear_again(self, desk: Desk) -> None:
        desk.comes_and_goes("x" + "-" * 30)
        done = desk.bisect()
        assert done.code == 1
        (found,) = done.document["failures"]
        assert found["why"] == "the failure is intermittent: 1 of 5 runs"
        assert found["rate"] == 0.2
        assert found["reproducer"]["whole"] and not found["reproducer"]["verified"]
        assert bundle.read(desk.out).rate == 0.2

    @pytest.mark.slow
    @pytest.mark.parametrize("turns", ["x-", "xx-"])
    def test_one_that_is_seen_later_on(self, desk: Desk, turns: str) -> None:
        desk.comes_and_goes(turns)
        (found,) = desk.bisect().document["failures"]
        assert 0 < found["rate"] < 1, found
        assert desk.out.exists() == (found["reproducer"] is not None)


class TestNothingSmaller:
    def test_the_whole_program_is_handed_on_with_what_was_tried(self, desk: Desk) -> None:
        """What makes it fail is gone from all that is printed again: a comment."""
        (desk.directory / "a.mlir").write_text(program(OPS).replace("module {", "module { // odd"))
        desk.fails("print-at parse nothing", ("// odd", f"error-at flow {SAYS}"))
        done = desk.bisect()
        assert (done.code, done.document["status"]) == (1, "gave-up")
        (found,) = done.document["failures"]
        assert found["why"] == "no part of the program was found that fails in the same way"
        made = found["reproducer"]
        assert (made["whole"], made["minimal"], made["verified"]) == (True, False, True)
        assert (made["ops"], made["op_names"]) == (8, [f"test.{name}" for name in OPS])
        assert made["oracle_calls"] == done.document["oracle_calls"] > 0
        report = bundle.read(desk.out)
        assert "Nothing smaller reproduces it" in report.tried[0]
        assert "pass" in report.tried[1] and "same" not in report.tried[1]
        assert "Whole program" in (desk.out / "ISSUE.md").read_text()
        assert not list(desk.data.glob("known/*")), "it says nothing of other programs"

    def test_a_program_that_the_bindings_cannot_read_too(self, desk: Desk) -> None:
        (desk.directory / "a.mlir").write_text(f"not MLIR\n{program(OPS)}")
        desk.fails(f"error-at flow {SAYS}")
        done = desk.bisect()
        (found,) = done.document["failures"]
        assert "cannot read it: it does not parse" in found["why"]
        assert found["reproducer"]["whole"] and found["reproducer"]["verified"]


def test_a_hang_is_isolated(desk: Desk) -> None:
    desk.fails("hang-at flow")
    done = desk.bisect("--time-limit", "2s")
    (found,) = done.document["failures"]
    assert found["failure"]["kind"] == "timeout"
    made = found["reproducer"]
    assert made["op_names"] == ["test.bad"]
    assert made["minimal"] and made["verified"]


def test_a_shortage_of_memory_is_isolated(desk: Desk) -> None:
    desk.fails("eat-at flow 6000")
    done = desk.bisect("--memory-limit", "300MB")
    (found,) = done.document["failures"]
    assert found["failure"]["kind"] == "out-of-memory"
    made = found["reproducer"]
    assert made["op_names"] == ["test.bad"]
    assert made["minimal"] and made["verified"]


def test_a_folder_of_somebody_else_is_refused_before_the_search(desk: Desk) -> None:
    desk.fails(f"error-at flow {SAYS}")
    desk.out.mkdir()
    (desk.out / "thesis.txt").write_text("mine")
    done = desk.bisect()
    assert done.code == 2
    assert "is not empty and holds no reproducer" in done.err
    assert desk.asked() == []
