"""Journal of traces, on disk at once: an interrupted search resumes from it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from iree_pilot.pipeline.failures.diagnostics import Failure
from iree_pilot.pipeline.frontends.job import Job
from iree_pilot.pipeline.program.program import Decided
from iree_pilot.pipeline.store.journal import Journal

ANSWERS = "traces.jsonl"


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """Isolate this failure to trace `job.source`, in the directory that the request lies in."""

    job: Job
    failure: Failure


class TraceCandidate(msgspec.Struct, frozen=True, kw_only=True):
    """One operation that may be at fault, written as a program to `file` in the directory."""

    file: str
    ops: tuple[str, ...]


class TraceAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Result of a trace; failure None: it traces.

    exported: torch.export has passed, what follows has not. strict: the mode that it took. module:
    the path of the innermost module that was at work, where known. operations: candidates for the
    operation that was. decided: values that the trace took as given.
    """

    failure: Failure | None
    exported: bool = False
    strict: bool = False
    module: str | None = None
    operations: tuple[TraceCandidate, ...] = ()
    decided: tuple[Decided, ...] = ()


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """Result of a search: a program of the directory, or the reason why there is none.

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


class _JournalLine(msgspec.Struct, frozen=True):
    """A question; one without an answer was being asked."""

    probe: str
    answer: TraceAnswer | None = None


class Traces:
    """The answers by question, as `directory` has them and gets more.

    pending: the question that was being asked when the search was cut off.
    """

    def __init__(self, directory: Path) -> None:
        self._journal = Journal(directory / ANSWERS, _JournalLine)
        self.pending: str | None = None
        self.known: dict[str, TraceAnswer] = {}
        for line in self._journal:
            self.pending = line.probe if line.answer is None else None
            if line.answer is not None:
                self.known[line.probe] = line.answer

    @property
    def size(self) -> int:
        """Size of the file in bytes: it grows with each question and each answer."""
        return self._journal.size

    def ask(self, probe: str, trace: Callable[[], TraceAnswer]) -> TraceAnswer:
        """The answer that is known, or else that of `trace`."""
        if probe not in self.known:
            self._journal.append(_JournalLine(probe))
            self.settle(probe, trace())
        return self.known[probe]

    def settle(self, probe: str, answer: TraceAnswer) -> None:
        """Keeps an answer."""
        self._journal.append(_JournalLine(probe, answer))
        self.known[probe] = answer
        self.pending = None

    def forget(self) -> None:
        """Begins anew."""
        self._journal.clear()
        self.known.clear()
        self.pending = None
