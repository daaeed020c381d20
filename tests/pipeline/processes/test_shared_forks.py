"""Forks by servers that processes share: those that the tests have, see `tests/warm.py`."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import warm
from fake.processes import alive, wait_until

from iree_pilot.pipeline.processes import fork_servers, process, task
from iree_pilot.pipeline.processes.process import Limits, Outcome

LOADED = ("colorsys",)
TELL = "import os, sys; print('colorsys' in sys.modules, os.getpid())"
HANG = "import signal; signal.pause()"


@pytest.fixture
def socket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with warm.listening() as path:
        monkeypatch.setenv(fork_servers.SHARED, path)
        yield path


@pytest.fixture
def run(tmp_path: Path) -> Any:
    """Runs a script whose text is given, and returns (outcome, what it told)."""

    def python(code: str, **options: Any) -> tuple[Outcome, list[str]]:
        (tmp_path / "script.py").write_text(code)
        outcome = process.run(
            [sys.executable, "script.py"],
            stdout=tmp_path / "out",
            stderr=tmp_path / "err",
            **{"cwd": tmp_path, "loaded": LOADED, **options},
        )
        return outcome, (tmp_path / "out").read_text().split()

    return python


@pytest.mark.usefixtures("socket")
class TestWhatIsForked:
    def test_what_names_modules_with_its_own_environment(
        self, run: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("IREE_PILOT_DATA", "TMPDIR"):
            monkeypatch.setenv(name, os.environ["IREE_PILOT_CACHE"])
        outcome, told = run(TELL)
        assert outcome.ok
        assert told[0] == "True"

    def test_not_what_names_none(self, run: Any) -> None:
        assert run(TELL, loaded=None)[1][0] == "False"

    @pytest.mark.parametrize("name", ["PYTHONPATH", "OMP_NUM_THREADS", "HF_HOME", "OWN"])
    def test_nor_what_imports_may_make_something_else_of(self, run: Any, name: str) -> None:
        outcome, told = run(TELL, env={**os.environ, name: "/nowhere"})
        assert outcome.ok
        assert told[0] == "False"

    def test_nor_what_a_process_with_other_limits_starts(self, tmp_path: Path) -> None:
        code = (
            "import resource, sys; from pathlib import Path\n"
            "from iree_pilot.pipeline.processes import process\n"
            "resource.setrlimit(resource.RLIMIT_CORE, (0, int(sys.argv[1])))\n"
            "process.run([sys.executable, 'tell.py'], stdout=Path('out'), stderr=Path('err'),\n"
            f"    loaded={LOADED!r})\n"
        )
        (tmp_path / "tell.py").write_text(TELL)
        (tmp_path / "driver.py").write_text(code)
        streams = {"stdout": tmp_path / "said", "stderr": tmp_path / "why"}
        command = [sys.executable, "driver.py", "4096"]
        assert process.run(command, cwd=tmp_path, **streams).ok
        assert (tmp_path / "out").read_text().split()[0] == "False"

    def test_calls_of_our_functions_by_their_module(self, tmp_path: Path) -> None:
        function = "iree_pilot.pipeline.frontends.libraries:imported"
        done = task.call(function, {"a": "colorsys"}, dict, tmp_path / "call")
        assert done.reply == {"name": "a", "why": ""}
        assert done.stderr == ""

    def test_a_module_that_cannot_be_loaded_is_met_by_the_command(self, run: Any) -> None:
        assert run("import nosuch", loaded=("nosuch",))[0].exit_code == 1

    def test_it_works_where_its_own_process_is_or_is_told_to(
        self, run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "a").mkdir()
        monkeypatch.chdir(tmp_path)
        tell = "import os, sys; print('colorsys' in sys.modules, os.getcwd())"
        assert run(tell, cwd=None)[1] == ["True", str(tmp_path)]
        (tmp_path / "a" / "script.py").write_text(tell)
        assert run(tell, cwd=Path("a"))[1] == ["True", str(tmp_path / "a")]

    @pytest.mark.slow
    def test_its_end_is_told_as_that_of_any_child(self, run: Any) -> None:
        assert run("raise SystemExit(7)")[0].exit_code == 7
        assert run("import os; os.abort()")[0].signal == "SIGABRT"
        assert run(HANG, limits=Limits(seconds=1))[0].ended_by == "time-limit"

    def test_it_ends_with_whoever_asked(self, tmp_path: Path) -> None:
        code = (
            "import sys; from pathlib import Path\n"
            "from iree_pilot.pipeline.processes import process\n"
            "here = Path(sys.argv[1])\n"
            "process.run([sys.executable, 'script.py'], stdout=here / 'out', stderr=here / 'err',\n"
            f"    cwd=here, loaded={LOADED!r})\n"
        )
        (tmp_path / "script.py").write_text(
            f"import os, sys; print('colorsys' in sys.modules, os.getpid(), flush=True); {HANG}"
        )
        argv = [sys.executable, "-c", code, str(tmp_path)]
        driver = os.posix_spawn(sys.executable, argv, os.environ)
        out = tmp_path / "out"
        wait_until(lambda: out.exists() and len(out.read_text().split()) == 2)
        forked, pid = out.read_text().split()
        assert forked == "True"
        os.kill(driver, signal.SIGKILL)
        os.waitpid(driver, 0)
        wait_until(lambda: not alive(int(pid)))


def test_without_anybody_there_it_is_started_as_any_other(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(fork_servers.SHARED, str(tmp_path / "nobody"))
    outcome, told = run(TELL)
    assert outcome.ok
    assert told[0] == "False"


def test_servers_end_with_the_process_that_has_them(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with warm.listening() as path:
        monkeypatch.setenv(fork_servers.SHARED, path)
        _, told = run("import os, sys; print('colorsys' in sys.modules, os.getppid())")
    assert told[0] == "True"
    wait_until(lambda: not alive(int(told[1])))
