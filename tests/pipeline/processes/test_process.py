"""A child ends when it should, whatever happens, and how it ended is told exactly."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from fake.disk import tiny_disk
from fake.processes import alive, wait_until

from iree_pilot.pipeline.errors import EnvironmentFault
from iree_pilot.pipeline.processes import memory_kills, process
from iree_pilot.pipeline.processes.memory_kills import Kills
from iree_pilot.pipeline.processes.process import Limits, Outcome

HANG = "import signal; signal.pause()"


@pytest.fixture
def run(tmp_path: Path) -> Any:
    """Runs Python code as a child; its stdout and stderr are `out` and `err` in tmp_path."""

    def python(code: str, *arguments: str, **options: Any) -> Outcome:
        argv = [sys.executable, "-I", "-S", "-c", code, *arguments]
        out, err = tmp_path / "out", tmp_path / "err"
        return process.run(argv, stdout=out, stderr=err, **options)

    return python


def interrupt_when(condition: Any) -> Any:
    """An on_tick that raises KeyboardInterrupt, as Ctrl-C does, once the condition holds."""

    def tick() -> None:
        if condition():
            raise KeyboardInterrupt

    return tick


def test_output_goes_to_the_files(run: Any, tmp_path: Path) -> None:
    outcome = run("import sys; print('one'); print('two', file=sys.stderr)")
    assert outcome.ok
    assert (outcome.ended_by, outcome.exit_code, outcome.signal) == ("exit", 0, None)
    assert (tmp_path / "out").read_text() == "one\n"
    assert (tmp_path / "err").read_text() == "two\n"


def test_an_exit_code_is_kept(run: Any) -> None:
    outcome = run("raise SystemExit(7)")
    assert not outcome.ok
    assert (outcome.ended_by, outcome.exit_code, outcome.signal) == ("exit", 7, None)


def test_a_signal_is_named(run: Any) -> None:
    outcome = run("import os; os.abort()")
    assert (outcome.ended_by, outcome.exit_code, outcome.signal) == ("signal", None, "SIGABRT")


def test_arguments_reach_the_child_as_they_are(run: Any, tmp_path: Path) -> None:
    odd = ["two words", "$HOME", "`id`", "*", ";", "", "new\nline", "--flag='x'"]
    run("import sys; print(sys.argv[1:])", *odd)
    assert (tmp_path / "out").read_text() == f"{odd}\n"


def test_the_child_has_nothing_to_read(run: Any, tmp_path: Path) -> None:
    run("import sys; print(repr(sys.stdin.read()))")
    assert (tmp_path / "out").read_text() == "''\n"


def test_a_module_of_ours_is_not_broken_by_files_where_the_user_is(tmp_path: Path) -> None:
    for name in ("json.py", "numbers.py"):
        (tmp_path / name).write_text("raise SystemExit(9)")
    (tmp_path / "a.json").write_text("{}")
    streams = {"stdout": tmp_path / "out", "stderr": tmp_path / "err"}
    ended = process.run(process.python("json.tool", "a.json"), cwd=tmp_path, **streams)
    assert ended.ok, (tmp_path / "err").read_text()


def test_directory_and_environment_are_the_callers(run: Any, tmp_path: Path) -> None:
    run("import os; print(os.getcwd(), os.environ)", cwd=tmp_path, env={"ONLY": "this"})
    text = (tmp_path / "out").read_text()
    assert text.startswith(f"{tmp_path} ")
    assert "'ONLY': 'this'" in text
    assert "HOME" not in text


def test_peak_memory_is_the_childs(run: Any) -> None:
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    assert run("pass").peak_bytes < own + 50 * 2**20
    eater = f"b = bytearray({200 * 2**20}); b[::4096] = b'1' * len(b[::4096])"
    assert 200 * 2**20 < run(eater).peak_bytes < 250 * 2**20 + own


class TestLimits:
    def test_time(self, run: Any) -> None:
        outcome = run(HANG, limits=Limits(seconds=0.2))
        assert (outcome.ended_by, outcome.exit_code) == ("time-limit", None)
        assert outcome.signal == "SIGKILL"
        assert 0.2 <= outcome.seconds < 5

    def test_a_child_that_ignores_signals_ends_all_the_same(self, run: Any) -> None:
        ignore = "for n in (1, 2, 3, 15): signal.signal(n, signal.SIG_IGN)"
        outcome = run(f"import signal\n{ignore}\n{HANG}", limits=Limits(seconds=0.2))
        assert outcome.ended_by == "time-limit"

    def test_memory(self, run: Any) -> None:
        hog = f"b = bytearray({300 * 2**20}); b[::4096] = b'1' * len(b[::4096]); {HANG}"
        outcome = run(hog, limits=Limits(memory_bytes=100 * 2**20, seconds=30))
        assert outcome.ended_by == "memory-limit"
        assert outcome.peak_bytes > 100 * 2**20

    @pytest.mark.parametrize("listed", [True, False], ids=["kernel lists children", "it does not"])
    def test_memory_of_descendants_counts(
        self, run: Any, listed: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if not listed:
            monkeypatch.setattr(Path, "exists", lambda path: not path.match("task/*/children"))
        hog = f"b = bytearray({300 * 2**20}); b[::4096] = b'1' * len(b[::4096]); {HANG}"
        argv = f"[sys.executable, '-I', '-S', '-c', {hog!r}]"
        outcome = run(
            "import subprocess, sys, threading\n"
            f"threading.Thread(target=subprocess.run, args=({argv},)).start()",
            limits=Limits(memory_bytes=100 * 2**20, seconds=30),
        )
        assert outcome.ended_by == "memory-limit"

    @pytest.mark.parametrize("stream", ["stdout", "stderr"])
    def test_output(self, run: Any, tmp_path: Path, stream: str) -> None:
        flood = f"import sys\nwhile True: sys.{stream}.write('x' * 4096)"
        outcome = run(flood, limits=Limits(output_bytes=2**20, seconds=30))
        assert outcome.ended_by == "output-limit"
        assert max((tmp_path / name).stat().st_size for name in ("out", "err")) > 2**20

    def test_a_kill_by_somebody_else_is_told_from_a_lack_of_memory(self, run: Any) -> None:
        outcome = run("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
        assert (outcome.ended_by, outcome.signal) == ("signal", "SIGKILL")
        counted = memory_kills.counted()
        assert outcome.memory_ran_out is (None if counted is None else False)
        assert run(HANG, limits=Limits(seconds=0.2)).memory_ran_out is None

    @pytest.mark.parametrize(
        ("groups", "files", "counted"),
        [
            ("0::/a/b\n", {"a/b/memory.events": "max 3\noom_kill 2\n"}, Kills(2, near=True)),
            ("0::/a\n", {"memory.events": "oom_kill 4\n"}, Kills(4, near=True)),
            (
                "1:cpu,memory:/a\n0::/\n",
                {"memory/a/memory.oom_control": "under_oom 0\noom_kill 1\n"},
                Kills(1, near=True),
            ),
            ("0::/\n", {}, Kills(7, near=False)),
            ("5:cpu:/a\n", {"memory/memory.oom_control": "oom_kill 9\n"}, Kills(7, near=False)),
        ],
    )
    def test_kills_are_counted_in_the_control_group_where_it_counts_them(
        self,
        groups: str,
        files: dict[str, str],
        counted: Kills,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        files = {"groups": groups, "vmstat": "nr_free_pages 1\noom_kill 7\n"} | files
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
        for name, file in (("_GROUPS", "groups"), ("_MACHINE", "vmstat"), ("_MOUNTED", "")):
            monkeypatch.setattr(memory_kills, name, tmp_path / file)
        assert memory_kills.counted() == counted

    def test_idleness(self, run: Any) -> None:
        outcome = run(HANG, limits=Limits(idle_seconds=0.3, seconds=30))
        assert (outcome.ended_by, outcome.signal) == ("idle-limit", "SIGKILL")
        assert outcome.seconds < 10

    @pytest.mark.slow
    def test_a_child_that_works_is_not_idle(self, run: Any) -> None:
        busy = "import time\nend = time.monotonic() + 1\nwhile time.monotonic() < end: pass"
        assert run(busy, limits=Limits(idle_seconds=0.5, seconds=30)).ok

    def test_none_of_them_stops_a_child_that_keeps_them(self, run: Any) -> None:
        limits = Limits(seconds=30, memory_bytes=2**30, output_bytes=2**20)
        assert run("print('x' * 1000)", limits=limits).ok


class TestNothingIsLeft:
    #: Starts a grandchild that hangs, tells both processes' ids, and then does as it is told.
    PARENT = (
        "import os, subprocess, sys\n"
        f"child = subprocess.Popen([sys.executable, '-I', '-S', '-c', {HANG!r}])\n"
        "print(os.getpid(), child.pid, flush=True)\n"
    )

    def ids(self, tmp_path: Path) -> list[int]:
        return [int(word) for word in (tmp_path / "out").read_text().split()]

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("ending", "ended_by"),
        [("sys.exit(3)", "exit"), ("os.abort()", "signal"), (HANG, "time-limit")],
    )
    def test_descendants_end_with_the_child(
        self, run: Any, tmp_path: Path, ending: str, ended_by: str
    ) -> None:
        outcome = run(self.PARENT + ending, limits=Limits(seconds=1))
        assert outcome.ended_by == ended_by
        pids = self.ids(tmp_path)
        assert len(pids) == 2
        wait_until(lambda: not any(map(alive, pids)))

    def test_an_interrupt_ends_them_and_passes_through(self, run: Any, tmp_path: Path) -> None:
        with pytest.raises(KeyboardInterrupt):
            run(self.PARENT + HANG, on_tick=interrupt_when(lambda: len(self.ids(tmp_path)) == 2))
        wait_until(lambda: not any(map(alive, self.ids(tmp_path))))

    def test_the_child_is_reaped(self, run: Any, tmp_path: Path) -> None:
        run(f"import os; print(os.getpid(), flush=True); {HANG}", limits=Limits(seconds=0.2))
        (pid,) = self.ids(tmp_path)
        assert not Path(f"/proc/{pid}").exists(), "not even as a zombie"

    @pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
    def test_no_descendant_outlives_the_process_that_runs_the_child(
        self, tmp_path: Path, number: signal.Signals
    ) -> None:
        code = (
            "import sys; from pathlib import Path\n"
            "from iree_pilot.pipeline.processes import process\n"
            "argv = [sys.executable, '-I', '-S', '-c', sys.argv[1]]\n"
            "here = Path(sys.argv[2])\n"
            "process.run(argv, stdout=here / 'out', stderr=here / 'err')\n"
        )
        argv = [sys.executable, "-c", code, self.PARENT + HANG, str(tmp_path)]
        driver = os.posix_spawn(sys.executable, argv, os.environ)
        out = tmp_path / "out"
        wait_until(lambda: out.exists() and len(self.ids(tmp_path)) == 2)
        os.kill(driver, number)
        os.waitpid(driver, 0)
        wait_until(lambda: not any(map(alive, self.ids(tmp_path))))


class TestTemporaryFiles:
    #: Leaves a temporary file, says where, and then does as it is told.
    LEAVE = (
        "import os, tempfile; handle, name = tempfile.mkstemp(); print(name, flush=True)\n"
        f"def hang():\n    {HANG}\n"
    )

    @pytest.mark.slow
    @pytest.mark.parametrize(
        "ending", ["pass", "os.abort()", "os.kill(os.getpid(), 9)", "hang()", "interrupted"]
    )
    def test_they_are_in_a_directory_of_its_own_and_go_with_the_child(
        self, run: Any, tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        temporary = tmp_path / "temporary"
        temporary.mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(temporary))
        seen: list[Path] = []

        def tick() -> None:
            seen.extend(temporary.glob("iree-pilot-*/*"))
            if seen and ending == "interrupted":
                raise KeyboardInterrupt

        code = self.LEAVE + ("hang()" if ending == "interrupted" else ending)
        with contextlib.suppress(KeyboardInterrupt):
            run(code, limits=Limits(seconds=0.5), on_tick=tick)
        made = Path((tmp_path / "out").read_text().strip())
        assert made.parent.parent == temporary
        assert list(temporary.iterdir()) == []

    def test_the_caller_may_name_another_place(self, run: Any, tmp_path: Path) -> None:
        (tmp_path / "own").mkdir()
        assert run(self.LEAVE, env={**os.environ, "TMPDIR": str(tmp_path / "own")}).ok
        assert any((tmp_path / "own").iterdir())


class TestFullDisk:
    @pytest.fixture
    def small(self, tmp_path: Path) -> Iterator[Path]:
        """A file system of a quarter of a megabyte."""
        with tiny_disk(tmp_path / "disk", 256 * 1024) as directory:
            yield directory

    def test_a_child_can_still_say_so(self, small: Path) -> None:
        code = (
            "import sys\n"
            "with open(sys.argv[1], 'wb', buffering=0) as file:\n"
            "    while file.write(bytes(4096)): pass"
        )
        argv = [sys.executable, "-I", "-S", "-c", code, str(small / "large")]
        outcome = process.run(argv, stdout=small / "out", stderr=small / "err")
        assert outcome.exit_code == 1
        assert "No space left on device" in (small / "err").read_text()

    def test_without_room_for_its_words_it_is_not_started(self, small: Path) -> None:
        with contextlib.suppress(OSError):
            (small / "large").write_bytes(bytes(2**20))
        with pytest.raises(OSError, match="No space left on device"):
            process.run(["/bin/true"], stdout=small / "out", stderr=small / "err")

    def test_what_was_set_aside_is_given_back(self, tmp_path: Path) -> None:
        err = tmp_path / "err"
        process.run(["/bin/echo"], stdout=tmp_path / "out", stderr=err)
        assert err.stat().st_blocks == err.stat().st_size == 0


class TestStart:
    def test_a_missing_program_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(EnvironmentFault, match=r"cannot run /no/such/tool: there is no") as e:
            process.run(["/no/such/tool"], stdout=tmp_path / "o", stderr=tmp_path / "e")
        assert e.value.advice

    def test_a_program_that_is_not_executable_is_named(self, tmp_path: Path) -> None:
        tool = tmp_path / "tool"
        tool.write_text("#!/bin/sh\n")
        with pytest.raises(EnvironmentFault, match=r"tool: it is not executable") as caught:
            process.run([tool], stdout=tmp_path / "o", stderr=tmp_path / "e")
        assert f"chmod +x {tool}" in caught.value.advice

    def test_a_damaged_program_is_told_with_the_systems_word(self, tmp_path: Path) -> None:
        tool = tmp_path / "tool"
        tool.write_bytes(b"\x7fELF of nothing")
        tool.chmod(0o755)
        with pytest.raises(EnvironmentFault, match=r"cannot run .*tool: Exec format error"):
            process.run([tool], stdout=tmp_path / "o", stderr=tmp_path / "e")


def test_ticks_come_while_the_child_runs(run: Any) -> None:
    ticks: list[float] = []
    run("import time; time.sleep(0.4)", on_tick=lambda: ticks.append(time.monotonic()))
    assert len(ticks) >= 2


def test_what_a_tick_raises_ends_the_child(run: Any, tmp_path: Path) -> None:
    def tick() -> None:
        if (tmp_path / "out").read_text().strip():
            raise ValueError("enough")

    with pytest.raises(ValueError, match="enough"):
        run(f"import os; print(os.getpid(), flush=True); {HANG}", on_tick=tick)
    assert not alive(int((tmp_path / "out").read_text()))


def test_a_tick_that_returns_true_is_the_time_limit(run: Any) -> None:
    assert run(HANG, on_tick=lambda: True).ended_by == "time-limit"


class TestProcessorTime:
    """A limit of processor time: a busy machine makes nothing look slow."""

    #: Between two naps it works for more than the 10 ms in which the system counts.
    NAPS = "import time\nfor _ in range(12): time.sleep(0.1); sum(range(10**6))"

    @pytest.mark.slow
    def test_waiting_for_others_is_not_counted(self, run: Any) -> None:
        outcome = run(self.NAPS, limits=Limits(seconds=0.9, of_processor=True))
        assert outcome.ok and outcome.seconds > 1.2
        assert 0 < outcome.processor_seconds < outcome.seconds

    def test_work_is(self, run: Any) -> None:
        outcome = run("while True: pass", limits=Limits(seconds=0.3, of_processor=True))
        assert outcome.ended_by == "time-limit"
        assert outcome.processor_seconds >= 0.3

    @pytest.mark.slow
    def test_doing_nothing_at_all_is_too(self, run: Any) -> None:
        outcome = run(HANG, limits=Limits(seconds=0.5, of_processor=True))
        assert outcome.ended_by == "time-limit"


def test_available_memory_is_what_psutil_says() -> None:
    assert process.available_bytes() == pytest.approx(psutil.virtual_memory().available, rel=0.2)
