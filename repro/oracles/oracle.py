"""Oracles: does a candidate program still fail in the same way?"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Literal, Protocol

import msgspec

from iree_pilot.pipeline.failures import diagnostics
from iree_pilot.pipeline.failures.diagnostics import KILLED, Failure
from iree_pilot.pipeline.processes import process
from iree_pilot.pipeline.processes.workers import side_by_side
from iree_pilot.pipeline.store.journal import Journal
from iree_pilot.pipeline.toolchain.compiler import Compile
from iree_pilot.pipeline.toolchain.context import Context
from iree_pilot.pipeline.toolchain.phases import dump_files
from iree_pilot.repro.reducer.spent import Spent
from iree_pilot.repro.reproducer.folder.marks import CONSEQUENCES

Verdict = Literal["same", "different", "passes", "invalid", "unresolved"]


class Off(msgspec.Struct, frozen=True, kw_only=True):
    """Error of results: relative to the size of the output, LOST for NaN, Inf and integers.

    index: of the worst element of an output of this shape.
    """

    error: float
    shape: tuple[int, ...] = ()
    index: tuple[int, ...] = ()


#: Farther than any two numbers are from each other.
LOST = 1e300


#: Words for the verdicts on several candidates.
_WORDS: dict[Verdict, str] = {
    "passes": "pass",
    "different": "fail in another way",
    "invalid": "are no programs",
    "unresolved": "met a limit",
    "same": "fail in the same way",
}


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """same: this failure, with no other but its companions. different: `failure` is another one,
    or has others beside it. passes: gets beyond what fails. invalid: not a program. unresolved: a
    limit was reached before it was known. off: of wrong numbers.
    """

    verdict: Verdict
    failure: Failure | None = None
    off: Off | None = None


class Oracle(Protocol):
    """Answers for candidates in files, several at once where it can.

    calls counts what was compiled. others: failures met on the way that are not the wanted one.
    """

    calls: int
    others: dict[str, Failure]

    def ask(self, candidates: Sequence[Path]) -> list[Answer]: ...

    def again(self, program: Path) -> Failure | None:
        """The failure of a program, found out anew whatever is remembered."""
        ...

    def shows(self, failure: Failure | None) -> bool:
        """True if a run of the whole program shows the wanted failure, whatever else fails."""
        ...

    def said(self, candidate: Path) -> str:
        """Output of the candidate's test; empty if it is not kept."""
        ...


#: Failures that only say that a limit was reached.
STOPPED = ("timeout", "out-of-memory")
#: Memory limits this close count as equal: available memory varies from search to search.
_NEARLY = 0.8


class _OracleEntry(msgspec.Struct, frozen=True):
    """An answer, and the limits that it was found with."""

    digest: str
    answer: Answer
    seconds: float | None = None
    memory_bytes: int | None = None

    def holds(self, limits: process.Limits) -> bool:
        """True if it would be the same with these limits: one that it met was no lower."""
        failure = self.answer.failure
        if failure is None or failure.kind not in STOPPED:
            return True
        if failure.message.startswith(KILLED):  # by somebody else, for whatever reason
            return False
        had, now, least = self.seconds, limits.seconds, 1.0
        if failure.kind == "out-of-memory":
            had, now, least = self.memory_bytes, limits.memory_bytes, _NEARLY
        return had is None or (now is not None and had >= least * now)


def strangers(failure: Failure, wanted: Failure) -> tuple[Failure, ...]:
    """Failures, of one and those that came with it, that are neither `wanted` nor its companions.

    A diagnostic that only follows from another one (`failed to serialize executables`) counts as
    the companion whatever operation it is reported at.
    """
    shown = (msgspec.structs.replace(failure, also=()), *failure.also)
    follows = {one.message for one in wanted.also if one.message.startswith(CONSEQUENCES)}
    return tuple(
        one for one in shown if not wanted.shows(one.signature) and one.message not in follows
    )


class NotAProgram(Exception):
    """The candidate cannot be asked about."""


