"""Which operations a failure is about, from what one compile says."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import msgspec

from pipeline import diagnostics, process
from pipeline.diagnostics import Failure
from pipeline.toolchain import Toolchain
from pipeline.workers import side_by_side
from repro.graph import Graph, bridged, by_line, connected

_PLACE = re.compile(r"(?P<file>[^\s:\"]+\.mlir[a-z]*):(?P<line>\d+):\d+: (?:error|note)")
_DEBUG = re.compile(r'"(?P<file>[^"]+)":(?P<line>\d+):\d+')
#: Operations in a row that a dispatch may have folded away without naming them.
_GAP = 4


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
    program: Path,
    failure: Failure,
    toolchain: Toolchain,
    flags: tuple[str, ...],
    directory: Path,
    *,
    limits: process.Limits,
    width: int,
) -> Located:
    """Where in the program a failure is.

    A failure in the program's own phases names its operation. One inside code generation names an
    executable: it is dumped with debug locations, which lead back to lines of the program. A crash
    names nothing: then the executables are compiled one by one.
    """
    named = line_of(failure)
    own = (named,) if named else ()
    order = toolchain.phases
    generated = (
        "executable-sources" in order
        and failure.phase in order[order.index("executable-sources") :]
    )
    if not generated:
        return Located(lines=own)
    dumps = directory / "executables"
    dumps.mkdir(parents=True, exist_ok=True)
    again, stderr = _dump(program, toolchain, flags, dumps, directory, limits, failure.phase)
    confirmed = again is not None and failure.signature in {
        again.signature,
        *(other.signature for other in again.also),
    }
    sources = sorted(dumps.glob("*.mlir"))
    executable = _named(stderr, sources, failure)
    calls = 1
    if executable is None and sources:
        executable, tried = _guilty(sources, failure, toolchain, flags, directory, limits, width)
        calls += tried
    lines = _lines(executable, program) if executable else ()
    return Located(
        lines=tuple(dict.fromkeys((*own, *lines))),
        executable=str(executable) if executable else None,
        confirmed=confirmed,
        calls=calls,
    )


def groups(graph: Graph, lines: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """Groups of operations to cut out, in the order to try them: more and more around the root."""
    marked = by_line(graph)
    members = tuple(dict.fromkeys(marked[line] for line in lines if line in marked))
    members = tuple(m for m in members if not graph.ops[m].glue)
    if not members:
        return ()
    root = members[0]
    near = tuple(o for o in connected(graph, members, root) if not graph.ops[o].glue)
    return tuple(dict.fromkeys(((root,), near, bridged(graph, members, root, _GAP))))


def _dump(
    program: Path,
    toolchain: Toolchain,
    flags: tuple[str, ...],
    dumps: Path,
    directory: Path,
    limits: process.Limits,
    phase: str | None,
) -> tuple[Failure | None, str]:
    """(the failure of compiling with dumps, what the compiler printed)."""
    stderr = directory / "locate.stderr.txt"
    outcome = process.run(
        [
            toolchain.compiler,
            program,
            *flags,
            "--mlir-print-debuginfo",
            f"--iree-hal-dump-executable-sources-to={dumps}",
            f"--compile-to={phase}",
            "-o",
            "/dev/null",
        ],
        stdout=directory / "locate.stdout.txt",
        stderr=stderr,
        limits=limits,
    )
    said = stderr.read_text(errors="replace")
    if outcome.ok:
        return None, said
    return diagnostics.compile_failure(outcome, said, phase), said


def _named(stderr: str, sources: Sequence[Path], failure: Failure) -> Path | None:
    """The executable whose diagnostic is the failure's: the one before which it is printed."""
    about = failure.op or failure.message
    for line in stderr.splitlines():
        match = _PLACE.match(line)
        if match and about in line:
            for source in sources:
                if Path(match["file"]).name == source.name:
                    return source
    return None


def _guilty(
    sources: Sequence[Path],
    failure: Failure,
    toolchain: Toolchain,
    flags: tuple[str, ...],
    directory: Path,
    limits: process.Limits,
    width: int,
) -> tuple[Path | None, int]:
    """(the executable that alone fails in the same way, how many were compiled)."""

    def fails(source: Path) -> bool:
        stderr = directory / f"{source.stem}.stderr.txt"
        outcome = process.run(
            [
                toolchain.compiler,
                source,
                *flags,
                "--compile-mode=hal-executable",
                "-o",
                "/dev/null",
            ],
            stdout=directory / f"{source.stem}.stdout.txt",
            stderr=stderr,
            limits=limits,
        )
        if outcome.ok:
            return False
        found = diagnostics.compile_failure(
            outcome, stderr.read_text(errors="replace"), failure.phase
        )
        return found.signature == failure.signature

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
