"""Isolation of the smallest part of a program whose numbers are wrong given right inputs."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence

import msgspec

from iree_pilot.repro import isolate
from iree_pilot.repro.ir import bindings, feeds
from iree_pilot.repro.ir.graph import Cut, Graph
from iree_pilot.repro.isolate import GaveUp, Groups, Isolated, IsolationJob
from iree_pilot.repro.reducer import locate, simplify
from iree_pilot.repro.reducer.shrink import Progress
from iree_pilot.repro.wrong_results import judged_parts, part_search, windows
from iree_pilot.repro.wrong_results.mismatch_oracle import MismatchOracle
from iree_pilot.repro.wrong_results.part_search import Part
from iree_pilot.repro.wrong_results.windows import MODULE, WindowPart

#: Parts of more than one operation go to so many functions, so that those that share operations
#: are not compiled into each other.
_FUNCTIONS = 16
_AGAINST = "--against TARGET compares its dispatches with another target's"
#: An error below this share of that of the part that was found is another fault.
_SLIPS = 1 / 30


def run(
    job: IsolationJob,
    oracle: MismatchOracle,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> Isolated | GaveUp:
    """Isolates the part that gives wrong numbers, given right ones."""
    isolation = _Isolation(job, oracle, on_progress)
    outcome = isolation.run()
    inside = oracle.values.inside()
    if isinstance(outcome, GaveUp) and inside.why:
        name = oracle.values.evaluator.engine.name
        why = f"{outcome.why}; {name} cannot evaluate all of it ({inside.why}): {_AGAINST}"
        return msgspec.structs.replace(outcome, why=why)
    if isinstance(outcome, Isolated):
        return msgspec.structs.replace(outcome, remarks=isolation.remarks(outcome))
    return outcome


class _Isolation(isolate.Isolation):
    """Finds the part by what is off, where all parts of one size are compiled as one module."""

    most_calls = 48
    most_simpler = 10

    def __init__(
        self, job: IsolationJob, oracle: MismatchOracle, on_progress: Callable[[Progress], None]
    ) -> None:
        super().__init__(job, oracle, on_progress)
        self.numbers = oracle
        self.found = part_search.WrongPart(part=None)
        self._modules = 0

    @property
    def units(self) -> tuple[int, ...]:
        return (simplify.ONES, 1, 2, 4, 8, 32)

    @property
    def shows(self) -> bool:
        return not self.numbers.hidden

    def refusal(self, graph: Graph) -> str:
        self._report("computing the values inside of the program")
        inside = self.numbers.values.inside()
        first = next(part_search.levels(graph), ())
        return (
            ""
            if any(judged_parts.judgeable(graph, first, inside))
            else "nothing in it can be compared"
        )

    def located(self) -> locate.Located:
        """Location without lines: no diagnostic names a place, and some errors reach no output."""
        return locate.Located(lines=(), confirmed=self.numbers.hidden)

    def start(self, graph: Graph, groups: Groups) -> tuple[Cut | None, int | None]:
        reducer = self._reducer(self.editor)
        self.found = part_search.find(
            graph,
            lambda parts: self._hint(graph, parts),
            lambda parts: reducer.verdicts([Cut(keep=part) for part in parts]),
            error=self.numbers.error,
            shows=self.shows,
        )
        part = self.found.part
        if part is None:
            return None, None
        (answer,) = self.numbers.ask([self.editor.file(Cut(keep=part))])
        self.numbers.least = answer.off.error * _SLIPS if answer.off else 0.0
        return Cut(keep=part), part[-1] if len(part) > 1 else part[0]

    def _hint(self, graph: Graph, parts: Sequence[Part]) -> list[float]:
        """Error of each part, all of them in one module."""
        can = judged_parts.judgeable(graph, parts, self.numbers.values.inside())
        asked = [number for number, judgeable in enumerate(can) if judgeable]
        off = [0.0] * len(parts)
        if asked:
            found = self._compared([parts[n] for n in asked])
            for number, error in zip(asked, found, strict=True):
                off[number] = error
        return off

    def _compared(self, parts: Sequence[Part]) -> list[float]:
        size = max(map(len, parts))
        what = "each operation alone" if size == 1 else f"parts of up to {size} operations"
        self._report(f"comparing {what}, {len(parts)} in one module")
        self._modules += 1
        place = self.job.context.directory / "windows" / str(self._modules)
        shutil.rmtree(place, ignore_errors=True)
        wanted = windows.Windows(
            mlir=str(self.job.mlir),
            parts=tuple(parts),
            focus=self.editor.focus,
            functions=1 if size == 1 else min(_FUNCTIONS, len(parts)),
        )
        limits = msgspec.structs.replace(self.job.context.limits, seconds=None, memory_bytes=None)
        done = bindings.of(self.job.context.toolchain, limits).call(
            f"{windows.__name__}:written", wanted, tuple[WindowPart, ...], place
        )
        off = [0.0] * len(parts)
        if done.reply is None:
            return off
        self.asked += 1
        errors = self.numbers.errors(place / MODULE)
        names = [fed.function for fed in feeds.of(place / MODULE)]
        for one in done.reply:
            function = errors.get(names[one.function])
            if function:
                off[one.part] = max(function[one.first : one.first + one.results], default=0.0)
        return off

    def remarks(self, isolated: Isolated) -> tuple[str, ...]:
        """Remark for the draft that the error needs more than one operation, where it does."""
        keep = isolated.cut.keep
        if len(keep) > 1 and set(keep) <= set(self.found.right):
            return (
                "Each of its operations is correct when compiled alone; the error needs these "
                f"{len(keep)} together.",
            )
        return ()
