"""Which operations a failure is about, from what one compile says."""

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
#: What prints the IR before each pass, into a folder for each operation that is nested.
TREE = ("mlir-print-ir-before-all", "mlir-print-ir-tree-dir")
#: What LLVM's code generator was at when it crashed.
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


def locate(
    program: Path, failure: Failure, context: Context, flags: tuple[str, ...], *, width: int
) -> Located:
    """Where in the program a failure is.

    A failure in the program's own phases names its operation. One inside code generation names an
    executable: it is dumped with debug locations, which lead back to lines of the program. Where
    the executable is not named (a crash on one of many threads), one thread generates code for one
    after the other: it is the last. Only if that fails in another way, each is compiled alone.
    """
    named = line_of(failure)
    own = (named,) if named else ()
    order = context.toolchain.phases
    generated = _SOURCES in order and failure.phase in order[order.index(_SOURCES) :]
    if not generated:
        return Located(lines=own)
    dumps = context.directory / "executables"
    if failure.kind == "timeout":
        return _unending(program, failure, context, flags, dumps, own)
    dumps.mkdir(parents=True, exist_ok=True)
    again, stderr = _dump(program, context, flags, dumps, failure.phase)
    confirmed = again is not None and again.shows(failure.signature)
    sources = sorted(dumps.glob("*.mlir"))
    executable = _named(stderr, sources, failure) or _running(stderr, sources)
    calls = 1
    if executable is None and sources:
        executable = _last(sources, failure, context, flags)
        calls += 1
    if executable is None and sources:
        executable, tried = _guilty(sources, failure, context, flags, width)
        calls += tried
    lines = _lines(executable, program) if executable else ()
    return Located(
        lines=tuple(dict.fromkeys((*own, *lines))),
        executable=str(executable) if executable else None,
        confirmed=confirmed,
        calls=calls,
    )


def _unending(
    program: Path,
    failure: Failure,
    context: Context,
    flags: tuple[str, ...],
    dumps: Path,
    own: tuple[int, ...],
) -> Located:
    """Where a compile does not end: the executable that does not when it is compiled alone.

    The program is compiled no farther than its executables, and where the failure names the one,
    that was seen already.
    """
    sources = executables.dump(program, None, context.at(dumps), flags)
    known = failure.stopped.executable if failure.stopped else ""
    found = next((one for one in sources if executables.name(one) == known), None)
    calls = 1
    if found is None and sources:
        survey = ExecutableSurvey(context.at(dumps), flags, limit_seconds=context.limits.seconds)
        found = survey.run(sources)
        calls += survey.calls
    return Located(
        lines=tuple(dict.fromkeys((*own, *(_lines(found, program) if found else ())))),
        executable=str(found) if found else None,
        confirmed=found is not None,
        calls=calls,
    )


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


def _dump(
    program: Path, context: Context, flags: tuple[str, ...], dumps: Path, phase: str | None
) -> tuple[Failure | None, str]:
    """(the failure of compiling with dumps, what the compiler printed)."""
    outcome, said = context.run(
        [
            context.toolchain.compiler,
            program,
            *flags,
            "--mlir-print-debuginfo",
            f"--iree-hal-dump-executable-sources-to={dumps}",
            f"--dump-compilation-phases-to={context.directory / _PHASES}",
            f"--compile-to={phase}",
            "-o",
            "/dev/null",
        ],
        "locate",
    )
    if outcome.ok:
        return None, said
    return diagnostics.compile_failure(outcome, said, phase), said


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


def _last(
    sources: Sequence[Path], failure: Failure, context: Context, flags: tuple[str, ...]
) -> Path | None:
    """The executable that one thread was at when it failed in the same way."""
    start = dict(dump_files(context.directory / _PHASES)).get(_SOURCES)
    if start is None or not set(TREE) <= context.toolchain.flags:
        return None
    tree = context.directory / "passes"
    shutil.rmtree(tree, ignore_errors=True)
    before_all, place = TREE
    outcome, said = context.run(
        [
            context.toolchain.compiler,
            start,
            *flags,
            f"--compile-from={_SOURCES}",
            diagnostics.SERIAL,
            f"--{before_all}",
            f"--{place}={tree}",
            "-o",
            "/dev/null",
        ],
        "last",
    )
    found = None if outcome.ok else diagnostics.compile_failure(outcome, said, failure.phase)
    if found is None or not found.shows(failure.signature):
        return None
    written = max(tree.rglob("*.mlir"), key=lambda file: file.stat().st_mtime_ns, default=tree)
    shutil.rmtree(tree, ignore_errors=True)
    return _running(said, sources) or _mentioned(str(written.relative_to(tree)), sources)


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


def _guilty(
    sources: Sequence[Path], failure: Failure, context: Context, flags: tuple[str, ...], width: int
) -> tuple[Path | None, int]:
    """(the executable that alone fails in the same way, how many were compiled)."""

    def fails(source: Path) -> bool:
        outcome, said = context.run(
            [context.toolchain.compiler, source, *flags, MODE, "-o", "/dev/null"], source.stem
        )
        if outcome.ok:
            return False
        return diagnostics.compile_failure(outcome, said, failure.phase).shows(failure.signature)

    failing = side_by_side(fails, sources, width)
    guilty = next((s for s, guilty in zip(sources, failing, strict=True) if guilty), None)
    return guilty, len(sources)


def _lines(executable: Path, program: Path) -> tuple[int, ...]:
    """Lines of the program that an executable's debug locations name, most frequent first."""
    counts: dict[int, int] = {}
    for match in _DEBUG.finditer(executable.read_text(errors="replace")):
        if Path(match["file"]).name == program.name:
            line = int(match["line"])
            counts[line] = counts.get(line, 0) + 1
    return tuple(sorted(counts, key=lambda line: -counts[line]))
