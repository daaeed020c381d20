"""Reduction with the user's own test: a command that decides whether a program is interesting."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from iree_pilot.pipeline.errors import UsageError
from iree_pilot.pipeline.processes import process
from iree_pilot.pipeline.processes.workers import side_by_side
from iree_pilot.repro.ir.editor import Editor
from iree_pilot.repro.ir.graph import Cut
from iree_pilot.repro.oracles.oracle import Answer, Verdict
from iree_pilot.repro.reducer.reducer import Reducer
from iree_pilot.repro.reducer.shrink import Progress

_CANNOT_SAY = 125
_FILE = "{}"
#: Number of functions, the largest ones, that are tried without the others.
_ALONE = 8
#: Runs of the test for simpler shapes and types.
_SIMPLER = 24


class Reduced(msgspec.Struct, frozen=True, kw_only=True):
    """The smallest program that is still interesting; minimal: no operation can be spared."""

    mlir: str
    ops: tuple[str, ...]
    minimal: bool
    calls: int


class CommandOracle:
    """Oracle that runs a command: exit code 0 means interesting, 125 undecided, others not.

    `{}` in its arguments is the candidate's file; without one the file is the last argument.
    said: what it did last, of those that did not find a candidate interesting.
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
        self.said = ""

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
        else:
            self.said = _said(outcome)
            if outcome.ended_by != "exit" or outcome.exit_code == _CANNOT_SAY:
                verdict = "unresolved"
        return Answer(verdict=verdict)


def _said(outcome: process.Outcome) -> str:
    """Description of how a command ended that does not find the program interesting."""
    if outcome.ended_by == "exit" and outcome.exit_code == _CANNOT_SAY:
        return "exits with 125 (undecided)"
    if outcome.ended_by == "exit":
        return f"does not exit with 0 on it, but with {outcome.exit_code}"
    if outcome.ended_by == "signal":
        return f"was ended by {outcome.signal}"
    return f"was stopped at the {outcome.ended_by.replace('-', ' ')}, after {outcome.seconds:.0f} s"


def reduce(
    mlir: Path,
    command: Sequence[str],
    directory: Path,
    *,
    limits: process.Limits,
    width: int,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> Reduced:
    """Reduces a program as long as the command finds it interesting.

    The largest function that is interesting without the others goes first, then all that is left
    in turn. Scratch files go to `directory`. Raises UsageError at once when the program is not
    interesting to begin with, cannot be read, or has no function.
    """
    oracle = CommandOracle(command, directory, limits=limits, width=width)
    file = directory / mlir.name
    file.write_bytes(mlir.read_bytes())
    (first,) = oracle.ask([file])
    if first.verdict != "same":
        raise UsageError(
            f"{mlir} is not interesting: the command `{shlex.join(command)}` " + oracle.said,
            advice="The command must exit with 0 while the file is interesting, with 125 "
            "if undecided; {} is replaced by the file.",
        )
    editor = Editor(mlir, 0, directory / "edits", limits)
    functions = editor.survey().functions
    if not functions and editor.why:
        raise UsageError(
            f"{mlir} cannot be read by the bindings of the compiler that is installed: "
            f"{editor.why}",
            advice="Write it with the same release of the compiler, or fix that line.",
        )
    if not functions:
        raise UsageError(
            f"{mlir} has no function whose operations could be removed",
            advice="Reduce MLIR with a func.func or util.func that has a body.",
        )
    search = _Reduction(oracle, directory, limits, width, on_progress)
    alone = (named for named in functions[:_ALONE] if search.is_interesting_alone(mlir, named[1]))
    chosen, others = next(alone, None), False
    if chosen is None:
        chosen, others = functions[0], True
    ops = search.functions(file, chosen, others)
    if simple := search.simpler(search.file):
        # The proof that it is minimal holds for the shapes it was made with.
        search.minimal = True
        ops = search.functions(simple, search.listed(simple)[0], True)
    return Reduced(mlir=str(search.file), ops=ops, minimal=search.minimal, calls=oracle.calls)


class _Reduction:
    """Reduces one function of a program after another. minimal: it could be proved for each."""

    def __init__(
        self,
        oracle: CommandOracle,
        directory: Path,
        limits: process.Limits,
        width: int,
        on_progress: Callable[[Progress], None],
    ) -> None:
        self.minimal = True
        self.file = Path()
        self._oracle = oracle
        self._directory = directory
        self._limits = limits
        self._width = width
        self._on_progress = lambda p: on_progress(msgspec.structs.replace(p, unit="run"))
        self._editors = 0

    def reducer(self, file: Path, line: int, *, whole: bool = False) -> Reducer:
        self._editors += 1
        editor = Editor(file, line, self._directory / f"edits-{self._editors}", self._limits)
        return Reducer(
            editor, self._oracle.ask, width=self._width, whole=whole, progress=self._on_progress
        )

    def is_interesting_alone(self, file: Path, line: int) -> bool:
        """True if the function at a line is, with nothing else but what it leads to."""
        reducer = self.reducer(file, line)
        return reducer.graph is not None and reducer.same(reducer.graph.real)

    def listed(self, file: Path) -> tuple[tuple[str, int], ...]:
        """The functions (names and lines), the largest first."""
        return self.reducer(file, 0).editor.survey().functions

    def simpler(self, file: Path) -> Path | None:
        """The program with smaller shapes and so on; None where nothing of it can be simpler."""
        found = self.reducer(file, 0).simplified(file, _SIMPLER)
        return Path(found.path) if found.done else None

    def functions(self, file: Path, first: tuple[str, int], others: bool) -> tuple[str, ...]:
        """Operations left in all functions, of which `first` (a name and a line) is reduced first.

        others: keep the other functions meanwhile.
        """
        ops: list[str] = []
        done: set[str] = set()
        chosen: tuple[str, int] | None = first
        while chosen is not None:
            name, line = chosen
            ops += self.function(file, line, others)
            file, others = self.file, True
            done.add(name)
            chosen = next((named for named in self.listed(file) if named[0] not in done), None)
        return tuple(ops)

    def function(self, file: Path, line: int, whole: bool) -> tuple[str, ...]:
        """Operations left in the function at a line; `file` is set to the reduced program.

        whole: keep the other functions.
        """
        reducer = self.reducer(file, line, whole=whole)
        editor, graph = reducer.editor, reducer.graph
        assert graph is not None, "it was listed among the functions"
        cut: Cut | None = Cut(keep=())
        if not (whole and graph.real and reducer.same(())):
            cut = reducer.unlocated(graph)
            if cut is not None:
                shrunk = reducer.shrunk(graph, cut, constants=not whole)
                cut = shrunk.cut
                self.minimal &= shrunk.minimal
        if cut is None:
            self.minimal &= not graph.real
            self.file = file
            return tuple(graph.ops[i].name for i in graph.real)
        self.file = editor.file(cut, whole)
        return tuple(graph.ops[i].name for i in cut.keep) if whole else editor.names(cut, graph)
