"""The executable that fails, alone, with nothing in it that can be spared.

It compiles in an instant where its program takes seconds, so these compiles are counted apart.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from iree_pilot.pipeline.failures.diagnostics import Failure
from iree_pilot.pipeline.inspect.executables import MODE
from iree_pilot.pipeline.toolchain.context import Context
from iree_pilot.repro.ir.editor import Editor
from iree_pilot.repro.ir.graph import Cut
from iree_pilot.repro.oracles.oracle import CompileOracle
from iree_pilot.repro.reducer.reducer import Reducer

#: Limit of programs to compile: a dispatch of many operations is still one dispatch.
_BUDGET = 48
#: Compiles of an instant: what is asked for in vain costs less than another batch.
_AT_ONCE = 6


class Executable(msgspec.Struct, frozen=True, kw_only=True):
    """A file with one executable; how many operations it has, and how many compiles that took.

    minimal: taking any one operation away was tried, and none of it failed in the same way.
    """

    path: str
    ops: int = 0
    calls: int = 0
    minimal: bool = False


class ExecutableOracle(CompileOracle):
    """The real compiler, for one executable."""

    def command(self, candidate: str, *more: str) -> tuple[str, ...]:
        compiler = str(self.context.toolchain.compiler)
        return (compiler, candidate, MODE, *self._flags, *more, "-o", "/dev/null")


def reduced(file: Path, failure: Failure, context: Context, flags: tuple[str, ...]) -> Executable:
    """The executable in `file`, which fails so, reduced; as it is where that cannot be done.

    Each candidate of a failure that is a limit being reached would take that long: those stay.
    """
    if failure.kind in ("timeout", "out-of-memory"):
        return Executable(path=str(file))
    width = os.cpu_count() or 1
    oracle = ExecutableOracle(
        context,
        flags,
        failure,
        width=width,
    )
    editor = Editor(file, 0, context.directory / "edits", context.limits, context.toolchain)
    graph = editor.graph()
    if graph is None or not graph.real:
        return Executable(path=str(file))
    reducer = Reducer(editor, oracle.ask, width=_AT_ONCE)
    if not reducer.same(graph.real):
        return Executable(path=str(file), ops=len(graph.real), calls=oracle.spent.calls)
    shrunk = reducer.shrunk(graph, Cut(keep=graph.real), budget=_BUDGET)
    return Executable(
        path=str(editor.file(shrunk.cut)),
        ops=len(shrunk.cut.keep),
        calls=oracle.spent.calls,
        minimal=shrunk.minimal,
    )
