"""Looking at processes from outside: which live, and waiting for what they do, with a deadline."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

DEADLINE_SECONDS = 30.0
_BETWEEN_LOOKS = threading.Event()  # nobody sets it: a look every hundredth of a second


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] not in "ZX"


def wait_until(condition: Callable[[], bool], *, seconds: float = DEADLINE_SECONDS) -> None:
    """Returns once the condition holds; AssertionError when it does not before the deadline."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        _BETWEEN_LOOKS.wait(0.01)


def running(word: str) -> list[int]:
    """The processes with `word` in their command lines."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes()
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue
            if word.encode() in command and alive(int(entry.name)):
                found.append(int(entry.name))
    return found
