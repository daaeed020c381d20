"""What the tests of `pipeline.processes.task` have done in a child."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from iree_pilot.pipeline.errors import EnvironmentFault, UsageError


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """Numbers to work on, and what is to happen after them."""

    numbers: tuple[int, ...] = ()
    then: str = ""


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """The square of a number."""

    square: int


def total(request: Request, directory: Path) -> Reply:
    (directory / "beside.txt").write_text("written")
    return Reply(square=sum(n * n for n in request.numbers))


def squares(request: Request, directory: Path) -> Iterator[Reply]:
    for number in request.numbers:
        yield Reply(square=number * number)
    if request.then == "dies":
        print("last words", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGSEGV)
    if request.then == "leaves":
        sys.stderr.write("gone\n")
        sys.stderr.flush()
        os._exit(7)
    if request.then == "hangs":
        while True:
            time.sleep(60)
    if request.then == "tears":
        # A reply of which only half is written when the child dies.
        with (directory / "replies.jsonl").open("ab") as replies:
            replies.write(b'{"squa')
        os.kill(os.getpid(), signal.SIGKILL)


def raises(request: Request, directory: Path) -> Reply:
    if request.then == "usage":
        raise UsageError("no such thing", advice="Name another.")
    if request.then == "environment":
        raise EnvironmentFault("no driver", advice="Install it.")
    if request.then == "import":
        raise ModuleNotFoundError("No module named 'nosuch'")
    if request.then == "exit":
        raise SystemExit(0)
    fault = ValueError("not this")
    fault.add_note("a note")
    raise fault