class RememberingOracle(ABC):
    """Compares what `_failure` finds with the wanted failure, once for each content.

    Companions are the failures that the whole program shows beside the wanted one (`also`): a
    candidate may show them too, and nothing else.

    What was seen is remembered by the candidate's content, in memory and in the file `journal`,
    which a later run reads: a search that is asked again gets to where it was without compiling.
    calls counts the compiles, spent those of earlier runs too. others: failures that were met on
    the way and are not the wanted one. What ended at a lower limit than `limits` is asked again.
    width: so many are asked about at once.
    """

    def __init__(
        self, context: Context, flags: tuple[str, ...], wanted: Failure, *, width: int = 1
    ) -> None:
        self.wanted = wanted
        self.spent = Spent(context.directory / "spent.json")
        self._counted = 0
        self.others: dict[str, Failure] = {}
        self.context = context
        self._flags = flags
        self._width = width
        self._scratch = context.directory / "asked"
        self._scratch.mkdir(parents=True, exist_ok=True)
        self._journal = Journal(context.directory / "answers.jsonl", _OracleEntry)
        self._writing = Lock()
        self._known: dict[str, Answer] = {}
        for entry in self._journal:
            if entry.holds(context.limits):
                self._know(self._judged_again(entry))

    @property
    def calls(self) -> int:
        return self._counted

    @calls.setter
    def calls(self, calls: int) -> None:
        self.spent.add(calls - self._counted)
        self._counted = calls

    def ask(self, candidates: Sequence[Path]) -> list[Answer]:
        """Answers in the order of the candidates; those with one content are compiled once."""
        digests = [self._digest(candidate) for candidate in candidates]
        fresh = {d: c for d, c in zip(digests, candidates, strict=True) if d not in self._known}
        self._prepare(fresh)
        side_by_side(lambda asked: self._find_out(*asked), fresh.items(), self._width)
        return [self._known[d] for d in digests]

    def again(self, program: Path) -> Failure | None:
        """The failure of a program, found out anew whatever is remembered."""
        self.calls += 1
        digest = self._digest(program)
        self._prepare({digest: program})
        return self._failure(program, digest)

    def said(self, candidate: Path) -> str:
        """Output of the candidate's test; empty if it is not kept."""
        digest = self._digest(candidate)
        kept = self._scratch / f"{digest[:16]}.stderr.txt"
        return kept.read_text(encoding="utf-8", errors="replace") if kept.is_file() else ""

    def seen(self, candidate: Path) -> Failure | None:
        """Failure of a candidate that was tested."""
        answer = self._known.get(self._digest(candidate))
        return answer.failure if answer is not None else None

    @property
    def summary(self) -> tuple[str, ...]:
        """A sentence on the candidates, of earlier runs too; nothing where there were none."""
        counts = Counter(answer.verdict for answer in self._known.values())
        parts = [f"{counts[one]} {words}" for one, words in _WORDS.items() if counts[one]]
        return (f"Of the smaller programs that were tried, {', '.join(parts)}.",) if parts else ()

    def _digest(self, candidate: Path) -> str:
        """Digest of everything that the answer depends on."""
        return hashlib.sha256(candidate.read_bytes()).hexdigest()

    def _prepare(self, fresh: Mapping[str, Path]) -> None:
        """Work done once for all candidates (by their digests) that are about to be judged."""
        return

    def shows(self, failure: Failure | None) -> bool:
        return failure is not None and failure.shows(self.wanted.signature)

    def _is_wanted(self, failure: Failure) -> bool:
        """True if it is the wanted failure, alone or with its companions only."""
        return failure.shows(self.wanted.signature) and not strangers(failure, self.wanted)

    def close(self) -> None:
        """Ends what waits for questions."""
        return

    @abstractmethod
    def _failure(self, candidate: Path, digest: str) -> Failure | None:
        """Failure of the candidate, if it fails; its files are named after its digest.

        Raises NotAProgram if that cannot be determined.
        """

    def _find_out(self, digest: str, candidate: Path) -> None:
        """Remembers the answer as soon as it is there: others may still be asked about."""
        answer = self._judge(candidate, digest)
        entry = _OracleEntry(
            digest, answer, self.context.limits.seconds, self.context.limits.memory_bytes
        )
        with self._writing:
            self.calls += 1
            self._know(entry)
            self._journal.append(entry)

    def _know(self, entry: _OracleEntry) -> None:
        answer = entry.answer
        self._known[entry.digest] = answer
        if answer.failure is not None and answer.verdict == "different":
            for failure in (answer.failure, *answer.failure.also):
                if failure.signature != self.wanted.signature:
                    self.others.setdefault(failure.signature, failure)

    def _judge(self, candidate: Path, digest: str) -> Answer:
        try:
            failure = self._failure(candidate, digest)
        except NotAProgram:
            return Answer(verdict="invalid")
        return Answer(verdict=self._verdict(failure), failure=failure)

    def _verdict(self, failure: Failure | None) -> Verdict:
        if failure is None:
            return "passes"
        if self._is_wanted(failure):
            return "same"
        return "unresolved" if failure.kind in STOPPED else "different"

    def _judged_again(self, entry: _OracleEntry) -> _OracleEntry:
        """Answer of an earlier search, judged by the failure that is wanted now."""
        answer = entry.answer
        if answer.failure is None:
            return entry
        answer = msgspec.structs.replace(answer, verdict=self._verdict(answer.failure))
        return msgspec.structs.replace(entry, answer=answer)

    @contextlib.contextmanager
    def _place(self, digest: str) -> Iterator[Path]:
        """An empty directory for what is made of a candidate, gone afterwards."""
        place = self._scratch / digest[:16]
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        try:
            yield place
        finally:
            shutil.rmtree(place, ignore_errors=True)

    def _module(
        self, candidate: Path, digest: str, module: Path, flags: tuple[str, ...] | None = None
    ) -> Failure | None:
        """Compiles to a module, by the oracle's own flags or others; how that fails, if it does."""
        job = Compile(mlir=candidate, flags=self._flags if flags is None else flags)
        command = job.command(self.context.toolchain, str(module), dumps=None)
        return self._compile(command, candidate, digest, None)

    def _compile(
        self,
        command: Sequence[str],
        candidate: Path,
        digest: str,
        phase: str | Callable[[], str] | None,
    ) -> Failure | None:
        """phase: the one that a failure is of, or what finds that out."""
        outcome, said = self.context.at(self._scratch).run(command, digest[:16])
        if outcome.ok:
            return None
        failed, text = (
            phase() if callable(phase) else phase,
            candidate.read_text(encoding="utf-8", errors="replace"),
        )
        return diagnostics.compile_failure(outcome, said, failed, text)


