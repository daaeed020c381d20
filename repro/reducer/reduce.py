"""The same search with anybody's test: a command that says whether a program is interesting."""

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
from iree_pilot.repro.reducer import shrink, simplify
from iree_pilot.repro.reducer.shrink import Progress

_CANNOT_SAY = 125
_FILE = "{}"
#: So many functions, the largest, are tried without the others.
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
            f"{mlir} is not interesting: the command `{shlex.join(command)}` "
            + ("cannot say" if first.verdict == "unresolved" else "does not exit with 0 on it"),
            advice="The command has to exit with 0 while what you look for is there, with 125 "
            "where it cannot say; {} stands for the file.",
        )
    editor = Editor(mlir, 0, directory / "edits", limits)
    functions = editor.survey().functions
    if not functions and editor.why:
        raise UsageError(
            f"{mlir} cannot be read by the bindings of the compiler that is installed: "
            f"{editor.why}",
            advice="Write it with the same release of the compiler, or mend the line named.",
        )
    if not functions:
        raise UsageError(
            f"{mlir} has no function whose operations could be removed",
            advice="Reduce MLIR with a func.func or util.func that has a body.",
        )
    search = _Reduction(oracle, directory, limits, width, told)
    alone = (named for named in functions[:_ALONE] if search.is_interesting_alone(mlir, named[1]))
    chosen, others = next(alone, None), False
    if chosen is None:
        chosen, others = functions[0], True
    ops = search.functions(file, chosen, others)
    if simple := search.simpler(search.file):
        # The proof that it is minimal holds for the shapes it was made with.
        search.minimal = True
        ops = search.functions(simple, search.largest(simple), True)
    return Reduced(mlir=str(search.file), ops=ops, minimal=search.minimal, calls=oracle.calls)


class _Reduction:
    """Reduces one function of a program after another. minimal: it could be proved for each."""

    def __init__(
        self,
        oracle: CommandOracle,
        directory: Path,
        limits: process.Limits,
        width: int,
        told: Callable[[Progress], None],
    ) -> None:
        self.minimal = True
        self.file = Path()
        self._oracle = oracle
        self._directory = directory
        self._limits = limits
        self._width = width
        self._told = lambda p: told(msgspec.structs.replace(p, unit="run"))
        self._editors = 0

    def editor(self, file: Path, line: int) -> Editor:
        self._editors += 1
        return Editor(file, line, self._directory / f"edits-{self._editors}", self._limits)

    def is_interesting_alone(self, file: Path, line: int) -> bool:
        """Whether the function at a line is, with nothing else but what it leads to."""
        editor = self.editor(file, line)
        graph = editor.graph()
        if graph is None:
            return False
        return editor.verdicts([Cut(keep=graph.real)], self._oracle.ask) == ["same"]

    def largest(self, file: Path) -> tuple[str, int]:
        return self.editor(file, 0).survey().functions[0]

    def simpler(self, file: Path) -> Path | None:
        """The program with smaller shapes and so on; None where nothing of it can be simpler."""
        editor = self.editor(file, 0)
        found = simplify.simplify(
            file,
            editor.survey(),
            self._oracle.ask,
            editor.simpler,
            budget=_SIMPLER,
            told=self._told,
        )
        return Path(found.path) if found.done else None

    def functions(self, file: Path, first: tuple[str, int], others: bool) -> tuple[str, ...]:
        """What is left of all functions, `first` (a name and a line) being reduced first.

        others: the other ones stay while it is.
        """
        ops: list[str] = []
        done: set[str] = set()
        chosen: tuple[str, int] | None = first
        while chosen is not None:
            name, line = chosen
            ops += self.function(file, line, others)
            file, others = self.file, True
            done.add(name)
            rest = self.editor(file, 0).survey().functions
            chosen = next((named for named in rest if named[0] not in done), None)
        return tuple(ops)

    def function(self, file: Path, line: int, whole: bool) -> tuple[str, ...]:
        """What is left of the function at a line; `file` is the program then.

        whole: the other functions stay.
        """
        editor = self.editor(file, line)
        graph = editor.graph()
        assert graph is not None, "it was listed among the functions"

        def ask(cuts: Sequence[Cut]) -> list[str]:
            return editor.verdicts(cuts, self._oracle.ask, whole)

        cut: Cut | None = Cut(keep=())
        if not (whole and graph.real and ask([Cut(keep=())]) == ["same"]):
            cut = shrink.find_unlocated(graph, ask, width=self._width, told=self._told)
            if cut is not None:
                shrunk = shrink.shrink(
                    graph, cut, ask, width=self._width, constants=not whole, told=self._told
                )
                cut = shrunk.cut
                self.minimal &= shrunk.minimal
        if cut is None:
            self.minimal &= not graph.real
            self.file = file
            return tuple(graph.ops[i].name for i in graph.real)
        (made,) = editor.render([cut], whole)
        assert made is not None, "a cut that was asked for can be made again"
        self.file = made
        return tuple(graph.ops[i].name for i in cut.keep) if whole else editor.names(cut, graph)
