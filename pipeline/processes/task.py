"""Calls a function of ours in a child process: a request in, replies out, as JSON in a directory.

What may abort (the compiler's bindings), loads torch or needs a limit runs in a child. The function
is named, not passed, so that the caller imports nothing of what it needs:

    def function(request: Request, directory: Path) -> Reply            # one, or
    def function(request: Request, directory: Path) -> Iterator[Reply]  # each kept at once

The directory is the caller's, and holds request.json, replies.jsonl, fault.json, stdout.txt and
stderr.txt afterwards, with whatever the function writes beside them.
"""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import inspect
import os
import select
import signal
import sys
import time
import traceback
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import copy_context
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any, Generic, Literal, TypeVar

import msgspec

from iree_pilot.pipeline.errors import EnvironmentFault, PilotError
from iree_pilot.pipeline.processes import process

T = TypeVar("T")

REQUEST, REPLIES, FAULT = "request.json", "replies.jsonl", "fault.json"
STDOUT, STDERR = "stdout.txt", "stderr.txt"
#: What a call leaves in its directory.
FILES = (REQUEST, REPLIES, FAULT, STDOUT, STDERR)
#: Threads that make decoders for the same type at the same time can crash msgspec.
_DECODING = Lock()
#: What the thread that waits for a worker says when that has ended.
_ENDED = b"ended\n"


class ChildFault(msgspec.Struct, frozen=True, kw_only=True):
    """What the function raised: the name of its class, and its text.

    advice, exit_code: of a `PilotError`; exit_code is 0 for anything else. notes: as
    `BaseException.add_note` added them. frames: (file, line, function), outermost first.
    """

    exception: str
    message: str
    advice: str = ""
    exit_code: int = 0
    notes: tuple[str, ...] = ()
    frames: tuple[tuple[str, int, str], ...] = ()

    @classmethod
    def of(cls, raised: BaseException) -> ChildFault:
        known = raised if isinstance(raised, PilotError) else None
        return cls(
            exception=type(raised).__name__,
            message=(known.message if known else str(raised)) or type(raised).__name__,
            advice=known.advice if known else "",
            exit_code=known.exit_code if known else 0,
            notes=tuple(getattr(raised, "__notes__", ())),
            frames=tuple(
                (frame.filename, frame.lineno or 0, frame.name)
                for frame in traceback.extract_tb(raised.__traceback__)
            ),
        )


