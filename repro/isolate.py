"""From a program that fails to the smallest part of it that fails in the same way.

The order of things: confirm the failure, locate the operations that it is about, cut them out,
and only search where nothing is located; then shrink. Everything that was asked is on disk, so a
search that was stopped goes on where it was.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from pipeline import process
from pipeline.diagnostics import Failure
from pipeline.errors import EnvironmentFault
from pipeline.toolchain import Toolchain
from repro import edit, locate, shrink
from repro.graph import Cut, Graph, neighbours
from repro.oracle import Answer, Oracle
from repro.shrink import Progress

#: Where the user sets no limit, for one candidate.
DEFAULT_SECONDS = 600.0
_FLAKY_RUNS = 5
#: How far around a located operation to look for what it takes to fail.
_WIDENINGS = 3
#: Parts up to this many operations compile in an instant: one by one, no answer is asked in vain.
_SMALL = 8

Groups = tuple[tuple[int, ...], ...]


class Isolated(msgspec.Struct, frozen=True, kw_only=True):
    """What is left of a program: the file, its operations' names, and what it took to find it.

    minimal: taking any one operation away was tried, and none of it failed in the same way.
    cut: the part, of the function that has an operation at line `focus` (0: the largest one).
    """

    mlir: str
    ops: tuple[str, ...]
    cut: Cut
    focus: int
    minimal: bool
    located: bool
    calls: int
    seconds: float
    executable: str | None = None


class GaveUp(msgspec.Struct, frozen=True, kw_only=True):
    """Why nothing was isolated; rate: in which share of the runs a flaky failure appeared."""

    why: str
    calls: int
    seconds: float
    rate: float | None = None


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What to isolate: a failure of the program in `mlir`, compiled with `flags`.

    directory: where state is kept. width: how many candidates are compiled at once. focus: a line
    of the function that fails, where the failure itself names none; 0 means the largest.
    """

    mlir: Path
    failure: Failure
    toolchain: Toolchain
    flags: tuple[str, ...]
    directory: Path
    limits: process.Limits
    width: int = 1
    budget: int | None = None
    focus: int = 0


def isolate(
    job: Job, oracle: Oracle, told: Callable[[Progress], None] = lambda _: None
) -> Isolated | GaveUp:
    """Isolates the failure; every candidate is judged by `oracle`."""
    return _Isolation(job, oracle, told).run()


class _Isolation:
    def __init__(self, job: Job, oracle: Oracle, told: Callable[[Progress], None]) -> None:
        self.job = job
        self.oracle = oracle
        self.told = told
        self.begun = time.monotonic()

    def run(self) -> Isolated | GaveUp:
        job = self.job
        located = locate.locate(
            job.mlir,
            job.failure,
            job.toolchain,
            job.flags,
            job.directory,
            limits=job.limits,
            width=job.width,
        )
        self.oracle.calls += located.calls
        focus = located.lines[0] if located.lines else job.focus
        self.editor = Editor(job.mlir, focus, job.directory / "edits", job.limits)
        graph = self.editor.graph()
        if graph is None:
            return self._gave_up("the program has no function whose operations can be cut out")
        rate = 1.0 if located.confirmed else self._confirm()
        if rate < 1:
            why = "the failure comes and goes" if rate else "the failure did not appear again"
            return self._gave_up(why, rate)
        groups = locate.groups(graph, located.lines)
        start = self._start(graph, groups)
        if start is None:
            return self._gave_up("no part of the program was found that fails in the same way")
        root = groups[0][0] if groups else None
        shrunk = shrink.shrink(
            graph,
            start,
            self._ask,
            width=1 if len(start.keep) <= _SMALL else self.job.width,
            budget=self.job.budget,
            root=root,
            told=self.told,
        )
        (file,) = self.editor.render([shrunk.cut])
        assert file is not None, "a cut that was asked for can be made again"
        return Isolated(
            mlir=str(file),
            ops=tuple(graph.ops[index].name for index in shrunk.cut.keep),
            cut=shrunk.cut,
            focus=focus,
            minimal=shrunk.minimal,
            located=bool(groups),
            calls=self.oracle.calls,
            seconds=time.monotonic() - self.begun,
            executable=located.executable,
        )

    def _confirm(self) -> float:
        """The share of runs of the whole program in which the failure appears; 1 after one."""
        seen = [self._appears()]
        if seen[0]:
            return 1.0
        seen += [self._appears() for _ in range(_FLAKY_RUNS - 1)]
        return sum(seen) / len(seen)

    def _appears(self) -> bool:
        wanted = self.job.failure.signature
        failure = self.oracle.again(self.job.mlir)
        if failure is None:
            return False
        return wanted in {failure.signature, *(other.signature for other in failure.also)}

    def _start(self, graph: Graph, groups: Groups) -> Cut | None:
        """A part that fails in the same way: what is located, else what a search finds."""
        for group in _wider(graph, groups):
            part = Cut(keep=group)
            if self._ask([part]) == ["same"]:
                return part
        return shrink.find_unlocated(
            graph, self._ask, width=self.job.width, budget=self.job.budget, told=self.told
        )

    def _ask(self, cuts: Sequence[Cut]) -> list[str]:
        return self.editor.verdicts(cuts, self.oracle.ask)

    def _gave_up(self, why: str, rate: float | None = None) -> GaveUp:
        return GaveUp(
            why=why,
            calls=self.oracle.calls,
            seconds=time.monotonic() - self.begun,
            rate=rate if rate is None or rate < 1 else None,
        )


