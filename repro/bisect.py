"""From a failing case to reproducer folders: isolate, write at each level, verify."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import msgspec

from pipeline import process
from pipeline.diagnostics import Failure
from pipeline.toolchain import Toolchain
from repro import bundle, isolate, known, levels, verify
from repro.bundle import LARGEST_BYTES, Input, LevelName, Report
from repro.effort import Effort, estimate
from repro.isolate import GaveUp, Isolated
from repro.oracle import CompileOracle, RememberingOracle
from repro.oracle_run import Running, RunOracle, describe
from repro.shrink import Progress

_PACKAGES = ("torch", "iree-turbine")


class Reproducer(msgspec.Struct, frozen=True, kw_only=True):
    """A reproducer folder; ops counts operations other than constants, list constructs, returns.

    levels: those that were verified. bytes: of repro.mlir.
    """

    path: str
    ops: int
    op_names: tuple[str, ...]
    bytes: int
    minimal: bool
    verified: bool
    oracle_calls: int
    seconds: float
    levels: tuple[LevelName, ...]


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """A failure and its reproducer; None, with the reason, where it could not be isolated.

    known_since: the date of an earlier bisection, whose reproducer this is; empty if it is new.
    """

    failure: Failure
    reproducer: Reproducer | None = None
    why: str = ""
    known_since: str = ""


class Bisection(msgspec.Struct, frozen=True, kw_only=True):
    """What a bisection found. seen: other failures met on the way, not isolated."""

    status: Literal["isolated", "passes", "gave-up"]
    failures: tuple[Found, ...] = ()
    oracle_calls: int = 0
    seconds: float = 0.0
    why: str = ""
    seen: tuple[Failure, ...] = ()


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """What fails: a program compiled for a target.

    mlir: the program. source, target: the user's words. command: the compile. running: how it was
    run, if it is not the compile that failed. took_seconds, peak_bytes: of what failed.
    """

    mlir: Path
    source: str
    target: str
    flags: tuple[str, ...]
    command: tuple[str, ...]
    running: Running | None = None
    took_seconds: float
    peak_bytes: int


def bisect(
    subject: Subject,
    failures: tuple[Failure, ...],
    toolchain: Toolchain,
    place: Callable[[Failure], Path],
    state: Path,
    *,
    limits: process.Limits,
    fresh: bool = False,
    told: Callable[[Progress], None] = lambda _: None,
) -> Bisection:
    """Isolates each failure into a folder of its own, `place(failure)`.

    state: a directory that keeps what was asked; the same call goes on where it was. A failure
    that was isolated before is not isolated again, unless `fresh`. limits: of the run that failed.
    """
    begun = time.monotonic()
    found: list[Found] = []
    calls = 0
    seen: dict[str, Failure] = {}
    for failure in failures:
        if not fresh and (before := _known(subject, failure, toolchain)):
            found.append(before)
            continue
        directory = _directory(state, failure, limits)
        effort = estimate(failure, subject.took_seconds, subject.peak_bytes, limits)
        oracle = _oracle(subject, failure, toolchain, directory, effort)
        job = isolate.Job(
            mlir=subject.mlir,
            failure=failure,
            toolchain=toolchain,
            flags=subject.flags,
            directory=directory,
            limits=effort.limits,
            width=effort.width,
            focus=subject.running.line() if subject.running else 0,
        )
        outcome = isolate.isolate(job, oracle, told)
        calls += oracle.calls
        seen |= oracle.others
        if isinstance(outcome, GaveUp):
            found.append(Found(failure=failure, why=outcome.why))
            continue
        reproducer = _write(subject, failure, outcome, toolchain, place(failure), directory, limits)
        found.append(Found(failure=failure, reproducer=reproducer))
    isolated = {f.failure.signature for f in found}
    return Bisection(
        status="isolated" if any(f.reproducer for f in found) else "gave-up",
        failures=tuple(found),
        oracle_calls=calls,
        seconds=time.monotonic() - begun,
        why="; ".join(f.why for f in found if f.why),
        seen=tuple(f for s, f in seen.items() if s not in isolated),
    )


def _known(subject: Subject, failure: Failure, toolchain: Toolchain) -> Found | None:
    """What an earlier bisection made of a failure."""
    recalled = known.recall(failure.signature, toolchain.revision, subject.target)
    if recalled is None:
        return None
    before, report = recalled
    made = _reproducer(Path(before.path), report)
    made = msgspec.structs.replace(made, oracle_calls=0, seconds=0.0)
    return Found(failure=failure, reproducer=made, known_since=before.date)


def _directory(state: Path, failure: Failure, limits: process.Limits) -> Path:
    """Where the state of one failure is kept: of a hang, of one that lasts as long."""
    name = failure.signature.replace("/", "-")
    if failure.kind == "timeout" and limits.seconds is not None:
        name += f"-{limits.seconds:g}s"
    directory = state / name
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def _oracle(
    subject: Subject,
    failure: Failure,
    toolchain: Toolchain,
    directory: Path,
    effort: Effort,
) -> RememberingOracle:
    running, flags = subject.running, subject.flags
    limits, width = effort.limits, effort.width
    if running is None:
        return CompileOracle(toolchain, flags, failure, directory, limits=limits, width=width)
    return RunOracle(toolchain, flags, failure, directory, running, limits=limits, width=width)


def _write(
    subject: Subject,
    failure: Failure,
    isolated: Isolated,
    toolchain: Toolchain,
    place: Path,
    state: Path,
    limits: process.Limits,
) -> Reproducer:
    """Writes the folder, verifies it from copies, and leaves out what does not reproduce."""
    mlir = Path(isolated.mlir)
    alone = msgspec.structs.replace(failure, also=())
    run, inputs = _run(subject.running, mlir, toolchain, state / "run", limits)
    maker = levels.Maker(mlir, alone, toolchain, subject.flags, state / "levels", limits, run)
    made = maker.make()
    report = Report(
        failure=alone,
        target=subject.target,
        flags=subject.flags,
        release=toolchain.version,
        revision=toolchain.revision,
        source=subject.source,
        command=subject.running.command if subject.running else subject.command,
        program=str(subject.mlir),
        ops=len(isolated.ops),
        op_names=isolated.ops,
        oracle_calls=isolated.calls,
        seconds=isolated.seconds,
        minimal=isolated.minimal,
        verified=False,
        levels=made.levels,
        time_limit=limits.seconds or isolate.DEFAULT_SECONDS,
        memory_limit=limits.memory_bytes,
        packages={name: version(name) for name in _PACKAGES},
    )
    files = {name: Path(file) for name, file in made.files.items()}
    bundle.write(place, report, files, inputs)
    checked = verify.check(place, toolchain)
    report = verify.settle(report, checked)
    kept = {one.file for one in report.levels if one.verified}
    good = {name: file for name, file in files.items() if name in kept}
    bundle.write(place, report, good or files, inputs)
    if report.verified:
        known.remember(
            known.Known(
                signature=failure.signature,
                revision=toolchain.revision,
                target=subject.target,
                path=str(place.absolute()),
                ops=report.ops,
                when=datetime.now(UTC).isoformat(timespec="seconds"),
                source=subject.source,
            )
        )
    return _reproducer(place, report)


def _reproducer(place: Path, report: Report) -> Reproducer:
    mlir = place / bundle.FILES["mlir"]
    return Reproducer(
        path=str(place),
        ops=report.ops,
        op_names=report.op_names,
        bytes=mlir.stat().st_size if mlir.is_file() else 0,
        minimal=report.minimal,
        verified=report.verified,
        oracle_calls=report.oracle_calls,
        seconds=report.seconds,
        levels=tuple(one.name for one in report.levels if one.verified),
    )


def _run(
    running: Running | None,
    mlir: Path,
    toolchain: Toolchain,
    directory: Path,
    limits: process.Limits,
) -> tuple[tuple[str, ...], tuple[Input, ...]]:
    """(the command that runs the reproducer, its inputs); nothing where it is not run."""
    if running is None:
        return (), ()
    (function,) = describe(mlir, running, toolchain, directory, limits).functions
    inputs = tuple(
        Input(t, directory / t.file if t.bytes <= LARGEST_BYTES // 2 else None)
        for t in function.example or ()
    )
    return bundle.run_command(function.name, running.elsewhere, inputs), inputs
