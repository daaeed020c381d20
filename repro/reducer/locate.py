"""Location of the operations at fault, from one compile."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import msgspec

from iree_pilot.pipeline.failures import diagnostics
from iree_pilot.pipeline.failures.diagnostics import Failure
from iree_pilot.pipeline.inspect import executables
from iree_pilot.pipeline.inspect.executables import MODE, ExecutableSurvey
from iree_pilot.pipeline.processes.workers import side_by_side
from iree_pilot.pipeline.toolchain.context import Context
from iree_pilot.pipeline.toolchain.phases import dump_files
from iree_pilot.repro.ir.graph import Graph, bridged, by_line, connected

_SOURCES = "executable-sources"
_PHASES = "phases"
#: Phases in which nothing but executables is compiled.
_CODEGEN = ("executable-configurations", "executable-targets")
#: Flags that print the IR before each pass, into a folder for each nested operation.
TREE = ("mlir-print-ir-before-all", "mlir-print-ir-tree-dir")
#: Line that names the pass of LLVM's code generator that crashed.
_RUNNING = re.compile(r"\d+\.\s+Running pass ")
_PLACE = re.compile(r"(?P<file>[^\s:\"]+\.mlir[a-z]*):(?P<line>\d+):\d+: (?:error|note)")
_DEBUG = re.compile(r'"(?P<file>[^"]+)":(?P<line>\d+):\d+')
#: Operations in a row that a dispatch may have folded away without naming them.
_GAP = 4
#: More operations that take one constant are better asked about together.
_MOST_TAKERS = 2


class Located(msgspec.Struct, frozen=True, kw_only=True):
    """Lines of the program that a failure names, the most likely one first.

    executable: the dumped source of the dispatch that fails, where there is one. confirmed: the
    failure was seen once more on the way. calls: what was compiled.
    """

    lines: tuple[int, ...]
    executable: str | None = None
    confirmed: bool = False
    calls: int = 0


def line_of(failure: Failure) -> int:
    """The line of the program at the failure's location, 0 where it has none."""
    match = re.search(r":(\d+)(?::\d+)?$", failure.location or "")
    return int(match[1]) if match else 0


class Locator:
    """Finds where in a program a failure is, by compiling it once and its executables after that.

    A failure in the program's own phases names its operation. One inside code generation names an
    executable: it is dumped with debug locations, which lead back to lines of the program. Where
    the executable is not named (a crash on one of many threads), one thread generates code for one
    after the other: it is the last. Only if that fails in another way, each is compiled alone, up
    to `width` at once.
    """

    def __init__(
        self,
        program: Path,
        failure: Failure,
        context: Context,
        flags: tuple[str, ...],
        *,
        width: int,
    ) -> None:
        self._program, self._failure, self._context = program, failure, context
        self._flags, self._width = flags, width
        self._calls = 0

    def located(self) -> Located:
        order, phase = self._context.toolchain.phases, self._failure.phase
        generated = _SOURCES in order and phase in order[order.index(_SOURCES) :]
        if not generated:
            return self._found(None, confirmed=False)
        if self._failure.kind == "timeout":
            executable = self._unending()
            return self._found(executable, confirmed=executable is not None)
        dumps = self._context.directory / "executables"
        dumps.mkdir(parents=True, exist_ok=True)
        confirmed, stderr = self._dumped(dumps)
        sources = sorted(dumps.glob("*.mlir"))
        executable = _named(stderr, sources, self._failure) or _running(stderr, sources)
        if len(sources) == 1 and phase in _CODEGEN:
            executable = sources[0]
        if executable is None and sources:
            executable = self._last(sources) or self._failing(sources)
        return self._found(executable, confirmed=confirmed)

    def _found(self, executable: Path | None, *, confirmed: bool) -> Located:
        named = line_of(self._failure)
        lines = _lines(executable, self._program) if executable else ()
        return Located(
            lines=tuple(dict.fromkeys((*((named,) if named else ()), *lines))),
            executable=str(executable) if executable else None,
            confirmed=confirmed,
            calls=self._calls,
        )

    def _unending(self) -> Path | None:
        """The executable that does not end when it is compiled alone.

        The program is compiled no farther than its executables, and where the failure names the
        one, that was seen already.
        """
        context = self._context.within("executables")
        sources = executables.dump(self._program, None, context, self._flags)
        self._calls += 1
        known = self._failure.stopped.executable if self._failure.stopped else ""
        found = next((one for one in sources if executables.name(one) == known), None)
        if found is None and sources:
            limit = context.limits.seconds
            survey = ExecutableSurvey(context, self._flags, limit_seconds=limit)
            found = survey.run(sources)
            self._calls += survey.calls
        return found

    def _dumped(self, dumps: Path) -> tuple[bool, str]:
        """(True if a compile that dumps the executables has the same failure, its output)."""
        words = [f"--iree-hal-dump-executable-sources-to={dumps}"]
        if self._failure.kind != "diagnostic":  # which names the executable
            words.append(self._phases)
        self._calls += 1
        return self._fails(
            self._program,
            "--mlir-print-debuginfo",
            *words,
            f"--compile-to={self._failure.phase}",
            name="locate",
        )

    @property
    def _phases(self) -> str:
        return f"--dump-compilation-phases-to={self._context.directory / _PHASES}"

    def _start(self) -> Path | None:
        """The program with its executables' sources; it is dumped now if it was not before."""
        place = self._context.directory / _PHASES
        if self._failure.kind == "diagnostic":
            self._calls += 1
            self._fails(
                self._program,
                "--mlir-print-debuginfo",
                self._phases,
                f"--compile-to={_SOURCES}",
                name=_PHASES,
            )
        return dict(dump_files(place)).get(_SOURCES)

    def _last(self, sources: Sequence[Path]) -> Path | None:
        """The executable that one thread was at when it failed in the same way."""
        context = self._context
        start = self._start()
        self._calls += 1
        if start is None or not set(TREE) <= context.toolchain.flags:
            return None
        tree = context.directory / "passes"
        shutil.rmtree(tree, ignore_errors=True)
        before_all, place = TREE
        same, said = self._fails(
            start,
            f"--compile-from={_SOURCES}",
            diagnostics.SERIAL,
            f"--{before_all}",
            f"--{place}={tree}",
            name="last",
        )
        if not same:
            return None
        written = max(tree.rglob("*.mlir"), key=lambda file: file.stat().st_mtime_ns, default=tree)
        shutil.rmtree(tree, ignore_errors=True)
        return _running(said, sources) or _mentioned(str(written.relative_to(tree)), sources)

    def _failing(self, sources: Sequence[Path]) -> Path | None:
        """The executable that alone fails in the same way."""

        def fails(source: Path) -> bool:
            return self._fails(source, MODE, name=source.stem)[0]

        failing = side_by_side(fails, sources, self._width)
        self._calls += len(sources)
        return next((one for one, fails in zip(sources, failing, strict=True) if fails), None)

    def _fails(self, file: Path, *words: str, name: str) -> tuple[bool, str]:
        """(True if a compile of `file` with these arguments fails in the same way, its output)."""
        compiler = self._context.toolchain.compiler
        outcome, said = self._context.run(
            [compiler, file, *self._flags, *words, "-o", "/dev/null"], name
        )
        if outcome.ok:
            return False, said
        failure = diagnostics.compile_failure(outcome, said, self._failure.phase)
        return failure.shows(self._failure.signature), said


