"""Kills what children leave behind when this process is killed: their own children.

The system kills a child whose parent dies (`die_with_parent` asks it to), but not what that child
has started: a script's compiler, a compiler's linker. So a small process keeps a list of the groups
that children lead, and when this end of its pipe closes, because this process has ended in
whatever way, it kills those that are still on the list.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from threading import Lock

_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1
#: Lines "+GROUP" and "-GROUP" until the pipe is closed. It ignores what ends its own group.
_KEEPER = """
import os, signal, sys
os.chdir("/")
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
groups = set()
for line in sys.stdin:
    (groups.add if line[0] == "+" else groups.discard)(int(line[1:]))
for group in groups:
    try:
        os.killpg(group, signal.SIGKILL)
    except OSError:
        pass
"""


def die_with_parent() -> None:
    """Called in a child before it becomes another program: the system kills it with its parent."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # one libc call, loaded beforehand


class _Keeper:
    """The keeper of this process, started with its first child; a forked process has its own."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._owner = 0
        self._pipe = -1

    def tell(self, line: str) -> None:
        with self._lock, contextlib.suppress(OSError):
            if self._owner != os.getpid():
                self._start()
            os.write(self._pipe, line.encode())

    def _start(self) -> None:
        reading, self._pipe = os.pipe()
        self._owner = os.getpid()
        null = os.open(os.devnull, os.O_WRONLY)
        try:
            os.posix_spawn(
                sys.executable,
                [sys.executable, "-I", "-S", "-c", _KEEPER],
                os.environ,
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, reading, 0),
                    (os.POSIX_SPAWN_DUP2, null, 1),
                    (os.POSIX_SPAWN_DUP2, null, 2),
                ],
                setsid=True,
            )
        finally:
            os.close(reading)
            os.close(null)


_KEEPER_OF_THIS_PROCESS = _Keeper()


@contextlib.contextmanager
def kept(group: int) -> Iterator[None]:
    """Until the block ends, the process group is killed should this process end."""
    _KEEPER_OF_THIS_PROCESS.tell(f"+{group}\n")
    try:
        yield
    finally:
        _KEEPER_OF_THIS_PROCESS.tell(f"-{group}\n")
