"""The wiring of a reduction: an editor makes candidates, an oracle judges them, a search asks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from iree_pilot.repro.ir.editor import Editor
from iree_pilot.repro.ir.graph import Cut, Graph
from iree_pilot.repro.oracles.oracle import Answer
from iree_pilot.repro.reducer import shrink, simplify
from iree_pilot.repro.reducer.shrink import Progress, Questions, Shrunk, Together
from iree_pilot.repro.reducer.simplify import AllAtOnce, Simplified, SimplifyOptions

#: Answers for candidates in files, in their order.
Judge = Callable[[list[Path]], list[Answer]]


class Reducer:
    """Reduces one function of a program as long as a judge says "same".

    width: so many cuts are asked about at once. whole: the other functions stay. progress: hears
    of each question.
    """

    def __init__(
        self,
        editor: Editor,
        judge: Judge,
        *,
        width: int = 1,
        whole: bool = False,
        progress: Callable[[Progress], None] = lambda _: None,
    ) -> None:
        self.editor = editor
        self._judge = judge
        self._width = width
        self._whole = whole
        self._progress = progress

    @property
    def graph(self) -> Graph | None:
        """The function's graph; None where the program has no function with a body."""
        return self.editor.graph()

    def verdicts(self, cuts: Sequence[Cut]) -> list[str]:
        """Verdicts of the judge on the cuts; a cut that cannot be made is invalid."""
        return self.editor.verdicts(cuts, self._judge, self._whole)

    def same(self, keep: Sequence[int]) -> bool:
        """True if these operations alone answer "same"."""
        return self.verdicts([Cut(keep=tuple(keep))]) == ["same"]

    def unlocated(self, graph: Graph, budget: int | None = None) -> Cut | None:
        """A part that answers "same" where nothing says what fails: `shrink.find_unlocated`."""
        return shrink.find_unlocated(graph, self._questions(budget))

    def shrunk(
        self,
        graph: Graph,
        start: Cut,
        *,
        budget: int | None = None,
        root: int | None = None,
        constants: bool = False,
        together: Together | None = None,
    ) -> Shrunk:
        """The cut with nothing in it that can be spared: `shrink.shrink`."""
        questions = self._questions(budget, together)
        return shrink.shrink(graph, start, questions, root=root, constants=constants)

    def _questions(self, budget: int | None, together: Together | None = None) -> Questions:
        return Questions(self.verdicts, self._width, budget, together, self._progress)

    def simplified(
        self,
        file: Path,
        budget: int,
        units: Sequence[int] = simplify.UNITS,
        ops: int = 0,
        together: AllAtOnce | None = None,
    ) -> Simplified:
        """The editor's program, which is in `file`, in smaller shapes: `simplify.simplify`."""
        options = SimplifyOptions(
            self._judge,
            self.editor.simpler,
            budget,
            units=units,
            ops=ops,
            together=together,
            on_progress=self._progress,
        )
        return simplify.simplify(file, self.editor.survey(), options)