def groups(graph: Graph, lines: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """Groups of operations to cut out, in the order to try them: more and more around the root.

    A constant is not at fault itself, but an operation that takes it: each is a root.
    """
    marked = by_line(graph)
    named = [marked[line] for line in lines if line in marked]
    if named and graph.ops[named[0]].glue:
        return tuple((user,) for user in _takers(graph, named[0])[:_MOST_TAKERS])
    members = tuple(dict.fromkeys(m for m in named if not graph.ops[m].glue))
    if not members:
        return ()
    root = members[0]
    near = tuple(o for o in connected(graph, members, root) if not graph.ops[o].glue)
    return tuple(dict.fromkeys(((root,), near, bridged(graph, members, root, _GAP))))


def _takers(graph: Graph, constant: int) -> list[int]:
    """The real operations that take a constant, at once or in a list."""
    users = graph.users()
    found: list[int] = []
    waiting = [constant]
    while waiting:
        for user in (u for v in graph.ops[waiting.pop()].results for u in users.get(v, ())):
            (waiting if graph.ops[user].glue else found).append(user)
    return sorted(dict.fromkeys(found))


def _named(stderr: str, sources: Sequence[Path], failure: Failure) -> Path | None:
    """The executable whose diagnostic is the failure's: the one before which it is printed."""
    about = failure.op or failure.message
    for line in stderr.splitlines():
        match = _PLACE.match(line)
        if match and about in line[match.end() :]:
            for source in sources:
                if Path(match["file"]).name == source.name:
                    return source
    return None


def _running(stderr: str, sources: Sequence[Path]) -> Path | None:
    """The executable that LLVM's code generator was at when it crashed."""
    lines = [line for line in stderr.splitlines() if _RUNNING.match(line)]
    return _mentioned("\n".join(lines), sources)


def _mentioned(text: str, sources: Sequence[Path]) -> Path | None:
    """The executable whose name appears, alone or as the beginning of a function's."""
    for source in sources:
        name = source.stem.partition("_")[2]
        if re.search(rf"(?:\b|_){re.escape(name)}(?!\d)", text):
            return source
    return None


def _lines(executable: Path, program: Path) -> tuple[int, ...]:
    """Lines of the program that an executable's debug locations name, most frequent first."""
    counts: dict[int, int] = {}
    for match in _DEBUG.finditer(executable.read_text(encoding="utf-8", errors="replace")):
        if Path(match["file"]).name == program.name:
            line = int(match["line"])
            counts[line] = counts.get(line, 0) + 1
    return tuple(sorted(counts, key=lambda line: -counts[line]))
