"""The same search with anybody's test: a command that says whether a program is interesting."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from pipeline import process
from pipeline.errors import UsageError
from pipeline.workers import side_by_side
from repro import shrink
from repro.editor import Editor
from repro.graph import Cut
from repro.oracle import Answer, Verdict
from repro.shrink import Progress

_CANNOT_SAY = 125
_FILE = "{}"


class Reduced(msgspec.Struct, frozen=True, kw_only=True):
    """The smallest program that is still interesting; minimal: no operation can be spared."""

    mlir: str
    ops: tuple[str, ...]
    minimal: bool
    calls: int


class CommandOracle:
    """Asks a command: exit code 0 means interesting, 125 that it cannot say, anything else not.

    `{}` in its arguments is the candidate's file; without one the file is the last argument.
    """

    def __init__(
        self, command: Sequence[str], directory: Path, *, limits: process.Limits, width: int = 1
    ) -> None:
        self.calls = 0
        self._command = tuple(command)
        self._directory = directory
        self._limits = limits
        self._width = width
        self._known: dict[str, Answer] = {}

    def ask(self, candidates: Sequence[Path]) -> list[Answer]:
        """Answers in the order of the candidates; those with one content are asked about once."""
        digests = [hashlib.sha256(c.read_bytes()).hexdigest() for c in candidates]
        fresh = {d: c for d, c in zip(digests, candidates, strict=True) if d not in self._known}
        answers = side_by_side(self._answer, fresh.values(), self._width)
        self._known |= dict(zip(fresh, answers, strict=True))
        self.calls += len(fresh)
        return [self._known[d] for d in digests]

    def _answer(self, candidate: Path) -> Answer:
        file = str(candidate.absolute())
        argv = [argument.replace(_FILE, file) for argument in self._command]
        if not any(_FILE in argument for argument in self._command):
            argv.append(file)
        outcome = process.run(
            argv,
            stdout=candidate.with_suffix(".stdout.txt"),
            stderr=candidate.with_suffix(".stderr.txt"),
            limits=self._limits,
        )
        verdict: Verdict = "passes"
        if outcome.ok:
            verdict = "same"
        elif outcome.ended_by != "exit" or outcome.exit_code == _CANNOT_SAY:
            verdict = "unresolved"
        return Answer(verdict=verdict)


def reduce(
    mlir: Path,
    command: Sequence[str],
    directory: Path,
    *,
    limits: process.Limits,
    width: int,
    told: Callable[[Progress], None] = lambda _: None,
) -> Reduced:
    """Reduces the largest function of a program as long as the command finds it interesting.

    Scratch files go to `directory`. Raises UsageError at once when the program is not interesting
    to begin with, or has no function.
    """
    oracle = CommandOracle(command, directory, limits=limits, width=width)
    editor = Editor(mlir, 0, directory / "edits", limits)
    whole = directory / mlir.name
    whole.write_bytes(mlir.read_bytes())
    (first,) = oracle.ask([whole])
    if first.verdict != "same":
        raise UsageError(
            f"{mlir} is not interesting: the command {' '.join(command)!r} "
            + ("cannot say" if first.verdict == "unresolved" else "does not exit with 0 on it"),
            advice="The command has to exit with 0 while what you look for is there, with 125 "
            "where it cannot say; {} stands for the file.",
        )
    graph = editor.graph()
    if graph is None:
        raise UsageError(
            f"{mlir} has no function whose operations could be removed",
            advice="Reduce MLIR with a func.func or util.func that has a body.",
        )

    def ask(cuts: Sequence[Cut]) -> list[str]:
        return editor.verdicts(cuts, oracle.ask)

    start = shrink.find_unlocated(graph, ask, width=width, told=told)
    if start is None:
        return Reduced(
            mlir=str(whole),
            ops=tuple(graph.ops[i].name for i in graph.real),
            minimal=False,
            calls=oracle.calls,
        )
    shrunk = shrink.shrink(graph, start, ask, width=width, constants=True, told=told)
    (file,) = editor.render([shrunk.cut])
    assert file is not None, "a cut that was asked for can be made again"
    return Reduced(
        mlir=str(file),
        ops=tuple(graph.ops[i].name for i in shrunk.cut.keep),
        minimal=shrunk.minimal,
        calls=oracle.calls,
    )
