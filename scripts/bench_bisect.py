"""Isolation of failures: `iree-pilot bisect` beside other reducers, in the same run.

For each program, one after the other on the same machine: it is traced into an empty cache, one
full compile that fails is timed, the program is bisected with nothing known of its failure, and
the peers get the traced program's source and that failure.

The time of `iree-pilot bisect` is counted from the start of the command until the smallest program
is found: it finds the traced program in the cache, compiles it in full, confirms the failure and
isolates it. Writing the four levels and verifying them comes after that; `command_seconds` has it
all. Of the peers, only what they take to reduce is counted.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import bench_peers
import click
import msgspec
from bench_base import (
    PILOT,
    Machine,
    machine,
    own_cache,
    reporting_errors,
    rounds_option,
    shared,
    tell_machine,
)
from bench_contest import Contest, Isolation, Program, Round, judged, tell
from bench_peers import PEERS, Attempt, Peer, Subject

from iree_pilot.pipeline.cli.display import output as out
from iree_pilot.pipeline.cli.options import DURATION
from iree_pilot.pipeline.failures.diagnostics import Failure
from iree_pilot.pipeline.processes import process
from iree_pilot.pipeline.processes.process import Limits
from iree_pilot.pipeline.targets.targets import parse, plan
from iree_pilot.pipeline.toolchain.releases import find as find_release
from iree_pilot.pipeline.toolchain.toolchain import Toolchain

_CASES = Path(__file__).parent.parent / "tests" / "cases"
_BASELINE = "vulkan:vp_android_baseline_2022"


def _case(
    name: str, file: str, target: str, ops: int, calls: int = 12, about: str = "", **more: Any
) -> Program:
    return Program(
        name=name,
        source=str(_CASES / file),
        target=target,
        about=about,
        calls_at_most=calls,
        ops_at_most=ops,
        **more,
    )


PROGRAMS = {
    program.name: program
    for program in (
        _case(
            "fp8-attention",
            "fp8_attention.py",
            "vulkan:llvmpipe",
            1,
            calls=4,
            compiles_at_most=8,
        ),
        _case("fp8-linear", "fp8_attention.py", _BASELINE, 3, about="vector.bitcast"),
        _case("llama-fp8-16", "fp8_llama.py:layers16", _BASELINE, 3),
        _case("llama-fp8-32", "fp8_llama.py:layers32", _BASELINE, 3, compiles_at_most=4),
        _case("argsort", "argsort.py", _BASELINE, 1),
        _case("attention", "attention.py", _BASELINE, 1),
        _case("f16-matmul", "f16_matmul.py", _BASELINE, 1),
        _case("f8-half", "f8_half.py", "llvm-cpu", 5),
        _case("i8-sub", "i8_sub.py", "llvm-cpu", 1),
        _case("prelu", "prelu.py", "llvm-cpu", 3),
        _case("softmax", "softmax.py", "hip:gfx942", 1, seconds=20.0),
    )
}
#: Limit of one compile in the peers' tests: some of their candidates never finish compiling.
_TIMES, _LEAST_SECONDS = 10.0, 30.0
SAMPLE = ("fp8-attention", "argsort")


class Report(msgspec.Struct, frozen=True):
    machine: Machine
    bisect: tuple[Contest, ...]


def contest(
    program: Program, count: int, limit: float, release: str | None, peers: Mapping[str, Peer]
) -> Contest:
    """Measures `count` rounds. limit: seconds that each reducer may take for a program."""
    toolchain = find_release(release)
    flags = plan(parse(program.target), toolchain).flags
    return judged(
        program, [_round(program, toolchain, flags, limit, release, peers) for _ in range(count)]
    )


def _round(
    program: Program,
    toolchain: Toolchain,
    flags: tuple[str, ...],
    limit: float,
    release: str | None,
    peers: Mapping[str, Peer],
) -> Round:
    with own_cache() as cache:
        pilot = _Pilot(program, cache, release, limit)
        _note(f"{program.name}: tracing")
        trace_seconds, mlir = pilot.trace()
        _note(f"{program.name}: one full compile")
        compile_seconds = _full_compile(program, mlir, toolchain, flags, cache)
        _note(f"{program.name}: iree-pilot bisect")
        isolation, failure = pilot.bisect()
        failure = failure or (pilot.compile() if peers else None)
        whole = bench_peers.operations(mlir, _directory(cache, "whole"))
        attempts = {}
        for name, peer in peers.items():
            if failure is None:
                attempts[name] = Attempt(ended="failed", why="there is no failure to look for")
                continue
            _note(f"{program.name}: {name}")
            subject = Subject(
                source=program.source,
                mlir=mlir,
                release=release,
                toolchain=toolchain,
                flags=flags,
                failure=msgspec.structs.replace(failure, also=()),
                seconds=min(program.seconds, max(_LEAST_SECONDS, _TIMES * compile_seconds)),
            )
            attempts[name] = peer(subject, _directory(cache, name), limit)
        return Round(
            trace_seconds=trace_seconds,
            compile_seconds=compile_seconds,
            signature=failure.signature if failure else "",
            isolation=msgspec.structs.replace(isolation, of=whole),
            peers=attempts,
        )


class _Pilot:
    """The commands of iree-pilot for one program, with empty directories of their own."""

    def __init__(self, program: Program, scratch: Path, release: str | None, limit: float) -> None:
        self.program = program
        self.place = _directory(scratch, "pilot")
        self.limit = limit
        self.common = ["--json", *(["--release", release] if release else [])]

    def trace(self) -> tuple[float, Path]:
        """(seconds, the program); it is in the cache then."""
        traced = self.place / "traced"
        outcome, document = self._run("trace", self.program.source, "-o", traced)
        if not outcome.ok:
            raise click.ClickException(f"{self.program.source} does not trace\n{self._said()}")
        return outcome.seconds, traced / document["program"]["mlir"]

    def bisect(self) -> tuple[Isolation, Failure | None]:
        """Isolation of the failure, and the failure itself."""
        everything = ["--all"] if self.program.about else []
        outcome, document = self._run(
            "bisect",
            self.program.source,
            *self._target(),
            *everything,
            "-o",
            self.place / "reproducer",
        )
        if document is None:
            cut = outcome.ended_by == "time-limit"
            why = f"stopped after {outcome.seconds:.0f} s" if cut else self._said()
            return Isolation(ended="failed", command_seconds=outcome.seconds, why=why), None
        return isolation(document, self.program.about, outcome.seconds)

    def compile(self) -> Failure | None:
        """The failure that is meant, from a compile alone."""
        _, document = self._run("compile", self.program.source, *self._target())
        if document is None or document["cases"][0]["failure"] is None:
            return None
        first = msgspec.convert(document["cases"][0]["failure"], Failure)
        return _meant((first, *first.also), self.program.about)

    def _target(self) -> tuple[str, ...]:
        return ("-t", self.program.target, "--time-limit", f"{self.program.seconds:g}s")

    def _run(self, *arguments: str | Path) -> tuple[process.Outcome, Any]:
        outcome = process.run(
            [PILOT, *arguments, *self.common],
            stdout=self.place / "stdout.txt",
            stderr=self.place / "stderr.txt",
            limits=Limits(seconds=self.limit),
            env={**os.environ, "IREE_PILOT_DATA": str(self.place / "data")},
        )
        try:
            return outcome, msgspec.json.decode((self.place / "stdout.txt").read_bytes())
        except msgspec.DecodeError:
            return outcome, None

    def _said(self) -> str:
        return (self.place / "stderr.txt").read_text(errors="replace").strip()[-500:]


def isolation(
    document: Mapping[str, Any], about: str, seconds: float
) -> tuple[Isolation, Failure | None]:
    """Record of a failure in a document of `bisect`. seconds: the command's.

    Until the smallest program was found, the command had done what comes before any isolation and
    the search for this failure; that of the others is left out.
    """
    found = {msgspec.convert(f["failure"], Failure): f for f in document["failures"]}
    failure = _meant(tuple(found), about)
    if failure is None:
        why = f"no failure about {about}" if found else document["why"]
        return Isolation(ended="failed", command_seconds=seconds, why=why), None
    made = found[failure]["reproducer"]
    if made is None:
        why = found[failure]["why"] or "nothing was isolated"
        calls = document["oracle_calls"]
        return Isolation(ended="failed", calls=calls, command_seconds=seconds, why=why), failure
    return Isolation(
        ended="done",
        calls=made["oracle_calls"],
        seconds=seconds - document["seconds"] + made["seconds"],
        ops=made["ops"],
        search_seconds=made["seconds"],
        command_seconds=seconds,
        minimal=made["minimal"],
        verified=made["verified"],
        levels=tuple(made["levels"]),
    ), failure


def _meant(failures: Sequence[Failure], about: str) -> Failure | None:
    return next((f for f in failures if about in f"{f.op} {f.message}"), None)


def _full_compile(
    program: Program, mlir: Path, toolchain: Toolchain, flags: tuple[str, ...], scratch: Path
) -> float:
    """Seconds of one compile, which has to fail."""
    place = _directory(scratch, "compile")
    outcome = process.run(
        [toolchain.compiler, mlir, *flags, "-o", "/dev/null"],
        stdout=place / "stdout.txt",
        stderr=place / "stderr.txt",
        limits=Limits(seconds=program.seconds),
    )
    if outcome.ok:
        raise click.ClickException(
            f"{program.source} compiles for {program.target}: there is nothing to isolate"
        )
    return outcome.seconds


def _directory(parent: Path, name: str) -> Path:
    made = parent / name.replace(" ", "-")
    made.mkdir()
    return made


def _note(text: str) -> None:
    click.echo(f"  {text}", err=True)


@click.command("bisect", epilog=f"Programs: {', '.join(PROGRAMS)}.")
@click.argument("names", metavar="[PROGRAM]...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All programs (the whole takes long).")
@click.option("-t", "--target", metavar="TARGET", help="PROGRAMs are sources, for this target.")
@click.option("--peers/--no-peers", default=True, help="Whether the other reducers run too.")
@click.option(
    "--limit",
    type=DURATION,
    default="15min",
    show_default=True,
    metavar="TIME",
    help="For each reducer and program.",
)
@rounds_option(1)
@shared
def command(
    names: tuple[str, ...],
    everything: bool,
    target: str | None,
    peers: bool,
    limit: float,
    pairs: int,
    as_json: bool,
    release: str | None,
) -> None:
    """Isolate failures, against PyTorch's FX minifier and IREE's iree-reduce."""
    programs = chosen(names, everything, target)
    load = os.getloadavg()[0]
    found = []
    with reporting_errors():
        for program in programs:
            found.append(contest(program, pairs, limit, release, PEERS if peers else {}))
            if not as_json:
                tell(found[-1])
        report = Report(machine(load, release), tuple(found))
    if as_json:
        out.emit(report)
    else:
        click.echo()
        tell_machine(report.machine)


def chosen(names: Sequence[str], everything: bool, target: str | None) -> list[Program]:
    """The programs that are meant. Raises UsageError for a name that there is not."""
    if target is not None:
        if not names or everything:
            raise click.UsageError("-t TARGET goes with the sources to bisect for it")
        return [Program(name=name, source=_absolute(name), target=target) for name in names]
    if unknown := [name for name in names if name not in PROGRAMS]:
        raise click.UsageError(
            f"there is no program {unknown[0]}; there are {', '.join(PROGRAMS)}. "
            "A source of your own goes with -t TARGET."
        )
    if everything:
        return list(PROGRAMS.values())
    return [PROGRAMS[name] for name in names or SAMPLE]


def _absolute(source: str) -> str:
    """Source with absolute paths."""
    file, colon, factory = source.partition(":")
    return f"{Path(file).absolute()}{colon}{factory}" if Path(file).exists() else source
