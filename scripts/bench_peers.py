"""Other people's reducers on the programs of `scripts/bench bisect`, each in a child of its own."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import bench_minify
import msgspec

from iree_pilot.pipeline.failures.diagnostics import Failure
from iree_pilot.pipeline.processes import process
from iree_pilot.pipeline.processes.process import Limits, Outcome
from iree_pilot.pipeline.toolchain.toolchain import Toolchain
from iree_pilot.repro.ir.editor import Editor
from iree_pilot.repro.reproducer.folder.marks import Marks, marks

_HERE = Path(__file__).parent
_LIBRARY = "libIREECompiler.so"
_INPUT = "input"
_CALLS = "calls"
_SMALLEST = "smallest.mlir"
_TIMED_OUT = 124


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """A program that fails to compile, and the failure that is to stay.

    release: the toolchain's, as the user names it. seconds: limit of one compile.
    """

    source: str
    mlir: Path
    release: str | None
    toolchain: Toolchain
    flags: tuple[str, ...]
    failure: Failure
    seconds: float


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """Result of a reducer on a program.

    calls: programs that were compiled or tried to. ops: operations left other than constants, list
    constructs and returns; None where there is no smaller program. of: those of the program that
    it was given. Of an attempt that was cut at its time limit, all say what it had reached by then.
    """

    ended: Literal["done", "cut", "failed"]
    calls: int = 0
    seconds: float = 0.0
    ops: int | None = None
    of: int | None = None
    why: str = ""


Peer = Callable[[Subject, Path, float], Attempt]


def minifier(subject: Subject, directory: Path, limit: float) -> Attempt:
    """PyTorch's FX minifier. seconds: of its search, without importing and exporting before it."""
    job = bench_minify.Job(
        source=subject.source,
        release=subject.release,
        flags=subject.flags,
        failure=subject.failure,
        seconds=subject.seconds,
    )
    (directory / bench_minify.JOB).write_bytes(msgspec.json.encode(job))
    outcome = _run([sys.executable, _HERE / "bench_minify.py", directory], directory, limit)
    attempt = minified(outcome, directory)
    return msgspec.structs.replace(attempt, of=operations(subject.mlir, directory))


def minified(outcome: Outcome, directory: Path) -> Attempt:
    """Result of a minifier that ended so, from its journal."""
    journal = directory / bench_minify.QUERIES
    lines = journal.read_bytes().splitlines() if journal.is_file() else []
    queries = [msgspec.json.decode(line, type=bench_minify.Query) for line in lines]
    ended, why = _end(outcome, directory)
    if queries and not queries[0].interesting:
        ended, why = "failed", f"the whole graph does not fail so {queries[0].why}".strip()
    return Attempt(
        ended=ended,
        calls=len(queries),
        seconds=queries[-1].seconds if queries and ended == "done" else outcome.seconds,
        ops=operations(directory / bench_minify.SMALLEST, directory),
        why=why,
    )


def reducer(subject: Subject, directory: Path, limit: float) -> Attempt:
    """IREE's own reducer, on the program after the `input` phase: it cannot read torch's dialect.

    Its test is a shell script, which looks for the failure as run.sh of a reproducer does.
    """
    compiler = str(subject.toolchain.compiler)
    program = directory / f"{_INPUT}.mlir"
    to = (f"--compile-to={_INPUT}", "-o", program)
    if not _run([compiler, subject.mlir, *subject.flags, *to], directory, subject.seconds).ok:
        return Attempt(ended="failed", why="the program fails before there is IR that it can read")
    script = directory / "interesting.sh"
    command = (compiler, *subject.flags, f"--compile-from={_INPUT}")
    script.write_text(interesting(marks(subject.failure), command, directory, subject.seconds))
    script.chmod(0o755)
    library = subject.toolchain.compiler.with_name(_LIBRARY)
    reduced = directory / "reduced.mlir"
    outcome = _run(
        [sys.executable, _HERE / "bench_reduce.py", library, script, program, "-o", reduced],
        directory,
        limit,
    )
    ended, why = _end(outcome, directory)
    calls = directory / _CALLS
    return Attempt(
        ended=ended,
        calls=len(calls.read_bytes()) if calls.is_file() else 0,
        seconds=outcome.seconds,
        ops=operations(directory / _SMALLEST, directory),
        of=operations(program, directory),
        why=why,
    )


def interesting(look: Marks, command: tuple[str, ...], directory: Path, seconds: float) -> str:
    """A shell script that exits with 0 while compiling its argument shows these marks.

    It notes each call in `directory`, and keeps the last program that was interesting there.
    """
    said, words = "said.txt", "words.txt"
    limited = ["timeout", "--foreground", "--kill-after=5", f"{seconds:g}"]
    if look.limit == "time":
        ended = f'[ "$status" -eq {_TIMED_OUT} ]'
    elif look.signal:
        ended = f'[ "$status" -eq {128 + look.signal} ]'
    else:
        ended = f'[ "$status" -gt 0 ] && [ "$status" -lt {_TIMED_OUT} ]'
    only = " ".join(f"-e {shlex.quote(text)}" for text in look.only)
    lines = [
        "#!/bin/sh",
        f"cd {shlex.quote(str(directory))} || exit 125",
        f"printf . >> {_CALLS}",
        f'{shlex.join([*limited, *command])} "$1" -o /dev/null > /dev/null 2> {said}',
        "status=$?",
        f"{{ {ended}; }} || exit 1",
        f"tr -s '[:space:]' ' ' < {said} | sed 's/(anonymous namespace):://g' > {words}",
        *(f"grep -qF -e {shlex.quote(text)} {words} || exit 1" for text in look.needles),
        *(f"grep -qF -e {shlex.quote(text)} {words} && exit 1" for text in look.never),
        *([f"grep error: {said} | grep -vqF {only} && exit 1"] if only else []),
        f'cp "$1" next.mlir && mv next.mlir {_SMALLEST}',
    ]
    return "\n".join(lines) + "\n"


def operations(mlir: Path, directory: Path) -> int | None:
    """The operations of a program's largest function, counted as those of a reproducer are."""
    if not mlir.is_file():
        return None
    graph = Editor(mlir, 0, directory / "count", Limits()).graph()
    return None if graph is None else len(graph.real)


def _run(argv: Sequence[str | Path], directory: Path, limit: float) -> Outcome:
    """Runs a child in `directory`, where its temporary files go too."""
    temporary = directory / "tmp"
    temporary.mkdir(exist_ok=True)
    root = str(_HERE.parent)
    environment: Mapping[str, str] = {
        **os.environ,
        "TMPDIR": str(temporary),
        "PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH")))),
    }
    return process.run(
        argv,
        stdout=directory / "stdout.txt",
        stderr=directory / "stderr.txt",
        limits=Limits(seconds=limit),
        cwd=directory,
        env=environment,
    )


def _end(outcome: Outcome, directory: Path) -> tuple[Literal["done", "cut", "failed"], str]:
    if outcome.ok:
        return "done", ""
    if outcome.ended_by == "time-limit":
        return "cut", f"stopped after {outcome.seconds:.0f} s"
    said = (directory / "stderr.txt").read_text(errors="replace").strip().splitlines()
    last = said[-1].strip()[:200] if said else ""
    how = outcome.signal or f"exit code {outcome.exit_code}"
    return "failed", f"{how}: {last}" if last else how


PEERS: Mapping[str, Peer] = {"FX minifier": minifier, "iree-reduce": reducer}
