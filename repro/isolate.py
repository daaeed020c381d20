"""Isolation of the smallest part of a program that fails in the same way.

The order of things: confirm the failure, locate the operations that it is about, cut them out,
and only search where nothing is located; then shrink. Everything that was asked is on disk, so a
search that was stopped goes on where it was.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from iree_pilot.pipeline.failures.diagnostics import Failure
from iree_pilot.pipeline.toolchain.context import Context
from iree_pilot.repro.ir import bindings, edit
from iree_pilot.repro.ir.editor import Editor
from iree_pilot.repro.ir.graph import Cut, Graph, neighbours
from iree_pilot.repro.oracles.oracle import STOPPED, Answer, Oracle
from iree_pilot.repro.reducer import kept, locate, simplify, single, together
from iree_pilot.repro.reducer.reducer import Reducer
from iree_pilot.repro.reducer.shrink import Progress

#: Runs of the whole program to determine the rate of an intermittent failure.
FLAKY_RUNS = 5
#: Number of times that a located group is widened by its neighbours if it does not fail.
_WIDENINGS = 3
#: Parts up to this many operations compile in an instant: one by one, no answer is asked in vain.
_SMALL = 8
#: Phases that generate code, for which sizes matter.
_GENERATED = ("executable-configurations", "executable-targets", "hal")
#: Calls that shrinking takes for each operation, approximately.
_PROOF = 2
#: Calls for simpler shapes where each one with the same failure takes its whole limit.
_STOPPED_SIMPLER = 2

Groups = tuple[tuple[int, ...], ...]
#: Steps of data flow back from an operation to those that likely share its dispatch.
_BEFORE = 2


class Isolated(msgspec.Struct, frozen=True, kw_only=True):
    """The reduced program: the file, its operations' names, and the cost of the search.

    minimal: taking any one operation away was tried, and none of it failed in the same way.
    cut: the part, of the function that has an operation at line `focus` (0: the largest one).
    simpler: what else was made simpler than in the program. whole: nothing smaller was found, it is
    the program itself. rate: in which share of the runs the failure appears. remarks: sentences on
    what it takes to fail.
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
    simpler: tuple[str, ...] = ()
    whole: bool = False
    rate: float = 1.0
    remarks: tuple[str, ...] = ()


class GaveUp(msgspec.Struct, frozen=True, kw_only=True):
    """Reason that nothing was isolated; rate: share of the runs that failed, if intermittent.

    ops: the operations of the whole function, by name, if it could be read.
    """

    why: str
    calls: int
    seconds: float
    rate: float | None = None
    ops: tuple[str, ...] = ()


class IsolationJob(msgspec.Struct, frozen=True, kw_only=True):
    """An isolation job: a failure of the program in `mlir`, compiled with `flags`.

    The context's directory keeps the state. width: how many candidates are compiled at once.
    focus: a line of the function that fails, where the failure itself names none; 0 means the
    largest.
    """

    mlir: Path
    failure: Failure
    context: Context
    flags: tuple[str, ...]
    width: int = 1
    budget: int | None = None
    focus: int = 0


def isolate(
    job: IsolationJob, oracle: Oracle, on_progress: Callable[[Progress], None] = lambda _: None
) -> Isolated | GaveUp:
    """Isolates the failure; every candidate is judged by `oracle`."""
    return Isolation(job, oracle, on_progress).run()


class Part(NamedTuple):
    """A cut that fails in the same way, of a program in its editor's hands.

    origin: which operation of the whole program each operation was.
    """

    editor: Editor
    graph: Graph
    cut: Cut
    root: int | None
    origin: dict[int, int]
    minimal: bool = False
    simpler: tuple[str, ...] = ()

    def file(self) -> Path:
        """The cut as a program."""
        return self.editor.file(self.cut)

    def within(self, whole: Graph) -> Cut:
        """The cut as one of the whole program; what it bypasses as far as that links operations."""
        results = {
            mine: theirs
            for index, before in self.origin.items()
            for mine, theirs in zip(
                self.graph.ops[index].results, whole.ops[before].results, strict=True
            )
        }
        return Cut(
            keep=tuple(self.origin[index] for index in self.cut.keep),
            bypass=tuple(
                (results[value], results[other])
                for value, other in self.cut.bypass
                if value in results and other in results
            ),
        )