def _wider(graph: Graph, groups: Groups) -> Iterator[tuple[int, ...]]:
    """What is located, then more and more of what is around it."""
    yield from groups
    if not groups:
        return
    group = groups[-1]
    for _ in range(_WIDENINGS):
        wider = tuple(sorted({*group, *neighbours(graph, group)}))
        if wider == group:
            return
        group = wider
        yield group


class Editor:
    """Makes graphs and cuts of one program, in child processes (see `repro.edit`).

    focus: a line of the function that is meant; 0 means the largest.
    """

    def __init__(self, mlir: Path, focus: int, directory: Path, limits: process.Limits) -> None:
        self._mlir = mlir
        self._focus = focus
        self._directory = directory
        # How long a program takes to compile says nothing of how long it takes to edit.
        self._limits = msgspec.structs.replace(limits, seconds=DEFAULT_SECONDS)
        self._batches = 0

    def graph(self) -> Graph | None:
        """The program's graph; None where it has no function with a body."""
        place = self._run(())
        file = place / edit.GRAPH
        if not file.is_file():
            return None
        return msgspec.json.decode(file.read_bytes(), type=Graph)

    def render(self, cuts: Sequence[Cut], whole: bool = False) -> list[Path | None]:
        """A file for each cut, None where it cannot be made; whole: with all other functions.

        A cut on which the bindings abort costs itself: the ones after it are made by another child.
        """
        files: list[Path | None] = []
        while len(files) < len(cuts):
            rest = tuple(cuts[len(files) :])
            place = self._run(rest, whole)
            for number in range(len(rest)):
                made, why = place / f"{number}.mlir", place / f"{number}.why"
                if not made.is_file() and not why.is_file():
                    files.append(None)
                    break
                files.append(made if made.is_file() else None)
        return files

    def verdicts(self, cuts: Sequence[Cut], ask: Callable[[list[Path]], list[Answer]]) -> list[str]:
        """What an oracle says of each cut; one that cannot be made is invalid."""
        files = self.render(cuts)
        made = [file for file in files if file is not None]
        answers = dict(zip(made, ask(made), strict=True))
        return [answers[file].verdict if file is not None else "invalid" for file in files]

    def _run(self, cuts: tuple[Cut, ...], whole: bool = False) -> Path:
        self._batches += 1
        place = self._directory / str(self._batches)
        place.mkdir(parents=True, exist_ok=True)
        for left in place.iterdir():
            left.unlink()
        batch = edit.Batch(mlir=str(self._mlir), cuts=cuts, focus=self._focus, whole=whole)
        (place / edit.JOB).write_bytes(msgspec.json.encode(batch))
        outcome = process.run(
            [sys.executable, "-m", "repro.edit", place],
            stdout=place / "stdout.txt",
            stderr=place / "stderr.txt",
            limits=self._limits,
        )
        if outcome.ended_by == "exit" and outcome.exit_code not in (0, 1):
            raise EnvironmentFault(
                f"the IR editor ended with exit code {outcome.exit_code}",
                advice="`iree-pilot doctor` shows whether the compiler's bindings are installed.",
            )
        return place
