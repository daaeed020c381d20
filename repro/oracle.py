"""Asks the tools of a candidate program: does it still fail in the same way?"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, Protocol

import msgspec

from pipeline import diagnostics, process
from pipeline.diagnostics import Failure
from pipeline.toolchain import Toolchain

Verdict = Literal["same", "different", "passes", "invalid", "unresolved"]


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """same: this failure and no other. different: `failure` is another one, or not alone.
    passes: gets beyond what fails. invalid: not a program. unresolved: a limit was
    reached before it could be told.
    """

    verdict: Verdict
    failure: Failure | None = None


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


class _Entry(msgspec.Struct, frozen=True):
    digest: str
    answer: Answer


class NotAProgram(Exception):
    """The candidate cannot be asked about."""


class RememberingOracle(ABC):
    """Compares what `_failure` finds with the wanted failure, once for each content.

    Answers are remembered by the candidate's content, in memory and in the file `journal`, which
    a later run reads: a search that is asked again gets to where it was without compiling. calls
    counts the compiles. others: failures that were met on the way and are not the wanted one.
    """

    def __init__(
        self,
        toolchain: Toolchain,
        flags: tuple[str, ...],
        wanted: Failure,
        directory: Path,
        *,
        limits: process.Limits,
        width: int = 1,
    ) -> None:
        self.wanted = wanted
        self.calls = 0
        self.others: dict[str, Failure] = {}
        self._toolchain = toolchain
        self._flags = flags
        self._limits = limits
        self._width = width
        self._scratch = directory / "asked"
        self._scratch.mkdir(parents=True, exist_ok=True)
        self._journal = directory / "answers.jsonl"
        self._known = _read(self._journal)

    def ask(self, candidates: Sequence[Path]) -> list[Answer]:
        """Answers in the order of the candidates; those with one content are compiled once."""
        digests = [hashlib.sha256(c.read_bytes()).hexdigest() for c in candidates]
        fresh = {d: c for d, c in zip(digests, candidates, strict=True) if d not in self._known}
        with ThreadPoolExecutor(max_workers=self._width) as pool:
            answers = pool.map(self._judge, fresh.values(), fresh.keys())
            for digest, answer in zip(fresh, answers, strict=True):
                self._remember(digest, answer)
        return [self._known[d] for d in digests]

    def again(self, program: Path) -> Failure | None:
        """The failure of a program, found out anew whatever is remembered."""
        self.calls += 1
        digest = hashlib.sha256(program.read_bytes()).hexdigest()
        return self._failure(program, digest)

    @abstractmethod
    def _failure(self, candidate: Path, digest: str) -> Failure | None:
        """How the candidate fails, if it does; files go to names of its own, after its digest.

        Raises NotAProgram where that cannot be told.
        """

    def _remember(self, digest: str, answer: Answer) -> None:
        self.calls += 1
        self._known[digest] = answer
        with self._journal.open("ab") as journal:
            journal.write(msgspec.json.encode(_Entry(digest, answer)) + b"\n")
        if answer.failure is not None and answer.verdict == "different":
            for failure in (answer.failure, *answer.failure.also):
                if failure.signature != self.wanted.signature:
                    self.others.setdefault(failure.signature, failure)

    def _judge(self, candidate: Path, digest: str) -> Answer:
        try:
            failure = self._failure(candidate, digest)
        except NotAProgram:
            return Answer(verdict="invalid")
        if failure is None:
            return Answer(verdict="passes")
        signatures = {failure.signature, *(f.signature for f in failure.also)}
        if signatures == {self.wanted.signature}:
            return Answer(verdict="same", failure=failure)
        if failure.kind in ("timeout", "out-of-memory"):
            return Answer(verdict="unresolved", failure=failure)
        return Answer(verdict="different", failure=failure)

    def _compile(
        self, command: Sequence[str], candidate: Path, digest: str, phase: str | None
    ) -> Failure | None:
        stderr = self._scratch / f"{digest[:16]}.stderr.txt"
        outcome = process.run(
            command,
            stdout=self._scratch / f"{digest[:16]}.stdout.txt",
            stderr=stderr,
            limits=self._limits,
        )
        if outcome.ok:
            return None
        return diagnostics.compile_failure(
            outcome,
            stderr.read_text(errors="replace"),
            phase,
            candidate.read_text(errors="replace"),
        )


class CompileOracle(RememberingOracle):
    """The real compiler, up to the phase that fails."""

    def command(self, candidate: str, *more: str) -> tuple[str, ...]:
        """The compile that decides; more: further flags."""
        phase = self.wanted.phase
        to = (f"--compile-to={phase}",) if phase in self._toolchain.phases[1:] else ()
        compiler = str(self._toolchain.compiler)
        return (compiler, candidate, *self._flags, *more, *to, "-o", "/dev/null")

    def _failure(self, candidate: Path, digest: str) -> Failure | None:
        failure = self._once(candidate, digest)
        if failure is not None and failure.kind == "crash" and not failure.stack:
            # Threads that crash together print no stack; on one thread the first one does.
            told = self._once(candidate, digest, diagnostics.SERIAL)
            failure = told if told is not None and told.kind == "crash" else failure
        return failure

    def _once(self, candidate: Path, digest: str, *more: str) -> Failure | None:
        command = self.command(str(candidate), *more)
        return self._compile(command, candidate, digest, self.wanted.phase)


def _read(journal: Path) -> dict[str, Answer]:
    """What an earlier run was answered; a last line that was cut off is left out."""
    known: dict[str, Answer] = {}
    if not journal.is_file():
        return known
    for line in journal.read_bytes().splitlines():
        try:
            entry = msgspec.json.decode(line, type=_Entry)
        except msgspec.DecodeError:
            continue
        known[entry.digest] = entry.answer
    return known