class CompileOracle(RememberingOracle):
    """The real compiler, up to the phase that fails.

    Where the whole program passes so (what the compiler sets up for the later phases is at fault),
    up to the end: a file in the directory says so to the search that goes on.
    """

    def __init__(
        self, context: Context, flags: tuple[str, ...], wanted: Failure, *, width: int = 1
    ) -> None:
        super().__init__(context, flags, wanted, width=width)
        self._to_the_end = self._scratch.with_name("to-the-end")
        self._tried = self._to_the_end.exists()

    def again(self, program: Path) -> Failure | None:
        failure = super().again(program)
        if failure is None and not self._tried:
            self._tried = True
            self._to_the_end.touch()
            failure = super().again(program)
            if failure is None:
                self._to_the_end.unlink()
        return failure

    def command(self, candidate: str, *more: str) -> tuple[str, ...]:
        """The compile that decides; more: further flags."""
        phase = self.wanted.phase
        stops = phase in self.context.toolchain.phases[1:] and not self._to_the_end.exists()
        to = (f"--compile-to={phase}",) if stops else ()
        compiler = str(self.context.toolchain.compiler)
        return (compiler, candidate, *self._flags, *more, *to, "-o", "/dev/null")

    def _failure(self, candidate: Path, digest: str) -> Failure | None:
        failure = self._once(candidate, digest)
        if failure is not None and failure.kind == "crash" and not failure.stack:
            # Threads that crash together print no stack; on one thread the first one does.
            serial = self._once(candidate, digest, diagnostics.SERIAL)
            failure = serial if serial is not None and serial.kind == "crash" else failure
        return failure

    def _once(self, candidate: Path, digest: str, *more: str) -> Failure | None:
        if self.wanted.kind not in STOPPED:
            command = self.command(str(candidate), *more)
            failure = self._compile(command, candidate, digest, self.wanted.phase)
            known = failure is None or failure.shows(self.wanted.signature)
            if not known and self._cannot_be_read(candidate, digest):
                raise NotAProgram(f"{candidate} does not parse")
            return failure
        # Where it was stopped is all that is known of such a failure, and only dumps tell.
        dumps = self._scratch / f"{digest[:16]}.phases"
        shutil.rmtree(dumps, ignore_errors=True)
        command = self.command(str(candidate), *more, f"--dump-compilation-phases-to={dumps}")
        try:
            return self._compile(command, candidate, digest, lambda: self._after(dumps))
        finally:
            shutil.rmtree(dumps, ignore_errors=True)

    def _after(self, dumps: Path) -> str:
        """The phase after the last dump."""
        order = self.context.toolchain.phases
        last = next((phase for phase, _ in reversed(dump_files(dumps))), order[0])
        return order[min(order.index(last) + 1, len(order) - 1)]

    def _cannot_be_read(self, candidate: Path, digest: str) -> bool:
        """True if the candidate does not parse, which is no failure of the compiler."""
        if (
            self.context.toolchain.opt is None
            or self.wanted.phase == self.context.toolchain.phases[0]
        ):
            return False
        command = (self.context.toolchain.opt, candidate, "-o", "/dev/null")
        outcome, _ = self.context.at(self._scratch).run(command, f"{digest[:16]}.parse")
        return outcome.ended_by == "exit" and not outcome.ok