class Isolation:
    """Search for the smallest failing part; subclasses find failures that no diagnostic locates."""

    #: Calls that it is to take at most, and those of them for simpler shapes and types.
    most_calls = 12
    most_simpler = 5

    def __init__(
        self, job: IsolationJob, oracle: Oracle, on_progress: Callable[[Progress], None]
    ) -> None:
        self.job = job
        self.oracle = oracle
        self.on_progress = on_progress
        self.asked = 0
        self.ops: tuple[str, ...] = ()
        self.started = time.monotonic()
        self._editors: dict[int, Editor] = {}

    @property
    def units(self) -> tuple[int, ...]:
        """Units of which sizes become small multiples."""
        generated = (self.job.failure.phase or "") in _GENERATED
        return simplify.UNITS if generated else simplify.ANYWHERE

    def run(self) -> Isolated | GaveUp:
        located = self.located()
        self.asked += located.calls
        focus = located.lines[0] if located.lines else self.job.focus
        graph = self._graph(focus)
        if graph is None:
            return self._gave_up(self._uncut())
        self.ops = tuple(graph.ops[index].name for index in graph.real)
        if refused := self._refused(graph, located):
            return refused
        kept.keep(self._located_file, msgspec.structs.replace(located, confirmed=True))
        if not focus:
            focus = self._failing_function(graph)
            graph = self._graph(focus) or graph
        groups = locate.groups(graph, located.lines)
        part = self._first_part(graph, groups)
        if isinstance(part, GaveUp):
            return part
        part = self._smallest(part)
        return Isolated(
            mlir=str(part.file()),
            ops=part.editor.names(part.cut, part.graph),
            cut=part.within(graph),
            focus=focus,
            minimal=part.minimal,
            located=bool(groups),
            calls=self.oracle.calls,
            seconds=time.monotonic() - self.started,
            executable=located.executable,
            simpler=part.simpler,
        )

    def _refused(self, graph: Graph, located: locate.Located) -> GaveUp | None:
        """Reason not to search, determined by running the whole program again; None to search."""
        if why := self.refusal(graph):
            return self._gave_up(why)
        if located.confirmed:
            return None
        if self._only_slow(located):
            return self._gave_up(
                f"no executable takes {self.job.context.limits.seconds:.0f} s of processor time "
                f"alone, so the program is slow as a whole: {self.job.failure.message}"
            )
        failing, runs = self._confirm()
        return self._flaky(failing, runs) if failing < runs else None

    def _first_part(self, graph: Graph, groups: Groups) -> Part | GaveUp:
        """A part that fails in the same way, as a program of its own where that can be."""
        start, root = self.start(graph, groups)
        if start is None:
            failing, runs = self._again(2, 2) if self.shows else (0, 0)
            if failing < runs:
                return self._flaky(failing, runs)
            return self._gave_up("no part of the program was found that fails in the same way")
        part = Part(self.editor, graph, start, root, {op: op for op in graph.real})
        return self._alone(part, part.file(), "edits/part") or part

    def _smallest(self, part: Part) -> Part:
        """The part shrunk and with simpler shapes; what is small already is made simpler first."""
        if len(part.cut.keep) <= _SMALL:
            part = self._simpler(part)
        part = self._shrunk(part, self.job.budget)
        if part.simpler:
            return part
        # The proof that it is minimal holds for the shapes it was made with.
        smaller = self._simpler(part)
        if smaller.simpler:
            smaller = self._shrunk(smaller, max(self._left, 0))
        return smaller if smaller.minimal else part

    def _uncut(self) -> str:
        """Reason that the program cannot be cut."""
        why, release = self.editor.why, self.job.context.toolchain
        if why.startswith(edit.UNREADABLE):
            lacking = "" if release.bindings else ", which has no bindings for this Python,"
            return f"the Python bindings for IREE {release.version}{lacking} cannot read it: {why}"
        return "the program has no function whose operations can be cut out"

    @property
    def shows(self) -> bool:
        """True if the whole program fails by itself."""
        return True

    def refusal(self, graph: Graph) -> str:
        """Reason not to search that is known before anything is compiled; empty to search."""
        return ""

    def _only_slow(self, located: locate.Located) -> bool:
        """True if the default time limit was reached although each executable compiles quickly."""
        stopped = self.job.failure.stopped
        default = stopped.default if stopped else False
        return default and located.calls > 1 and located.executable is None

    def _graph(self, focus: int) -> Graph | None:
        """The function that has an operation at line `focus` (0: the largest), to be cut up."""
        if focus not in self._editors:
            place = self.job.context.directory / "edits" / str(focus)
            self._editors[focus] = self._editor(self.job.mlir, focus, place)
        self.editor = self._editors[focus]
        return self.editor.graph()

    def _editor(self, file: Path, focus: int, place: Path) -> Editor:
        return Editor(file, focus, place, self.job.context.limits, self.job.context.toolchain)

    def _failing_function(self, largest: Graph) -> int:
        """A line of the largest function that fails alone; 0 where that is the largest of all."""
        others = self.editor.survey().functions[1:]
        if not others or self._same(largest.real):
            return 0
        for _, line in others:
            graph = self._graph(line)
            if graph is not None and self._same(graph.real):
                return line
        return 0

    @property
    def _left(self) -> int:
        """Calls that are left; counted by what was asked, which is the same when it is resumed."""
        return self.most_calls - self.asked

    def _shrunk(self, part: Part, budget: int | None) -> Part:
        """The part with nothing in it that can be spared, if the budget allows."""
        width = 1 if len(part.cut.keep) <= _SMALL else self.job.width
        shrunk = self._reducer(part.editor, width).shrunk(
            part.graph,
            part.cut,
            budget=budget,
            root=part.root,
            together=lambda cuts: self._together(part.editor, part.editor.render(cuts)),
        )
        return part._replace(cut=shrunk.cut, minimal=shrunk.minimal)

    def _simpler(self, part: Part) -> Part:
        """The part as a program of its own with smaller shapes and so on, where that can be.

        Leaves enough calls for shrinking it.
        """
        most = _STOPPED_SIMPLER if self.job.failure.kind in STOPPED else self.most_simpler
        budget = min(self._left - _PROOF * (len(part.cut.keep) - 1), most)
        if budget <= 0:
            return part
        file = part.file()
        place = self.job.context.directory / f"simpler-{len(part.cut.keep)}"
        editor = self._editor(file, 0, place)
        simple = self._reducer(editor).simplified(
            file,
            budget,
            self.units,
            len(part.cut.keep),
            # Nothing else names several of them.
            (lambda files: self._together(editor, files))
            if self.job.failure.kind == "diagnostic"
            else None,
        )
        if not simple.done:
            return part
        alone = self._alone(part, Path(simple.path), f"{place.name}/edits")
        return alone._replace(simpler=simple.done) if alone else part

    def _alone(self, part: Part, file: Path, name: str) -> Part | None:
        """The part as the program in `file`: the rest is not read again for each candidate."""
        editor = self._editor(file, 0, self.job.context.directory / name)
        graph = editor.graph()
        if graph is None or len(graph.real) != len(part.cut.keep):
            return None
        root = graph.real[part.cut.keep.index(part.root)] if part.root in part.cut.keep else None
        before = (part.origin[index] for index in part.cut.keep)
        origin = dict(zip(graph.real, before, strict=True))
        return Part(editor, graph, Cut(keep=graph.real), root, origin, part.minimal)

    @property
    def _located_file(self) -> Path:
        digest = hashlib.sha256(self.job.mlir.read_bytes()).hexdigest()
        return self.job.context.directory / f"located-{digest[:16]}.json"

    def located(self) -> locate.Located:
        """Location of the failure, from an earlier search or by compiling."""
        before = kept.recall(self._located_file, locate.Located) or self._named()
        if before is not None:
            return before
        job = self.job
        self._report("compiling the whole program to see what fails")
        locator = locate.Locator(job.mlir, job.failure, job.context, job.flags, width=job.width)
        located = locator.located()
        self.oracle.calls += located.calls
        return located

    def _named(self) -> locate.Located | None:
        """The operation that the failure names, where it fails alone or with those before it.

        That confirms the failure too: the whole program is not compiled once more.
        """
        line = locate.line_of(self.job.failure)
        graph = self._graph(line) if line else None
        groups = locate.groups(graph, (line,)) if graph else ()
        if graph is None or not groups:
            return None
        for steps in (0, _BEFORE):
            group = groups[0]
            for _ in range(steps):
                group += tuple(op for op in neighbours(graph, group) if op < group[0])
            if self._same(tuple(sorted(group))):
                before = (graph.ops[op].line for op in group[1:])
                return locate.Located(lines=(line, *filter(None, before)), confirmed=True)
        return None

    def _confirm(self) -> tuple[int, int]:
        """(failures of this kind of the whole program, runs): a second run confirms the first one;
        if it does not, more runs determine the rate."""
        failing, runs = self._again(1, 1, most=2)
        return (failing, runs) if failing == runs else self._again(failing, runs)

    def _again(self, failing: int, runs: int, most: int = FLAKY_RUNS) -> tuple[int, int]:
        """Result of `_confirm` after more runs, up to `most`."""
        return failing + sum(self._appears() for _ in range(most - runs)), most

    def _appears(self) -> bool:
        self._report("compiling the whole program again")
        return self.oracle.shows(self.oracle.again(self.job.mlir))

    def _report(self, doing: str) -> None:
        self.on_progress(Progress(trying=doing, ops=0, asked=self.asked))

    def start(self, graph: Graph, groups: Groups) -> tuple[Cut | None, int | None]:
        """(a part that fails in the same way, the operation of it that is likeliest at fault).

        What is located, else what is named when all operations are asked about at once, else what a
        search finds.
        """
        root = groups[0][0] if groups else None
        for group in _wider(graph, groups):
            if self._same(group):
                return Cut(keep=group), root
        named: list[tuple[int, ...]] = []
        for part in self._likely(graph):
            if self._same(part):
                return Cut(keep=part), part[-1]
            named.append(part)
        for group in _wider(graph, tuple(named[:1])):
            if group not in named and self._same(group):
                return Cut(keep=group), named[0][-1]
        return self._reducer(self.editor).unlocated(graph, self.job.budget), None

    def _likely(self, graph: Graph) -> Iterator[tuple[int, ...]]:
        """Parts that are likely to fail alone."""
        job = self.job
        finder = single.Finder(
            job.mlir,
            self.editor.focus,
            self._judged,
            self.oracle.said,
            job.context.within("alone"),
            job.flags,
        )
        try:
            yield from finder.find(graph)
        finally:
            self.asked += finder.asked
            self.oracle.calls += finder.calls

    def _same(self, part: tuple[int, ...]) -> bool:
        return self._reducer(self.editor).same(part)

    def _reducer(self, editor: Editor, width: int = 1) -> Reducer:
        return Reducer(editor, self._judged, width=width, progress=self.on_progress)

    def _together(self, editor: Editor, candidates: Sequence[Path | None]) -> list[str]:
        place = editor.place()
        failure = self.job.failure
        about = failure.op or failure.message
        own = bindings.of(self.job.context.toolchain, self.job.context.limits)
        return together.cleared(candidates, place, self._judged, self.oracle.said, own, about)

    def _judged(self, programs: list[Path]) -> list[Answer]:
        self.asked += len(programs)
        return self.oracle.ask(programs)

    def _flaky(self, failing: int, runs: int) -> GaveUp:
        why = f"the failure is intermittent: {failing} of {runs} runs"
        return self._gave_up(why, failing / runs)

    def _gave_up(self, why: str, rate: float | None = None) -> GaveUp:
        return GaveUp(
            why=why,
            calls=self.oracle.calls,
            seconds=time.monotonic() - self.started,
            rate=rate,
            ops=self.ops,
        )


def _wider(graph: Graph, groups: Groups) -> Iterator[tuple[int, ...]]:
    """Located groups of operations, then the last one with more and more of its neighbours."""
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