class Done(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """How a call ended. replies: those that were made before it did. fault: None where it raised
    nothing, also where the child died."""

    outcome: process.Outcome
    replies: tuple[T, ...]
    stderr: str
    fault: ChildFault | None = None

    @property
    def reply(self) -> T | None:
        """The last reply of a call that came to its end, None of any other."""
        return self.replies[-1] if self.outcome.ok and self.replies else None

    @property
    def why(self) -> str:
        """Why it did not come to its end, in a few words; empty where it did."""
        if self.outcome.ok:
            return ""
        if self.fault is not None:
            return self.fault.message
        how = self.outcome.signal or f"exit code {self.outcome.exit_code}"
        if self.outcome.ended_by not in ("exit", "signal"):
            how = f"its {self.outcome.ended_by.replace('-', ' ')}"
        last = self.stderr.strip().rpartition("\n")[2]
        return f"the child process met {how}" + (f": {last}" if last else "")


def call(
    function: str,
    request: object,
    reply: type[T],
    directory: Path,
    *,
    limits: process.Limits | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    on_tick: Callable[[], object] | None = None,
) -> Done[T]:
    """Calls `module:function` in a child that works in `directory`, which is made if need be.

    env: in place of this process's environment. on_tick: as `process.run` has it. What the function
    raises is in what is returned, but for the faults of the environment: raises EnvironmentFault
    for those, also where something that the function imports is not there, and OSError where the
    disk is full.
    """
    _ask(request, directory)
    outcome = process.run(
        process.python(__name__, function, directory.absolute()),
        stdout=directory / STDOUT,
        stderr=directory / STDERR,
        limits=limits,
        env=env,
        cwd=cwd,
        on_tick=on_tick,
    )
    return _done(function, outcome, reply, directory)


def _done(function: str, outcome: process.Outcome, reply: type[T], directory: Path) -> Done[T]:
    fault = _fault(directory)
    if fault is not None and fault.exit_code == EnvironmentFault.exit_code:
        raise EnvironmentFault(fault.message, advice=fault.advice)
    if fault is not None and fault.exception in ("ImportError", "ModuleNotFoundError"):
        raise EnvironmentFault(
            f"cannot start {function}: {fault.message}",
            advice="`iree-pilot doctor` shows whether its packages are installed.",
        )
    if not outcome.ok:
        process.check_disk(directory / STDERR)
    return Done(
        outcome=outcome,
        replies=_replies(directory, reply),
        stderr=(directory / STDERR).read_text(errors="replace"),
        fault=fault,
    )


class Worker:
    """A child that stays, and calls `function` in a fork of itself each time: what that imports is
    loaded once.

    It starts when it is first called; its pipes lie in `directory`. Close it: it would wait for
    calls for as long as this process lives.
    """

    def __init__(self, function: str, directory: Path) -> None:
        self._function = function
        self._directory = directory
        self._thread: Thread | None = None
        self._stop = Event()
        self._to = self._from = -1

    def call(
        self, request: object, reply: type[T], directory: Path, *, seconds: float | None = None
    ) -> Done[T]:
        """As `call` does; seconds: wall time that it may take."""
        _ask(request, directory)
        if self._thread is None:
            self._start()
        started = time.monotonic()
        os.write(self._to, f"{directory.absolute()}\n".encode())
        poll = select.poll()
        poll.register(self._from, select.POLLIN)
        ended_by: Literal["exit", "signal", "time-limit"] = "exit"
        status = -signal.SIGKILL
        if not poll.poll(None if seconds is None else seconds * 1000):
            ended_by = "time-limit"
            self.close()
        elif (answer := os.read(self._from, 4096)).endswith(_ENDED):
            self.close()
        else:
            status = int(answer)
        if status < 0 and ended_by == "exit":
            ended_by = "signal"
        (directory / STDERR).touch()
        outcome = process.Outcome(
            argv=(self._function,),
            ended_by=ended_by,
            exit_code=None if status < 0 else status,
            signal=signal.Signals(-status).name if status < 0 else None,
            seconds=time.monotonic() - started,
            peak_bytes=0,
        )
        return _done(self._function, outcome, reply, directory)

    def close(self) -> None:
        """Ends the child; it is started again when it is called again."""
        if self._thread is None:
            return
        self._stop.set()
        self._thread.join()
        self._thread = None
        os.close(self._to)
        os.close(self._from)

    def _start(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        pipes = [self._directory / name for name in ("requests", "answers")]
        for pipe in pipes:
            pipe.unlink(missing_ok=True)
            os.mkfifo(pipe)
        # Open at both ends, so that neither side waits for the other one to open it.
        self._to, self._from = (os.open(pipe, os.O_RDWR) for pipe in pipes)
        self._stop = Event()
        self._thread = Thread(target=copy_context().run, args=(self._run, *pipes, self._stop))
        self._thread.start()

    def _run(self, requests: Path, answers: Path, stop: Event) -> None:
        process.STOP.set(stop)
        with contextlib.suppress(KeyboardInterrupt):
            process.run(
                process.python(__name__, self._function, requests, answers),
                stdout=self._directory / STDOUT,
                stderr=self._directory / STDERR,
            )
        os.write(self._from, _ENDED)


def _ask(request: object, directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for name in (REPLIES, FAULT):
        (directory / name).unlink(missing_ok=True)
    (directory / REQUEST).write_bytes(msgspec.json.encode(request))


def _replies(directory: Path, kind: type[T]) -> tuple[T, ...]:
    """The replies that were written whole."""
    file = directory / REPLIES
    lines = file.read_bytes().split(b"\n")[:-1] if file.is_file() else ()
    with _DECODING:
        decoder = msgspec.json.Decoder(kind)
    return tuple(decoder.decode(line) for line in lines)


def _fault(directory: Path) -> ChildFault | None:
    file = directory / FAULT
    return msgspec.json.decode(file.read_bytes(), type=ChildFault) if file.is_file() else None


def main(function: str, directory: Path) -> int:
    """Carries out the request in a directory; returns the exit status."""
    faulthandler.enable()  # a crash in native code then names the line
    try:
        with (directory / REPLIES).open("ab", buffering=0) as replies:
            for reply in _carried_out(_imported(function), directory):
                replies.write(msgspec.json.encode(reply) + b"\n")
    except BaseException as raised:  # noqa: BLE001 - a user's model may raise anything
        fault = ChildFault.of(raised)
        # On a full disk this is all that gets out.
        print(f"{fault.exception}: {fault.message}", file=sys.stderr, flush=True)
        partial = directory / f".{FAULT}"
        partial.write_bytes(msgspec.json.encode(fault))
        partial.replace(directory / FAULT)
        return 1
    return 0


def _carried_out(function: Callable[[Any, Path], Any], directory: Path) -> Iterable[object]:
    hints = typing.get_type_hints(function)
    kind = hints[next(iter(inspect.signature(function).parameters))]
    made = function(msgspec.json.decode((directory / REQUEST).read_bytes(), type=kind), directory)
    return made if isinstance(made, Iterator) else (made,)


def _imported(function: str) -> Callable[[Any, Path], Any]:
    module, _, name = function.partition(":")
    found: Callable[[Any, Path], Any] = getattr(importlib.import_module(module), name)
    return found


def serve(function: str, requests: Path, answers: Path) -> int:
    """Reads the name of a directory from each line of the pipe `requests`, has a fork carry out
    what is asked there, and writes its exit status, negative for a signal, to `answers`."""
    with contextlib.suppress(Exception):  # each call meets it again, and says so
        _imported(function)
    with requests.open() as asked, answers.open("wb", buffering=0) as answer:
        for line in asked:
            fork = os.fork()
            if fork == 0:
                _forked(function, Path(line.removesuffix("\n")))
            _, status = os.waitpid(fork, 0)
            answer.write(f"{os.waitstatus_to_exitcode(status)}\n".encode())
    return 0


def _forked(function: str, directory: Path) -> None:
    """Carries out the request in this process, which is a fork, and ends it."""
    status = 1
    try:
        printed = os.open(directory / STDERR, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(printed, 2)
        status = main(function, directory)
    finally:
        os._exit(status)


if __name__ == "__main__":
    if len(sys.argv) == 3:
        sys.exit(main(sys.argv[1], Path(sys.argv[2])))
    sys.exit(serve(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])))
