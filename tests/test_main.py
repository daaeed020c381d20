"""A signal ends the command quietly from its first line on, before anything listens to it."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

#: Sends itself a signal when a module is about to be imported, and then runs the command.
AT_IMPORT = """
import os, sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), {number})

sys.meta_path.insert(0, Finder())
from iree_pilot.__main__ import main
sys.argv = ["iree-pilot", "--version"]
main()
"""
#: The same when the command line calls a function of the boundary.
AT_CALL = """
import os, sys
from iree_pilot.pipeline.cli import boundary

def hit(*_, **__):
    os.kill(os.getpid(), {number})

boundary.{function} = hit
from iree_pilot.__main__ import main
sys.argv = ["iree-pilot", "--version"]
main()
"""
STOPS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


def ran(text: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-c", text], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("number", STOPS, ids=lambda n: n.name)
@pytest.mark.parametrize("module", ["click", "msgspec", "iree_pilot.pipeline.cli.boundary"])
def test_while_it_is_loaded(number: signal.Signals, module: str) -> None:
    done = ran(AT_IMPORT.format(module=module, number=int(number)))
    assert (done.returncode, done.stderr) == (-number, "")


@pytest.mark.parametrize("number", STOPS, ids=lambda n: n.name)
def test_before_the_first_word_is_read(number: signal.Signals) -> None:
    done = ran(AT_CALL.format(function="_age", number=int(number)))
    assert (done.returncode, done.stderr) == (130, "interrupted\n")


def test_once_more_while_it_is_said() -> None:
    """Who presses Ctrl-C twice is not told where that was."""
    text = AT_CALL.format(function="_age", number=int(signal.SIGINT))
    again = "boundary._json_too = hit\nfrom iree_pilot.__main__ import main"
    done = ran(text.replace("from iree_pilot.__main__ import main", again))
    assert (done.returncode, done.stderr) == (130, "")


def test_what_is_ignored_stays_so() -> None:
    """As for a command that a shell has put into the background."""
    ignoring = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"
    text = AT_IMPORT.format(module="click", number=int(signal.SIGINT))
    done = ran(ignoring + text)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("iree-pilot")


def test_it_is_the_console_script() -> None:
    from importlib.metadata import entry_points

    (script,) = entry_points(group="console_scripts", name="iree-pilot")
    assert script.value == "iree_pilot.__main__:main"
    done = subprocess.run(
        [Path(sys.executable), "-m", "iree_pilot", "--version"], capture_output=True, check=False
    )
    assert done.returncode == 0
