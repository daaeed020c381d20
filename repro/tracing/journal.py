"""What was asked of the tracer, on disk at once: a search that is cut off goes on from there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from iree_pilot.pipeline.diagnostics import Failure
from iree_pilot.pipeline.frontends.job import Job

ANSWERS = "traces.jsonl"


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """Isolate this failure to trace `job.source`, in the directory that the request lies in."""

    job: Job
    failure: Failure


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """One operation that may be at fault, written as a program to `file` in the directory."""

    file: str
    ops: tuple[str, ...]


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What came of tracing something; failure None: it traces.

    exported: torch.export has passed, what follows has not. strict: the mode that it took. module:
    the path of the innermost module that was at work, where known. operations: candidates for the
    operation that was.
    """

    failure: Failure | None
    exported: bool = False
    strict: bool = False
    module: str | None = None
    operations: tuple[Candidate, ...] = ()


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """How a search ended: with a program of the directory, or with the reason why there is none.

    file: the program, beside: files that it imports, by their names in the folder. failure: as
    the program shows it. ops: what PyTorch runs in it. subject: what it is, in words. tried:
    sentences on how it was found. exported: torch.export passes, or was not asked. minimal: nothing
    in it fails alone.
    """

    why: str = ""
    file: str = ""
    beside: dict[str, str] = {}
    failure: Failure | None = None
    ops: tuple[str, ...] = ()
    subject: str = ""
    tried: tuple[str, ...] = ()
    exported: bool = True
    minimal: bool = False


class _Line(msgspec.Struct, frozen=True):
    """A question; one without an answer was being asked."""

    probe: str
    answer: Answer | None = None


class Journal:
    """The answers by question; calls counts those that were not known before."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / ANSWERS
        self.pending: str | None = None
        self.known: dict[str, Answer] = {}
        for line in self._file.read_bytes().splitlines() if self._file.is_file() else ():
            try:
                entry = msgspec.json.decode(line, type=_Line)
            except msgspec.DecodeError:
                continue  # it was cut off
            self.pending = entry.probe if entry.answer is None else None
            if entry.answer is not None:
                self.known[entry.probe] = entry.answer

    def ask(self, probe: str, trace: Callable[[], Answer]) -> Answer:
        """The answer that is known, or else that of `trace`."""
        if probe not in self.known:
            self._write(_Line(probe))
            self.settle(probe, trace())
        return self.known[probe]

    def settle(self, probe: str, answer: Answer) -> None:
        """Keeps an answer."""
        self._write(_Line(probe, answer))
        self.known[probe] = answer
        self.pending = None

    def forget(self) -> None:
        """Begins anew."""
        self._file.unlink(missing_ok=True)
        self.known.clear()
        self.pending = None

    def _write(self, line: _Line) -> None:
        with self._file.open("ab") as file:
            file.write(msgspec.json.encode(line) + b"\n")
