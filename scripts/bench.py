"""Overhead of iree-pilot: over the bare compiler, at its start, with a full cache, in memory.

Other benches: `bench_bisect` isolates failures, `bench_zoo` traces and compiles the zoo,
`bench_history` loads a long history, `bench_right` and `bench_delicate` (ill-conditioned programs)
count false alarms, `bench_verdicts` checks verdicts on MLIR, `bench_wrong` detects and isolates
wrong numbers, `bench_goldens` shows the effect of a code change on the output of the commands.

Compared commands are measured in rounds, one after the other in alternating order, and a ratio is
taken within each round, so that other load on the machine affects both. Medians and ranges are
reported, with the load average. CPU time is the better measure if others use the machine too.
"""

from __future__ import annotations

import functools
import os
import shlex
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import bench_bisect
import bench_breadth
import bench_delicate
import bench_goldens
import bench_history
import bench_nightly
import bench_plain
import bench_right
import bench_verdicts
import bench_wrong
import bench_zoo
import click
import msgspec
from bench_base import (
    PILOT,
    Machine,
    Spread,
    machine,
    own_cache,
    reporting_errors,
    rounds_option,
    shared,
    span,
    tell_machine,
)

from iree_pilot.pipeline.cli.display import output as out
from iree_pilot.pipeline.targets.targets import parse, plan
from iree_pilot.pipeline.toolchain import compiler
from iree_pilot.pipeline.toolchain.context import Context
from iree_pilot.pipeline.toolchain.releases import find as find_release
from iree_pilot.pipeline.toolchain.toolchain import Toolchain


class Use(msgspec.Struct, frozen=True):
    """Resources that one run took.

    peak_bytes: resident memory of its largest process; for a compile by iree-pilot that of the
    compiler and its linker together. The system counts from the fork, so it is never less than
    this script's own.
    """

    seconds: float
    cpu_seconds: float
    peak_bytes: int


class Target(msgspec.Struct, frozen=True):
    """Limit for the median of one of the figures."""

    figure: Literal["seconds", "ratio", "peak_bytes"]
    at_most: float


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was measured, and its ratio to `against`: median and range of the rounds'."""

    what: str
    seconds: Spread
    cpu_seconds: Spread
    peak_bytes: Spread
    against: str | None = None
    ratio: Spread | None = None
    cpu_ratio: Spread | None = None
    target: Target | None = None
    met: bool | None = None


class Report(msgspec.Struct, frozen=True):
    machine: Machine
    measured: dict[str, tuple[Measured, ...]]


def rounds(count: int, actions: Mapping[str, Callable[[], Use]]) -> dict[str, list[Use]]:
    """Does all once unmeasured, so that files are cached, then `count` times, to and fro."""
    uses: dict[str, list[Use]] = {name: [] for name in actions}
    for act in actions.values():
        act()
    for number in range(count):
        for name in list(actions)[:: -1 if number % 2 else 1]:
            uses[name].append(actions[name]())
    return uses


def measured(
    uses: Mapping[str, Sequence[Use]],
    targets: Mapping[str, Target],
    *,
    against: str | None = None,
) -> tuple[Measured, ...]:
    """The figures of each thing, with ratios to the one named `against`, round by round."""
    found = []
    for what, own in uses.items():
        base = uses[against] if against and what != against else None
        row = Measured(
            what=what,
            seconds=Spread.of([u.seconds for u in own]),
            cpu_seconds=Spread.of([u.cpu_seconds for u in own]),
            peak_bytes=Spread.of([u.peak_bytes for u in own]),
            against=against if base else None,
            ratio=_ratio([u.seconds for u in own], [u.seconds for u in base]) if base else None,
            cpu_ratio=_ratio([u.cpu_seconds for u in own], [u.cpu_seconds for u in base])
            if base
            else None,
            target=targets.get(what),
        )
        if row.target is not None:
            spread: Spread = getattr(row, row.target.figure)
            row = msgspec.structs.replace(row, met=spread.median <= row.target.at_most)
        found.append(row)
    return tuple(found)


def _ratio(own: Sequence[float], base: Sequence[float]) -> Spread | None:
    """Ratio; None if the base is too short to be measured (CPU time comes in ticks)."""
    return Spread.of([a / b for a, b in zip(own, base, strict=True)]) if all(base) else None


def spawn(*argv: str | Path, stdout: Path | None = None) -> Use:
    """Runs a command to its end.

    Not by `pipeline.processes.process`, whose cost is part of what is measured here. Raises
    ClickException when it fails.
    """
    with tempfile.TemporaryFile() as said, (stdout or Path(os.devnull)).open("wb") as into:
        started = time.perf_counter()
        child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=into, stderr=said)
        try:
            _, status, usage = os.wait4(child.pid, 0)
        except BaseException:
            child.terminate()
            child.wait()
            raise
        seconds = time.perf_counter() - started
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            said.seek(0)
            tail = said.read()[-2000:].decode(errors="replace")
            raise click.ClickException(
                f"{shlex.join(map(str, argv))} ended with {child.returncode}\n{tail}"
            )
    return Use(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)


