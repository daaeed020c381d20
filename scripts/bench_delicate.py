"""False alarms on correct programs that are ill-conditioned, from `tests/right/delicate.py`.

Several programs are traced in one module, as in `bench_right`, each family on each target in turn.
Outputs may be left uncompared. A program reported as wrong is a false alarm, or shows a bug of the
compiler, which has to be confirmed by a second opinion and then excluded.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import bench_right
import click
import msgspec
from bench_base import (
    Machine,
    limit_option,
    machine,
    own_cache,
    reporting_errors,
    shared,
    tell_machine,
    until,
)
from bench_right import Traced

from iree_pilot.pipeline import case
from iree_pilot.pipeline.case import Settings, Silent
from iree_pilot.pipeline.case_result import CaseResult
from iree_pilot.pipeline.cli.display import output as out
from iree_pilot.pipeline.store.store import Store
from iree_pilot.pipeline.targets.targets import Plan, parse, plan
from iree_pilot.pipeline.toolchain.context import Context
from iree_pilot.pipeline.toolchain.releases import find as find_release
from iree_pilot.pipeline.toolchain.toolchain import Toolchain

TARGETS = ("llvm-cpu", "vulkan")
_KIND = "delicate"
#: Programs in one module.
_TOGETHER = 12

Verdict = Literal["right", "not compared", "accused", "does not compile", "does not run"]


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """One program on one target. family: what it is about. outputs: how many were compared."""

    number: int
    family: str
    target: str
    verdict: Verdict
    steps: str = ""
    outputs: int = 0
    why: str = ""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """All programs of a family on one target. not_compared: with an output that was not, why is
    said; lost: programs that do not compile or run."""

    family: str
    target: str
    programs: int
    right: int
    not_compared: int
    accused: int
    lost: int


class Report(msgspec.Struct, frozen=True, kw_only=True):
    machine: Machine
    seed: int
    rows: tuple[Row, ...]
    judged: tuple[Judged, ...]


def rows(judged: Sequence[Judged]) -> tuple[Row, ...]:
    """The table: one row a family and target."""
    found = []
    for family, target in dict.fromkeys((j.family, j.target) for j in judged):
        said = [j.verdict for j in judged if (j.family, j.target) == (family, target)]
        right, not_compared = said.count("right"), said.count("not compared")
        accused = said.count("accused")
        found.append(
            Row(
                family=family,
                target=target,
                programs=len(said),
                right=right,
                not_compared=not_compared,
                accused=accused,
                lost=len(said) - right - not_compared - accused,
            )
        )
    return tuple(found)


def total(found: Sequence[Row], target: str) -> Row:
    """All families of a target."""
    own = [row for row in found if row.target == target]
    counts = ("programs", "right", "not_compared", "accused", "lost")
    sums = {name: sum(getattr(row, name) for row in own) for name in counts}
    return Row(family="all", target=target, **sums)


def measure(
    count: int,
    first: int,
    targets: Sequence[str],
    seed: int,
    toolchain: Toolchain,
    directory: Path,
) -> Iterator[Judged]:
    """`count` programs from number `first` on, the families on each target in turn."""
    sys.path.append(str(Path(__file__).parent.parent / "tests"))
    from right import delicate

    turns = len(delicate.FAMILIES)
    plans = {target: plan(parse(target), toolchain) for target in targets}
    for target, planned in plans.items():
        place = targets.index(target)
        numbers = [n for n in range(first, first + count) if n // turns % len(targets) == place]
        modules = [
            (_KIND, numbers[at : at + _TOGETHER]) for at in range(0, len(numbers), _TOGETHER)
        ]
        for module in modules:
            own = directory / f"{place}-{module[1][0]}"
            (traced,) = bench_right.trace([module], seed, own, catch=False)
            yield from _each(traced, planned, seed, toolchain, directory)


def _each(
    traced: Traced, planned: Plan, seed: int, toolchain: Toolchain, directory: Path
) -> Iterator[Judged]:
    result = _run(traced, planned, toolchain, directory)
    if result.output is not None or len(traced.numbers) == 1:
        yield from _judged(traced, result)
        return
    # One of them does not compile; the others must not be lost with it.
    alone = [(_KIND, (number,)) for number in traced.numbers]
    place = directory / f"{planned.target.backend}-{traced.numbers[0]}-alone"
    for single in bench_right.trace(alone, seed, place, catch=False):
        yield from _judged(single, _run(single, planned, toolchain, directory))


def _run(traced: Traced, planned: Plan, toolchain: Toolchain, directory: Path) -> CaseResult:
    return case.run(
        traced.loaded,
        planned,
        Context(toolchain=toolchain, store=Store(directory / "store")),
        Settings(latency_budget=0, confirm=False),
        Silent(),
    )


def _judged(traced: Traced, result: CaseResult) -> Iterator[Judged]:
    from right import delicate

    for at, number in enumerate(traced.numbers):
        common: dict[str, Any] = {
            "number": number,
            "family": delicate.family(number),
            "target": result.target,
            "steps": traced.steps[f"p{number}"],
        }
        if result.output is None or not result.functions:
            why = result.failure.message if result.failure else result.why
            yield Judged(**common, verdict="does not compile", why=why)
            continue
        function = result.functions[at]
        comparison = function.comparison
        if comparison is None:
            why = function.failure.message if function.failure else result.why
            yield Judged(**common, verdict="does not run", why=why)
            continue
        compared = sum(output.verdict == "ok" for output in comparison.outputs)
        verdict: Verdict = "right" if comparison.ok else "accused"
        if comparison.verdict == "not-compared":
            verdict = "not compared"
        yield Judged(**common, verdict=verdict, outputs=compared, why=comparison.why)


def tell(report: Report) -> None:
    """The report for people: the table, and whatever is not right."""
    console = out.console()
    tell_machine(report.machine)
    console.print(f"seed {report.seed}")
    columns = ("target", "programs", "right", "not compared", "accused", "lost")
    table = out.table("", *columns, right=columns[1:])
    everything = [total(report.rows, target) for target in TARGETS]
    for row in (*report.rows, *(row for row in everything if row.programs)):
        counts = (row.programs, row.right, row.not_compared, row.accused, row.lost)
        table.add_row(row.family, row.target, *map(str, counts))
    console.print(table)
    for judged in report.judged:
        if judged.verdict != "right":
            console.print(describe(judged), soft_wrap=True, markup=False)


def describe(judged: Judged) -> str:
    """One program on one line."""
    name = f"{judged.number} on {judged.target}: {judged.verdict}"
    return f"{name}: {judged.steps}: {judged.why}"


@click.command("delicate")
@click.option("--programs", "count", type=click.IntRange(min=1), default=144, show_default=True)
@click.option("--first", type=click.IntRange(min=0), default=0, help="Number of the first program.")
@click.option("-t", "--target", "targets", type=click.Choice(TARGETS), multiple=True)
@click.option("--seed", default=0, show_default=True)
@limit_option
@shared
def command(
    count: int,
    first: int,
    targets: tuple[str, ...],
    seed: int,
    limit: float,
    as_json: bool,
    release: str | None,
) -> None:
    """Delicate right programs on each target in turn: none may be accused."""
    load = os.getloadavg()[0]
    judged = []
    with reporting_errors(), own_cache() as directory:
        chosen = (count, first, targets or TARGETS, seed)
        for one in until(measure(*chosen, find_release(release), directory), limit):
            judged.append(one)
            if one.verdict == "accused":
                click.echo(describe(one), err=True)
        made = Report(
            machine=machine(load, release), seed=seed, rows=rows(judged), judged=tuple(judged)
        )
    if as_json:
        out.emit(made)
    else:
        tell(made)
    if any(one.verdict == "accused" for one in judged):
        sys.exit(1)
