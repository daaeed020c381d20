"""Commands that are forks of a process with modules loaded: they are what they are without it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake.processes import alive, running, wait_until

from iree_pilot.pipeline.processes import fork_servers, process
from iree_pilot.pipeline.processes.fork_servers import Servers
from iree_pilot.pipeline.processes.process import Limits, Outcome
from iree_pilot.pipeline.processes.workers import side_by_side

LOADED = ("colorsys",)
#: Whether it was loaded before the script ran.
TELL = "import os, sys; print('colorsys' in sys.modules, os.getppid(), os.getpid())"
HANG = "import signal; signal.pause()"
#: Starts a grandchild that hangs, and tells both processes' ids.
PARENT = (
    "import os, subprocess, sys\n"
    f"child = subprocess.Popen([sys.executable, '-I', '-S', '-c', {HANG!r}])\n"
    "print(os.getpid(), child.pid, flush=True)\n"
)


@pytest.fixture(autouse=True)
def without_those_of_the_session(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(fork_servers.SHARED, raising=False)


@pytest.fixture
def servers() -> Iterator[Servers]:
    held = Servers()
    with fork_servers.serving(held):
        yield held
    held.close()


@pytest.fixture
def run(tmp_path: Path) -> Any:
    """Runs a script whose text is given, in tmp_path; its streams are files `out` and `err` there,
    or beside, with `name`."""

    def python(code: str, *arguments: str, name: str = "", **options: Any) -> Outcome:
        (tmp_path / f"script{name}.py").write_text(code)
        options = {"loaded": LOADED, "cwd": tmp_path, **options}
        return process.run(
            [sys.executable, "-X", "faulthandler", f"script{name}.py", *arguments],
            stdout=tmp_path / f"out{name}",
            stderr=tmp_path / f"err{name}",
            **options,
        )

    return python


def words(file: Path) -> list[str]:
    return file.read_text().split()


def ids(file: Path) -> list[int]:
    return [int(word) for word in words(file)] if file.exists() else []


def is_fork(file: Path) -> bool:
    return words(file)[0] == "True"


class TestWhatItIs:
    def test_all_are_forks_of_one_process_that_has_the_modules(
        self, servers: Servers, run: Any, tmp_path: Path
    ) -> None:
        told = []
        for _ in range(2):
            assert run(TELL).ok
            assert is_fork(tmp_path / "out")
            told.append(words(tmp_path / "out"))
        assert told[0][1] == told[1][1]
        assert told[0][2] != told[1][2]

    def test_without_servers_it_is_started_as_any_other(self, run: Any, tmp_path: Path) -> None:
        assert run(TELL).ok
        assert not is_fork(tmp_path / "out")

    def test_in_another_environment_too(self, servers: Servers, run: Any, tmp_path: Path) -> None:
        assert run(TELL, env={**os.environ, "ONLY": "this"}).ok
        assert not is_fork(tmp_path / "out")

    @pytest.mark.parametrize(
        "code",
        [
            "import sys; print(sys.argv[1:], sys.path, __name__, __file__)",
            "import sys; print(repr(sys.stdin.read()))",
            "import os, tempfile; print(os.getcwd(), os.environ['TMPDIR'] == tempfile.gettempdir())"
            "; print(sorted(os.environ))",
            "import beside; print(beside.__name__)",
            "import sys; print(sorted(m for m in sys.modules if 'pilot' in m or m == 'msgspec'))",
            "import atexit; atexit.register(print, 'the end')",
            "def f():\n    raise ValueError('no')\nf()",
            "print('half'",
            "raise SystemExit(7)",
            "raise SystemExit('why')",
            "raise KeyboardInterrupt",
            "import os; os.abort()",
            "import os; os.kill(os.getpid(), 15)",
            "import signal; print(signal.getsignal(signal.SIGINT), signal.getsignal(13))",
            "import os; print(os.listdir('/proc/self/fd')[:-1])",
        ],
    )
    def test_it_does_and_says_what_it_would_without_servers(
        self, servers: Servers, run: Any, tmp_path: Path, code: str
    ) -> None:
        (tmp_path / "beside.py").touch()
        forked = run(code, "two words", "")
        said = [(tmp_path / name).read_text() for name in ("out", "err")]
        usual = run(code, "two words", "", loaded=None)
        assert (forked.ended_by, forked.exit_code, forked.signal) == (
            usual.ended_by,
            usual.exit_code,
            usual.signal,
        )
        assert forked.argv == usual.argv
        if usual.signal is None:  # else the stack of the interpreter itself
            assert said == [(tmp_path / name).read_text() for name in ("out", "err")]

    def test_a_module_of_ours_is_not_broken_by_files_where_the_user_is(
        self, servers: Servers, tmp_path: Path
    ) -> None:
        (tmp_path / "json.py").write_text("raise SystemExit(9)")
        (tmp_path / "a.json").write_text("{}")
        streams = {"stdout": tmp_path / "out", "stderr": tmp_path / "err"}
        command = process.python("json.tool", "a.json")
        assert process.run(command, cwd=tmp_path, loaded=LOADED, **streams).ok
        assert (tmp_path / "out").read_text() == "{}\n"

    def test_a_module_that_cannot_be_loaded_is_met_by_the_command(
        self, servers: Servers, run: Any, tmp_path: Path
    ) -> None:
        assert run("import nosuch", loaded=("nosuch",)).exit_code == 1
        assert "No module named 'nosuch'" in (tmp_path / "err").read_text()

    def test_several_run_at_once(self, servers: Servers, run: Any, tmp_path: Path) -> None:
        code = (
            "import pathlib, sys, time\n"
            "own, other = sys.argv[1:]\n"
            "pathlib.Path(own).touch()\n"
            "while not pathlib.Path(other).exists():\n    time.sleep(0.01)\n"
        )

        def work(names: tuple[str, str]) -> Outcome:
            return run(code, *names, name=names[0], limits=Limits(seconds=30))

        assert all(one.ok for one in side_by_side(work, [("a", "b"), ("b", "a")], width=2))

    def test_the_server_outlives_the_thread_that_needed_it_first(
        self, servers: Servers, run: Any, tmp_path: Path
    ) -> None:
        side_by_side(lambda name: run(TELL, name=name), ["a", "b"], width=2)
        first = words(tmp_path / "outa")
        assert run(TELL).ok
        assert words(tmp_path / "out")[:2] == first[:2]


class TestLimits:
    @pytest.mark.slow
    def test_time(self, servers: Servers, run: Any) -> None:
        outcome = run(HANG, limits=Limits(seconds=1))
        assert (outcome.ended_by, outcome.signal) == ("time-limit", "SIGKILL")

    def test_memory(self, servers: Servers, run: Any) -> None:
        hog = f"b = bytearray({300 * 2**20}); b[::4096] = b'1' * len(b[::4096]); {HANG}"
        outcome = run(hog, limits=Limits(memory_bytes=100 * 2**20, seconds=30))
        assert outcome.ended_by == "memory-limit"
        assert outcome.peak_bytes > 100 * 2**20

    def test_what_it_took_is_its_own(self, servers: Servers, run: Any) -> None:
        worked = run(f"b = bytearray({200 * 2**20}); b[::4096] = b'1' * len(b[::4096])")
        assert worked.peak_bytes > 200 * 2**20
        rested = run("pass")
        assert rested.peak_bytes < 100 * 2**20
        assert rested.processor_seconds < worked.processor_seconds


class TestNothingIsLeft:
    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("ending", "ended_by"),
        [("sys.exit(3)", "exit"), ("os.abort()", "signal"), (HANG, "time-limit")],
    )
    def test_descendants_end_with_the_fork(
        self, servers: Servers, run: Any, tmp_path: Path, ending: str, ended_by: str
    ) -> None:
        assert run(PARENT + ending, limits=Limits(seconds=1)).ended_by == ended_by
        wait_until(lambda: not any(map(alive, ids(tmp_path / "out"))))

    def test_an_interrupt_ends_it_and_passes_through(
        self, servers: Servers, run: Any, tmp_path: Path
    ) -> None:
        def tick() -> None:
            if len(ids(tmp_path / "out")) == 2:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run(PARENT + HANG, on_tick=tick)
        wait_until(lambda: not any(map(alive, ids(tmp_path / "out"))))
        assert run(TELL).ok
        assert is_fork(tmp_path / "out")

    def test_an_interrupt_does_not_wait_for_modules_to_load(
        self, servers: Servers, run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "endless.py").write_text(f"open({str(tmp_path / 'begun')!r}, 'w'); {HANG}")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)

        def interrupted() -> bool:
            if (tmp_path / "begun").exists():
                raise KeyboardInterrupt
            return False

        monkeypatch.setattr(process, "_heed", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(TELL, loaded=("endless",))
        servers.close()
        assert running("endless") == []

    def test_the_server_ends_with_the_block(self, run: Any, tmp_path: Path) -> None:
        with fork_servers.serving():
            assert run(TELL).ok
            assert is_fork(tmp_path / "out")
            server = int(words(tmp_path / "out")[1])
            assert alive(server)
        assert not Path(f"/proc/{server}").exists(), "not even as a zombie"

    def test_a_server_that_is_killed_is_done_without(
        self, servers: Servers, run: Any, tmp_path: Path
    ) -> None:
        run(TELL)
        os.kill(int(words(tmp_path / "out")[1]), signal.SIGKILL)
        assert run(TELL).ok
        assert not is_fork(tmp_path / "out")

    def test_a_fork_ends_with_its_server(self, servers: Servers, run: Any, tmp_path: Path) -> None:
        code = f"import os; print(os.getppid(), os.getpid(), flush=True); {HANG}"

        def tick() -> None:
            if len(told := ids(tmp_path / "out")) == 2 and alive(told[0]):
                os.kill(told[0], signal.SIGKILL)

        assert run(code, on_tick=tick).signal == "SIGKILL"
        wait_until(lambda: not any(map(alive, ids(tmp_path / "out"))))

    @pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
    def test_no_process_outlives_the_one_that_has_servers(
        self, tmp_path: Path, number: signal.Signals
    ) -> None:
        code = (
            "import sys; from pathlib import Path\n"
            "from iree_pilot.pipeline.processes import fork_servers, process\n"
            "here = Path(sys.argv[1])\n"
            "with fork_servers.serving():\n"
            "    process.run([sys.executable, 'script.py'], stdout=here / 'out',\n"
            "        stderr=here / 'err', cwd=here, loaded=('colorsys',))\n"
        )
        told = PARENT.replace("os.getpid(),", "os.getppid(), os.getpid(),")
        (tmp_path / "script.py").write_text(told + HANG)
        argv = [sys.executable, "-c", code, str(tmp_path)]
        driver = os.posix_spawn(sys.executable, argv, os.environ)
        wait_until(lambda: len(ids(tmp_path / "out")) == 3)
        os.kill(driver, number)
        os.waitpid(driver, 0)
        wait_until(lambda: not any(map(alive, ids(tmp_path / "out"))))