def bench_compile(model: str, target: str, count: int, release: str | None) -> tuple[Measured, ...]:
    """One compile by the bare compiler, with dumps, as iree-pilot does it, and by its command."""
    with own_cache() as cache:
        toolchain = find_release(release)
        document = cache / "program.json"
        traced = cache / "traced"
        common = ["--release", release] if release else []
        spawn(PILOT, "trace", model, "-o", traced, "--json", *common, stdout=document)
        program = traced / msgspec.json.decode(document.read_bytes())["program"]["mlir"]
        flags = plan(parse(target), toolchain).flags
        bare = (toolchain.compiler, program, *flags, "-o", cache / "bare.vmfb")
        uses = rounds(
            count,
            {
                "iree-compile": lambda: spawn(*bare),
                "iree-compile, phases dumped": lambda: _dumped(bare, cache),
                "iree-pilot's compile": lambda: _compiled(program, flags, toolchain, cache),
                "iree-pilot compile --fresh": lambda: spawn(
                    PILOT, "compile", "--fresh", program, "-t", target, *common
                ),
            },
        )
    targets = {"iree-pilot's compile": Target("ratio", 1.15)}
    return measured(uses, targets, against="iree-compile")


def _dumped(bare: Sequence[str | Path], cache: Path) -> Use:
    with tempfile.TemporaryDirectory(dir=cache) as directory:
        return spawn(*bare, f"--dump-compilation-phases-to={directory}")


def _compiled(program: Path, flags: tuple[str, ...], toolchain: Toolchain, cache: Path) -> Use:
    """The library's call, in this process: its CPU time and that of the compiler it runs."""
    with tempfile.TemporaryDirectory(dir=cache) as directory:
        job = compiler.Compile(mlir=program, flags=flags)
        before, started = os.times(), time.perf_counter()
        result = compiler.compile(job, Context(toolchain=toolchain, directory=Path(directory)))
        seconds, after = time.perf_counter() - started, os.times()
    if result.failure is not None:
        raise click.ClickException(f"{program.name} does not compile: {result.failure.message}")
    return Use(seconds, sum(after[:4]) - sum(before[:4]), result.peak_bytes)


def bench_run(model: str, target: str, count: int, release: str | None) -> tuple[Measured, ...]:
    """The first run in an empty cache, and the second of the unchanged case."""
    first, again = f"run {model} -t {target}, empty cache", "the same again"
    uses: dict[str, list[Use]] = {first: [], again: []}
    common = ["--release", release] if release else []
    for _ in range(count):
        with own_cache():
            for name in uses:
                uses[name].append(spawn(PILOT, "run", model, "-t", target, *common))
    return measured(uses, {again: Target("ratio", 0.1)}, against=first)


def bench_plain_script(count: int) -> tuple[Measured, ...]:
    """First runs of models, each against a script of a few lines that does the same once.

    What the script has not: float64 references, the phases' dumps, the latency.
    """
    toolchain = find_release(None)
    flags = plan(parse("llvm-cpu"), toolchain).flags
    rows: list[Measured] = []
    for name in bench_plain.MODELS:
        with own_cache() as cache:
            file, script = bench_plain.written(cache, name), cache / "plain.py"
            script.write_text(bench_plain.SCRIPT)
            plain: tuple[str | Path, ...] = (
                sys.executable,
                script,
                file,
                toolchain.compiler,
                cache,
                *flags,
            )
            ours, theirs = f"iree-pilot run {name}.py", f"plain script, {name}"
            actions = {
                theirs: functools.partial(spawn, *plain),
                ours: functools.partial(spawn, PILOT, "run", "--fresh", file, "-t", "llvm-cpu"),
            }
            rows += measured(rounds(count, actions), {}, against=theirs)
    shares = [row.cpu_ratio.median for row in rows if row.cpu_ratio is not None]
    middle = statistics.median(shares)
    click.echo(f"CPU ratio, median of {len(shares)} models: {middle:.2f}", err=True)
    return tuple(rows)


def bench_start(count: int) -> tuple[Measured, ...]:
    """The commands that a person expects to answer at once."""
    quick = {f"iree-pilot {word}": word for word in ("--help", "targets")}
    actions: dict[str, Callable[[], Use]] = {
        "python -c pass": lambda: spawn(sys.executable, "-c", "pass")
    }
    actions |= {name: functools.partial(spawn, PILOT, word) for name, word in quick.items()}
    targets = {name: Target("seconds", 0.25) for name in quick}
    return measured(rounds(count, actions), targets, against="python -c pass")


def bench_memory(layers: int, release: str | None) -> tuple[Measured, ...]:
    """Tracing and compiling a Llama 3 8B with FP8 linears at full size, without weights."""
    model = ["llama-fp8:8b", "--set", f"layers={layers}"]
    common = ["--json", *(["--release", release] if release else [])]
    with own_cache() as cache:
        use = spawn(PILOT, "trace", *model, "-o", cache / "traced", *common)
        name = f"trace llama-fp8:8b, {layers} layers"
        rows = [*measured({name: [use]}, {name: Target("peak_bytes", 1.5e9)})]
        for target in ("llvm-cpu", "hip:gfx942"):
            document = cache / "compiled.json"
            use = spawn(PILOT, "compile", *model, "-t", target, *common, stdout=document)
            (case,) = msgspec.json.decode(document.read_bytes())["cases"]
            own = Use(case["compile_seconds"], use.cpu_seconds, case["peak_bytes"])
            name = f"compile for {target}"
            rows += measured({name: [own]}, {name: Target("peak_bytes", 1e9)})
    return tuple(rows)


