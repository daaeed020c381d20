"""Calls a function of ours in a child process: a request in, replies out, as JSON in a directory.

What may abort (the compiler's bindings), loads torch or needs a limit runs in a child. The function
is named, not passed, so that the caller imports nothing of what it needs:

    def function(request: Request, directory: Path) -> Reply            # one, or
    def function(request: Request, directory: Path) -> Iterator[Reply]  # each kept at once

The directory is the caller's, and holds request.json, replies.jsonl, fault.json, stdout.txt and
stderr.txt afterwards, with whatever the function writes beside them.
"""

from __future__ import annotations

import faulthandler
import importlib
import inspect
import sys
import traceback
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from threading import Lock
from typing import Any, Generic, TypeVar

import msgspec

from iree_pilot.pipeline.errors import EnvironmentFault, PilotError
from iree_pilot.pipeline.processes import fork_servers, process
from iree_pilot.pipeline.processes.fork_servers import Modules, Servers

T = TypeVar("T")

REQUEST, REPLIES, FAULT = "request.json", "replies.jsonl", "fault.json"
STDOUT, STDERR = "stdout.txt", "stderr.txt"
#: Files that a call leaves in its directory.
FILES = (REQUEST, REPLIES, FAULT, STDOUT, STDERR)
#: Threads that make decoders for the same type at the same time can crash msgspec.
_DECODING = Lock()


class ChildFault(msgspec.Struct, frozen=True, kw_only=True):
    """Exception that the function raised: the name of its class, and its text.

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
    """Outcome of a call. replies: those before it ended. fault: None where it raised
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
        """Short reason that it did not finish; empty if it did."""
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
    loaded: Modules | None = None,
) -> Done[T]:
    """Calls `module:function` in a child that works in `directory`, which is made if need be.

    env: in place of this process's environment. on_tick, loaded: as `process.run` has them. What
    the function raises is in what is returned, but for the faults of the environment: raises
    EnvironmentFault for those, also where something that the function imports is not there, and
    OSError where the disk is full.
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
        loaded=loaded,
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
        stderr=(directory / STDERR).read_text(encoding="utf-8", errors="replace"),
        fault=fault,
    )


class Worker:
    """Calls `function` in forks of a process that has imported its module, so that what that
    imports is loaded once.

    The process starts when it is first needed, and is the one that others use where there are
    servers (see `fork_servers`). Close it: else it stays for as long as this process lives.
    """

    def __init__(self, function: str) -> None:
        self._function = function
        self._own = Servers()

    def call(
        self, request: object, reply: type[T], directory: Path, *, seconds: float | None = None
    ) -> Done[T]:
        """Same as `call`; seconds: limit of wall time."""
        module, _, _ = self._function.partition(":")
        limits = process.Limits(seconds=seconds)
        with fork_servers.serving(self._own):
            return call(self._function, request, reply, directory, limits=limits, loaded=(module,))

    def close(self) -> None:
        """Ends the process; it is started again when it is called again."""
        self._own.close()


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


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
