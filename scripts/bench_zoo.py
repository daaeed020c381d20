"""`scripts/bench zoo`: what tracing and compiling each preset of the zoo takes, in time and memory.

Each preset is traced once into an empty cache and compiled once for each target. What does not
trace or compile stays in the table with the signature of its failure.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import msgspec
from bench_base import PILOT, Machine, machine, own_cache, reporting_errors, shared, tell_machine

from iree_pilot.models.spec import ModelSpec, Preset, registry
from iree_pilot.pipeline.cli.display import output as out
from iree_pilot.pipeline.processes import process
from iree_pilot.pipeline.targets.targets import parse_list

TARGETS = "llvm-cpu,vulkan,hip:gfx942"


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """Cost of one step, or the signature of its failure.

    seconds: wall time; of a trace that of the whole command. peak_bytes: resident memory of the
    largest process.
    """

    seconds: float
    peak_bytes: int
    failure: str | None = None


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One preset. weights: whether its parameters have values. compiles: by target; empty where it
    does not trace."""

    source: str
    parameters: int
    weights: bool
    trace: Step
    compiles: dict[str, Step] = {}


class Report(msgspec.Struct, frozen=True):
    machine: Machine
    rows: tuple[Row, ...]


def measure(spec: ModelSpec, preset: Preset, targets: str, release: str | None) -> Row:
    """Traces and compiles one preset. Raises ClickException where a command itself breaks down."""
    source = f"{spec.name}:{preset.name}"
    common = ["--json", *(["--release", release] if release else [])]
    with own_cache() as cache:
        traced, document = _asked("trace", source, "-o", cache / "traced", *common)
        trace = Step(
            seconds=traced.seconds,
            peak_bytes=traced.peak_bytes,
            failure=_signature(document["failure"]) if traced.exit_code else None,
        )
        compiles = {}
        if trace.failure is None:
            _, document = _asked("compile", source, "-t", targets, *common)
            compiles = {
                case["target"]: Step(
                    seconds=case["compile_seconds"],
                    peak_bytes=case["peak_bytes"],
                    failure=_signature(case["failure"]),
                )
                for case in document["cases"]
            }
    return Row(
        source=source,
        parameters=preset.parameters,
        weights=preset.weights,
        trace=trace,
        compiles=compiles,
    )


def _asked(*words: str | Path) -> tuple[process.Outcome, dict[str, Any]]:
    """Outcome and printed document of a command of iree-pilot, which exits with 0 or 1."""
    with tempfile.TemporaryDirectory() as directory:
        stdout, stderr = Path(directory) / "stdout", Path(directory) / "stderr"
        outcome = process.run([PILOT, *words], stdout=stdout, stderr=stderr)
        if outcome.exit_code not in (0, 1):
            tail = stderr.read_text(errors="replace")[-2000:]
            raise click.ClickException(f"iree-pilot {words[0]} {words[1]}: {tail or outcome}")
        return outcome, msgspec.json.decode(stdout.read_bytes())


def _signature(failure: dict[str, Any] | None) -> str | None:
    return None if failure is None else str(failure["signature"])


def chosen(names: Sequence[str]) -> list[tuple[ModelSpec, Preset]]:
    """The presets meant by NAME or NAME:PRESET, all by none. Raises UsageError, for one unknown."""
    zoo = registry()
    found = []
    for name in names or zoo:
        model, _, preset = name.partition(":")
        if model not in zoo:
            raise click.UsageError(f"the zoo has no model {model}; there are {', '.join(zoo)}")
        spec = zoo[model]
        found += [(spec, p) for p in ((spec.preset(preset),) if preset else spec.presets)]
    return found


def tell(row: Row) -> None:
    """One preset for people."""
    console = out.console()
    size = "" if row.weights else ", without weights"
    console.print(f"[bold]{row.source}[/bold], {row.parameters:,} parameters{size}")
    for what, step in {"trace": row.trace, **row.compiles}.items():
        failure = f"  [red]{step.failure}[/red]" if step.failure else ""
        took = f"{out.seconds(step.seconds):>9}  {out.size(step.peak_bytes):>9}"
        console.print(f"  {what:<14} {took}{failure}", soft_wrap=True)


@click.command("zoo")
@click.argument("names", metavar="[NAME[:PRESET]]...", nargs=-1)
@click.option(
    "-t",
    "--target",
    "targets",
    default=TARGETS,
    show_default=True,
    metavar="TARGET[,TARGET...]",
)
@shared
def command(names: tuple[str, ...], targets: str, as_json: bool, release: str | None) -> None:
    """Time and peak memory of tracing and compiling presets of the zoo, all by default."""
    load = os.getloadavg()[0]
    rows = []
    with reporting_errors():
        parse_list(targets)
        for spec, preset in chosen(names):
            rows.append(measure(spec, preset, targets, release))
            if not as_json:
                tell(rows[-1])
        report = Report(machine(load, release), tuple(rows))
    if as_json:
        out.emit(report)
    else:
        tell_machine(report.machine)
