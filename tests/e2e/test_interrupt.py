"""A command that is stopped, however, leaves no process and nothing half-written behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from driver import start
from fake import stub_release
from fake.processes import running, wait_until

MAIN = (
    '  "func.func"() <{function_type = (tensor<2xf32>) -> tensor<2xf32>, sym_name = "main"}> ({\n'
)
MAIN_PROGRAM = (
    "func.func @main(%0: tensor<4xf32>) -> tensor<4xf32> {\n  return %0 : tensor<4xf32>\n}\n"
)
STOPS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


class Desk:
    """A working directory with a stub release; what is started is told by its starts."""

    def __init__(self, directory: Path, cache: Path) -> None:
        self.directory = directory
        self.cache = cache
        self.release = directory / "release"
        self.starts = directory / "starts"
        stub_release(self.release)

    def write(self, text: str) -> None:
        (self.directory / "a.mlir").write_text(text)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return start(
            *arguments,
            "--release",
            str(self.release),
            cwd=self.directory,
            env={"IREE_STUB_STARTS": self.starts, "TMPDIR": self.scratch},
        )

    @property
    def scratch(self) -> Path:
        directory = self.directory / "scratch"
        directory.mkdir(exist_ok=True)
        return directory

    def started(self, word: str) -> int:
        """How many tools were started with `word` on their command lines."""
        lines = self.starts.read_text().splitlines() if self.starts.exists() else []
        return sum(word in line for line in lines)

    def check_clean(self) -> None:
        wait_until(lambda: running(str(self.release / "iree")) == [])
        left = [*(self.cache / "store").glob(".tmp/*"), *self.scratch.glob("iree-pilot-*")]
        assert left == []
        assert list(self.directory.glob(".*")) == []


@pytest.fixture
def desk(tmp_path: Path, cache: Path) -> Desk:
    return Desk(tmp_path, cache)


def end(process: subprocess.Popen[str], number: int) -> tuple[int, str, str]:
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    return process.returncode, out, err.lstrip()  # an empty line takes a terminal past its ^C


@pytest.mark.parametrize("number", STOPS, ids=lambda n: n.name)
def test_while_compiling(desk: Desk, number: int) -> None:
    desk.write("// stub: hang-at flow\n")
    process = desk.start("compile", "a.mlir", "-t", "llvm-cpu", "-o", "out.vmfb")
    wait_until(lambda: desk.started("--dump-compilation-phases-to") == 1)
    code, _, err = end(process, number)
    assert (code, err) == (130, "interrupted\n")
    assert not (desk.directory / "out.vmfb").exists()
    desk.check_clean()


def test_json_has_what_was_finished(desk: Desk) -> None:
    stub_release(desk.release, mends=[{"given": ["--iree-hal-target-device=local"]}])
    desk.write("// stub: hang-at flow\n")
    targets = "llvm-cpu,vulkan:vp_android_baseline_2022"
    process = desk.start("compile", "a.mlir", "-t", targets, "--json")
    wait_until(lambda: desk.started("--dump-compilation-phases-to") == 2)
    code, out, err = end(process, signal.SIGINT)
    assert (code, err) == (130, "interrupted\n")
    document = json.loads(out)
    (finished,) = document["cases"]
    assert (finished["target"], finished["status"]) == ("llvm-cpu", "compiled")
    assert document["program"]["source"] == "a.mlir"
    assert document["error"]["exit_code"] == 130


def test_json_has_the_cases_of_a_night_that_are_done_and_those_that_are_not(desk: Desk) -> None:
    (desk.directory / "done.mlir").write_text(MAIN_PROGRAM)
    desk.write(f"// stub: hang-at flow\n{MAIN_PROGRAM}")
    (desk.directory / "nightly.toml").write_text(
        '[matrix]\nmodels = ["done.mlir", "a.mlir"]\ntargets = ["hip:gfx942"]\n'
        "[schedule]\njobs = 2\n"
    )
    database = desk.directory / "history.db"
    night = desk.start("nightly", "run", "--json", "--database", str(database))

    def one_is_done() -> bool:
        with (
            contextlib.suppress(sqlite3.OperationalError),  # it is only being made
            contextlib.closing(sqlite3.connect(database)) as history,
        ):
            ((done,),) = history.execute("SELECT count(status) FROM outcomes")
            return done == 1 and desk.started("a.mlir") > 0
        return False

    wait_until(one_is_done)
    code, out, err = end(night, signal.SIGINT)
    document = json.loads(out)
    assert (code, err.endswith("interrupted\n")) == (130, True)
    outcomes = {row["case"]["source"]: row["outcome"] for row in document["rows"]}
    assert outcomes["done.mlir"]["result"]["status"] == "compiled"
    assert outcomes["a.mlir"] is None
    assert (document["run"]["finished"], document["run"]["done"]) == (None, 1)
    assert document["error"]["exit_code"] == 130
    wait_until(lambda: running(str(desk.release / "iree")) == [])


def test_json_has_its_one_document_where_nothing_was_finished(desk: Desk) -> None:
    desk.write("// stub: hang-at parse\n")
    process = desk.start("bisect", "a.mlir", "-t", "llvm-cpu", "--json")
    wait_until(lambda: desk.started("iree-opt") == 1)
    code, out, _ = end(process, signal.SIGINT)
    error = {"message": "interrupted", "advice": "", "exit_code": 130}
    assert (code, json.loads(out)) == (130, {"error": error})


def test_while_confirming_the_failed_phase(desk: Desk) -> None:
    desk.write("// stub: error-at flow no unless-resumed\n// stub: hang-at flow\n")
    process = desk.start("compile", "a.mlir", "-t", "llvm-cpu")
    wait_until(lambda: desk.started("--compile-from=dispatch-creation") == 1)
    assert end(process, signal.SIGINT)[::2] == (130, "interrupted\n")
    desk.check_clean()


def test_while_reading_the_program(desk: Desk) -> None:
    desk.write("// stub: hang-at parse\n")
    process = desk.start("compile", "a.mlir", "-t", "llvm-cpu")
    wait_until(lambda: desk.started("iree-opt") == 1)
    assert end(process, signal.SIGINT)[::2] == (130, "interrupted\n")
    desk.check_clean()


def test_while_running(desk: Desk) -> None:
    stub_release(desk.release, run={"local-task": "hang"})
    desk.write(MAIN)
    process = desk.start("run", "a.mlir", "-t", "llvm-cpu")
    wait_until(lambda: desk.started("--module=") == 1)
    assert end(process, signal.SIGINT)[::2] == (130, "interrupted\n")
    desk.check_clean()


@pytest.mark.real
def test_while_tracing(desk: Desk) -> None:
    (desk.directory / "model.py").write_text(
        "import os, signal\n"
        "def inputs():\n    return ()\n"
        "def model():\n"
        "    open('pid', 'w').write(str(os.getpid()))\n"
        "    signal.pause()\n"
    )
    process = desk.start("trace", "model.py", "-o", "traced")
    pid = desk.directory / "pid"
    wait_until(lambda: pid.exists() and pid.read_text() != "")
    assert end(process, signal.SIGINT)[::2] == (130, "interrupted\n")
    wait_until(lambda: not Path("/proc", pid.read_text()).exists())
    assert not (desk.directory / "traced").exists()
    desk.check_clean()


def test_while_waiting_for_another_process(desk: Desk) -> None:
    desk.write("// stub: wait-at flow go\n")
    first = desk.start("compile", "a.mlir", "-t", "llvm-cpu")
    wait_until(lambda: desk.started("--dump-compilation-phases-to") == 1)
    second = desk.start("compile", "a.mlir", "-t", "llvm-cpu")
    assert second.stdout is not None
    heard = ""
    while "waiting" not in heard:
        line = second.stdout.readline()
        assert line, "it ended before it waited"
        heard += line
    assert end(second, signal.SIGINT)[0] == 130
    (desk.directory / "go").touch()
    first.communicate(timeout=30)
    assert first.returncode == 0, "the other one goes on"
    desk.check_clean()


def test_two_at_once_compile_once(desk: Desk) -> None:
    desk.write("// stub: wait-at flow go\n")
    first = desk.start("compile", "a.mlir", "-t", "llvm-cpu", "-o", "one.vmfb")
    wait_until(lambda: desk.started("--dump-compilation-phases-to") == 1)
    second = desk.start("compile", "a.mlir", "-t", "llvm-cpu", "-o", "two.vmfb")
    assert second.stdout is not None
    while "another process is compiling the same; waiting" not in second.stdout.readline():
        assert second.poll() is None
    (desk.directory / "go").touch()
    for process in (first, second):
        process.communicate(timeout=30)
        assert process.returncode == 0
    assert desk.started("--dump-compilation-phases-to") == 1
    one, two = (desk.directory / name for name in ("one.vmfb", "two.vmfb"))
    assert one.read_bytes() == two.read_bytes() != b""
    desk.check_clean()


def test_a_killed_driver_takes_the_compiler_with_it(desk: Desk) -> None:
    desk.write("// stub: hang-at flow\n")
    process = desk.start("compile", "a.mlir", "-t", "llvm-cpu")
    wait_until(lambda: desk.started("--dump-compilation-phases-to") == 1)
    process.kill()
    process.communicate(timeout=30)
    wait_until(lambda: running(str(desk.release / "iree")) == [])
    desk.write("module {\n}\n")
    after = desk.start("compile", "a.mlir", "-t", "llvm-cpu")
    after.communicate(timeout=30)
    assert after.returncode == 0
    assert list((desk.cache / "store").glob(".tmp/*")) == [], "the next one cleans up after it"


def test_the_group_of_a_terminal_is_interrupted_as_a_whole(desk: Desk) -> None:
    """Ctrl-C reaches every process of the foreground group: the driver alone answers."""
    desk.write("// stub: hang-at flow\n")
    process = start(
        "compile",
        "a.mlir",
        "-t",
        "llvm-cpu",
        "--release",
        str(desk.release),
        cwd=desk.directory,
        env={"IREE_STUB_STARTS": desk.starts, "TMPDIR": desk.scratch},
        process_group=0,
    )
    wait_until(lambda: desk.started("--dump-compilation-phases-to") == 1)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err.lstrip()) == (130, "interrupted\n")
    desk.check_clean()


def test_a_reader_that_goes_away_ends_it_quietly(desk: Desk) -> None:
    desk.write("module {\n}\n")
    process: Any = desk.start("compile", "a.mlir", "-t", "llvm-cpu")
    process.stdout.close()
    process.stdout = None
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (141, "")
    desk.check_clean()


SWALLOWED = """
import os, pathlib, signal, sys
import click
from iree_pilot.pipeline.processes import process
from iree_pilot.pipeline.cli.boundary import guarded

# What is raised in a callback of a fork is printed and forgotten, and there Ctrl-C may come.
os.register_at_fork(after_in_parent=lambda: os.kill(os.getpid(), signal.SIGINT))

@click.command()
def command():
    here = pathlib.Path(sys.argv[1])
    process.run(["sleep", "600"], stdout=here / "out", stderr=here / "err")

sys.exit(guarded(command, []))
"""


def test_a_ctrl_c_that_python_swallows_is_heard_all_the_same(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SWALLOWED, tmp_path],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Exception ignored" in done.stderr
    assert (done.returncode, done.stderr.splitlines()[-1]) == (130, "interrupted")


def test_what_nohup_ignores_stays_ignored(tmp_path: Path) -> None:
    code = (
        "import signal, click\n"
        "from iree_pilot.pipeline.cli.boundary import guarded\n"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "guarded(click.Command('x', callback=lambda: signal.raise_signal(signal.SIGHUP)), [])\n"
        "print('survived')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("survived\n", "")
