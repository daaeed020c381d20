"""Makes graphs, cuts and simpler programs of IR, in child processes that may abort."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from iree_pilot.pipeline.processes import process
from iree_pilot.pipeline.processes.task import Done
from iree_pilot.pipeline.toolchain.toolchain import Toolchain
from iree_pilot.repro.ir import bindings, body, edit
from iree_pilot.repro.ir.graph import Cut, Graph
from iree_pilot.repro.oracles.oracle import Answer
from iree_pilot.repro.reducer.simplify import Proposal, Survey

T = TypeVar("T")

_EDIT = "iree_pilot.repro.ir.edit"
_SECONDS = 600.0


class Editor:
    """Makes graphs and cuts of one program, in child processes (see `repro.ir.edit`).

    focus: a line of the function that is meant; 0 means the largest. release: the compiler that the
    program is for (see `bindings`). why: what kept the program from being described. A child takes
    longer to start than most of what is asked of it: what was made before is not made again.
    """

    def __init__(
        self,
        mlir: Path,
        focus: int,
        directory: Path,
        limits: process.Limits,
        release: Toolchain | None = None,
    ) -> None:
        self._mlir = mlir
        self.focus = focus
        self._directory = directory
        # What a program takes to compile says nothing of what it takes to edit.
        limits = msgspec.structs.replace(limits, seconds=_SECONDS, memory_bytes=None)
        self._bindings = bindings.of(release, limits)
        self._release = release
        self._batches = 0
        self._graph: Graph | None = None
        self._rendered: dict[tuple[Cut, bool], Path | None] = {}
        self.why = ""

    def graph(self) -> Graph | None:
        """The program's graph; None where it has no function with a body."""
        if self._graph is None:
            self._graph = self._described("described", Graph)
        return self._graph

    def names(self, cut: Cut, graph: Graph) -> tuple[str, ...]:
        """The operations of a cut, with what comes along with it and counts: arithmetic on sizes,
        and what makes or unpacks a list of tensors."""
        if any(body.SIZES.fullmatch(op.name) or op.name in body.UNPACKS for op in graph.ops):
            place, limits = self._directory / "names", self._bindings.limits
            left = Editor(self.file(cut), 0, place, limits, self._release).graph()
            if left is not None:
                counted = (op for op in left.ops if not op.pinned)
                return tuple(
                    op.name for op in counted if not op.glue or body.SIZES.fullmatch(op.name)
                )
        return tuple(graph.ops[index].name for index in cut.keep)

    def survey(self) -> Survey:
        """Surveys what could be simpler in the program; empty if that is unknown."""
        return self._described("surveyed", Survey) or Survey()

    def render(self, cuts: Sequence[Cut], whole: bool = False) -> list[Path | None]:
        """A file for each cut, None where it cannot be made; whole: with all other functions.

        A cut on which the bindings abort costs itself: the ones after it are made by another child.
        """
        made = self._rendered
        new = tuple(dict.fromkeys(cut for cut in cuts if (cut, whole) not in made))
        files = self._made(len(new), lambda at: self._batch(cuts=new[at:], whole=whole))
        made.update(zip(((cut, whole) for cut in new), files, strict=True))
        return [made[cut, whole] for cut in cuts]

    def file(self, cut: Cut, whole: bool = False) -> Path:
        """The file of a cut that was asked about before."""
        (file,) = self.render([cut], whole)
        assert file is not None, "a cut that was asked about can be made again"
        return file

    def simpler(self, proposals: Sequence[Proposal]) -> list[Path | None]:
        """A file for each simpler program, None where there is no such program."""
        return self._made(len(proposals), lambda at: self._batch(proposals=tuple(proposals[at:])))

    def verdicts(
        self,
        cuts: Sequence[Cut],
        ask: Callable[[list[Path]], list[Answer]],
        whole: bool = False,
    ) -> list[str]:
        """Verdicts of an oracle on the cuts; a cut that cannot be made is invalid."""
        files = self.render(cuts, whole)
        made = [file for file in files if file is not None]
        answers = dict(zip(made, ask(made), strict=True))
        return [answers[file].verdict if file is not None else "invalid" for file in files]

    def place(self) -> Path:
        """A file that is not there yet, for what is made of candidates."""
        self._batches += 1
        return self._directory / f"{self._batches}.mlir"

    def _batch(
        self,
        cuts: tuple[Cut, ...] = (),
        proposals: tuple[Proposal, ...] = (),
        whole: bool = False,
    ) -> edit.EditBatch:
        return edit.EditBatch(
            mlir=str(self._mlir), focus=self.focus, cuts=cuts, proposals=proposals, whole=whole
        )

    def _made(self, count: int, batch: Callable[[int], edit.EditBatch]) -> list[Path | None]:
        """Files of `count` programs, None for a failed one; batch(n): the job from the nth on."""
        files: list[Path | None] = []
        while len(files) < count:
            done = self._call("made", batch(len(files)), edit.EditedProgram)
            place = self._directory / str(self._batches)
            files += [place / one.file if one.file else None for one in done.replies]
            if done.fault is not None:
                files += [None] * (count - len(files))
            elif not done.outcome.ok:
                files.append(None)
        return files

    def _described(self, function: str, kind: type[T]) -> T | None:
        """Description of the program, by the bindings that can read it."""
        done = self._call(function, self._batch(), kind)
        why = done.why
        if done.reply is None and self._bindings.site is not None:
            self._bindings = self._bindings.here
            done = self._call(function, self._batch(), kind)
            why = why or done.why
        self.why = " ".join(why.split()) if done.reply is None else ""
        return done.reply

    def _call(self, function: str, batch: edit.EditBatch, kind: type[T]) -> Done[T]:
        self._batches += 1
        place = self._directory / str(self._batches)
        shutil.rmtree(place, ignore_errors=True)
        return self._bindings.call(f"{_EDIT}:{function}", batch, kind, place)