def tell(report: Report) -> None:
    """The report for people."""
    console = out.console()
    tell_machine(report.machine)
    for bench, rows in report.measured.items():
        count = len(rows[0].seconds.values)
        console.print(f"\n[bold]{bench}[/bold], {count} round{'' if count == 1 else 's'}: medians")
        columns = ("wall", "CPU", "ratio", "CPU ratio", "peak memory", "target")
        table = out.table("", *columns, right=columns[:-1])
        for row in rows:
            table.add_row(
                row.what,
                span(row.seconds, out.seconds),
                out.seconds(row.cpu_seconds.median),
                span(row.ratio, "{:.3f}".format) if row.ratio else "",
                f"{row.cpu_ratio.median:.3f}" if row.cpu_ratio else "",
                out.size(row.peak_bytes.most),
                _verdict(row),
            )
        console.print(table)


def _verdict(row: Measured) -> str:
    if row.target is None:
        return ""
    forms: dict[str, Callable[[float], str]] = {
        "seconds": out.seconds,
        "ratio": "{:g}".format,
        "peak_bytes": out.size,
    }
    limit = (
        f"{row.target.figure.split('_')[0]} at most {forms[row.target.figure](row.target.at_most)}"
    )
    return f"[green]{limit}: met[/green]" if row.met else f"[red]{limit}: MISSED[/red]"


def report(as_json: bool, release: str | None, benches: Mapping[str, Any]) -> None:
    load = os.getloadavg()[0]
    with reporting_errors():
        found = {name: bench() for name, bench in benches.items()}
        made = Report(machine(load, release), found)
    if as_json:
        out.emit(made)
    else:
        tell(made)


target_option = click.option(
    "-t", "--target", default="llvm-cpu", show_default=True, metavar="TARGET"
)


@click.group()
def cli() -> None:
    """Measure what iree-pilot costs and achieves. Best on a machine that does nothing else."""
    # As on Ctrl-C, nothing that was started stays behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


@cli.command("compile")
@click.argument("model", default="llama-fp8:small")
@target_option
@rounds_option(5)
@shared
def compile_command(
    model: str, target: str, pairs: int, as_json: bool, release: str | None
) -> None:
    """Compile with all phases dumped and counted, against the bare iree-compile."""
    title = f"compile {model} for {target}"
    report(as_json, release, {title: lambda: bench_compile(model, target, pairs, release)})


@cli.command("plain")
@rounds_option(3)
@shared
def plain_command(pairs: int, as_json: bool, release: str | None) -> None:
    """Ten models end to end, against a plain script: export, iree-compile, runtime, allclose."""
    report(as_json, release, {"plain": lambda: bench_plain_script(pairs)})


@cli.command("run")
@click.argument("model", default="llama-fp8")
@target_option
@rounds_option(3)
@shared
def run_command(model: str, target: str, pairs: int, as_json: bool, release: str | None) -> None:
    """The first run in an empty cache, against the second of the unchanged case."""
    report(as_json, release, {"run": lambda: bench_run(model, target, pairs, release)})


@cli.command("start")
@rounds_option(15)
@shared
def start_command(pairs: int, as_json: bool, release: str | None) -> None:
    """Measures the time of --help and targets, beside that of Python doing nothing."""
    report(as_json, release, {"start": lambda: bench_start(pairs)})


@cli.command("memory")
@click.option("--layers", type=click.IntRange(min=1), default=32, show_default=True)
@shared
def memory_command(layers: int, as_json: bool, release: str | None) -> None:
    """Peak memory of tracing and compiling Llama 3 8B at full size, without weights."""
    report(as_json, release, {"memory": lambda: bench_memory(layers, release)})


@cli.command("all")
@shared
def all_command(as_json: bool, release: str | None) -> None:
    """Start, compile, run and memory, at their defaults: what using it costs."""
    benches = {
        "start": lambda: bench_start(15),
        "compile llama-fp8:small for llvm-cpu": lambda: bench_compile(
            "llama-fp8:small", "llvm-cpu", 5, release
        ),
        "run": lambda: bench_run("llama-fp8", "llvm-cpu", 3, release),
        "memory": lambda: bench_memory(32, release),
    }
    report(as_json, release, benches)


cli.add_command(bench_bisect.command)
cli.add_command(bench_breadth.command)
cli.add_command(bench_delicate.command)
cli.add_command(bench_goldens.command)
cli.add_command(bench_history.command)
cli.add_command(bench_nightly.command)
cli.add_command(bench_right.command)
cli.add_command(bench_verdicts.command)
cli.add_command(bench_wrong.command)
cli.add_command(bench_zoo.command)

if __name__ == "__main__":
    cli()
