"""`scripts/bench right`: whether right programs are accused, how close to their limits they come.

Random programs of the kind that networks are made of (`tests/right`) are traced once, several as
functions of one module, compiled at each optimisation level, run and compared like any other
program. What is wrong then is either the compiler's fault or a false alarm of ours: the programs
hold only operations that the compiler is known to get right, so none may be accused.
"""

from __future__ import annotations

import itertools
import math
import os
import statistics
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import bench_parts
import click
import msgspec
from bench_base import Machine, machine, own_cache, reporting_errors, shared, tell_machine

from iree_pilot.pipeline import case
from iree_pilot.pipeline.case import Settings, Silent
from iree_pilot.pipeline.cli.display import output as out
from iree_pilot.pipeline.frontends.load import Loaded
from iree_pilot.pipeline.numerics import numerics
from iree_pilot.pipeline.numerics.numerics import OutputComparison
from iree_pilot.pipeline.processes import process
from iree_pilot.pipeline.program import program as programs
from iree_pilot.pipeline.program import tensors
from iree_pilot.pipeline.program.program import Function
from iree_pilot.pipeline.store.store import Store
from iree_pilot.pipeline.targets.targets import parse, plan
from iree_pilot.pipeline.toolchain.context import Context
from iree_pilot.pipeline.toolchain.releases import find as find_release
from iree_pilot.pipeline.toolchain.toolchain import Toolchain

KINDS = ("f32", "f16", "bf16", "fp8", "integers")
LEVELS = ("O0", "O1", "O2", "O3")
_TARGET = "llvm-cpu"
_LEVEL_FLAG = "iree-opt-level"
_TESTS = Path(__file__).parent.parent / "tests"
_TRACER = _TESTS / "right" / "trace.py"
_TRACE_SECONDS = 1200.0
#: Programs in one module: one compile does for all, and one crash loses no more.
_TOGETHER = 10

Verdict = Literal["right", "accused", "not compared", "does not compile", "does not run"]
NOT_COMPARED = ("does not compile", "does not run")


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """One program at one level.

    steps: what it does. ratio: of the error to its limit, the worst of all outputs, as a whole or
    of one element; above 1 is an accusation. to_torch: the compiled error over PyTorch's own in
    the same type, of the worst output; None where PyTorch makes none. caught: whether PyTorch's
    result is accused once its largest value is lost. why: what was found wrong.
    """

    kind: str
    number: int
    level: str
    steps: str
    verdict: Verdict
    ratio: float = 0.0
    to_torch: float | None = None
    caught: bool = False
    why: str = ""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """All programs of one kind. comparisons: of one program at one level each. lost: programs that
    do not compile or run. caught: programs of which a lost value is noticed.

    ratio, to_torch: median, 95th percentile and largest.
    """

    kind: str
    programs: int
    comparisons: int
    accused: int
    lost: int
    caught: int
    ratio: tuple[float, float, float]
    to_torch: tuple[float, float, float] | None


class Operations(msgspec.Struct, frozen=True, kw_only=True):
    """The single operations of some programs of one kind, each fed right inputs.

    count: results of operations that were compared. suspected: those that were wrong in one module
    with the others; accused: those of them that are alone as well, by name. lost: programs of which
    nothing could be said, with the reason. ratio, to_torch: as in `Row`.
    """

    kind: str
    programs: int
    count: int
    suspected: int
    accused: tuple[str, ...]
    lost: tuple[str, ...]
    ratio: tuple[float, float, float]
    to_torch: tuple[float, float, float] | None


class Report(msgspec.Struct, frozen=True, kw_only=True):
    machine: Machine
    seed: int
    levels: tuple[str, ...]
    rows: tuple[Row, ...]
    judged: tuple[Judged, ...]
    operations: tuple[Operations, ...] = ()


def rows(judged: Sequence[Judged]) -> tuple[Row, ...]:
    """The table: one row a kind, in their order."""
    found = []
    for kind in dict.fromkeys(j.kind for j in judged):
        own = [j for j in judged if j.kind == kind]
        compared = [j for j in own if j.verdict not in NOT_COMPARED]
        lost = {j.number for j in own} - {j.number for j in compared}
        to_torch = [j.to_torch for j in compared if j.to_torch is not None]
        found.append(
            Row(
                kind=kind,
                programs=len({j.number for j in compared}),
                comparisons=len(compared),
                accused=sum(j.verdict != "right" for j in compared),
                lost=len(lost),
                caught=len({j.number for j in compared if j.caught}),
                ratio=spread([j.ratio for j in compared]),
                to_torch=spread(to_torch) if to_torch else None,
            )
        )
    return tuple(found)


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """(median, 95th percentile, largest); zeros of nothing."""
    if not values:
        return (0.0, 0.0, 0.0)
    ordered = sorted(values)
    return statistics.median(ordered), ordered[math.ceil(0.95 * len(ordered)) - 1], ordered[-1]


def measure(
    kinds: Sequence[str],
    count: int,
    first: int,
    levels: Sequence[str],
    seed: int,
    toolchain: Toolchain,
    directory: Path,
) -> Iterator[Judged]:
    """`count` programs of each kind from number `first` on, each at each level.

    For one that does not compile or run at some level another is taken. `directory` is used for
    what is made.
    """
    missing, after = dict.fromkeys(kinds, count), dict.fromkeys(kinds, first)
    for turn in itertools.count():
        if not any(missing.values()):
            return
        modules: list[tuple[str, Sequence[int]]] = []
        for kind, many in missing.items():
            numbers = range(after[kind], after[kind] + many)
            modules += [(kind, numbers[at : at + _TOGETHER]) for at in range(0, many, _TOGETHER)]
            after[kind] = numbers.stop
        lost = set()
        for traced in trace(modules, seed, directory / f"turn-{turn}"):
            for level in levels:
                for judged in _each(traced, level, seed, toolchain, directory):
                    if judged.verdict in NOT_COMPARED:
                        lost.add((judged.kind, judged.number))
                    yield judged
        missing = {kind: sum(other == kind for other, _ in lost) for kind in kinds}


def measure_operations(
    kinds: Sequence[str], numbers: Sequence[int], seed: int, toolchain: Toolchain, directory: Path
) -> Iterator[Operations]:
    """The operations of these programs, compiled at the default level."""
    planned = plan(parse(_TARGET), toolchain)
    # Each in a module of its own: one that does not compile keeps no other from being compiled.
    modules = [(kind, (number,)) for kind in kinds for number in numbers]
    traced = trace(modules, seed, directory / "operations")
    for kind in kinds:
        found, lost = list[bench_parts.Part](), list[str]()
        for module in (one for one in traced if one.kind == kind):
            (function,) = module.loaded.program.functions
            place = directory / f"parts-{kind}-{function.name}"
            try:
                found += bench_parts.judge(
                    module.loaded, function.name, planned, toolchain, (), place
                )
            except bench_parts.Lost as fault:
                lost.append(f"{function.name}: {fault}")
        own = [p.output for p in found if p.output.reference_error]
        yield Operations(
            kind=kind,
            programs=len(numbers) - len(lost),
            count=len(found),
            suspected=sum(p.suspected for p in found),
            accused=tuple(p.op for p in found if p.accused),
            lost=tuple(lost),
            ratio=spread([_ratio(p.output) for p in found]),
            to_torch=spread([o.rel_l2 / (o.reference_error or 1.0) for o in own]) if own else None,
        )


def _each(
    traced: Traced, level: str, seed: int, toolchain: Toolchain, directory: Path
) -> Iterator[Judged]:
    found = _at(traced, level, toolchain, directory)
    if found is not None:
        yield from found
        return
    # One of them does not compile; the others must not be lost with it.
    alone = [(traced.kind, (number,)) for number in traced.numbers]
    place = directory / f"{traced.kind}-{traced.numbers[0]}-alone"
    for single in trace(alone, seed, place):
        yield from _at(single, level, toolchain, directory) or ()


class _Module(msgspec.Struct, frozen=True):
    """Module in the form that the tracer takes."""

    directory: str
    kind: str
    numbers: tuple[int, ...]


class Traced(msgspec.Struct, frozen=True, kw_only=True):
    """A module of programs. caught: those of which a lost value is noticed; steps: in words."""

    kind: str
    numbers: tuple[int, ...]
    loaded: Loaded
    caught: tuple[int, ...]
    steps: dict[str, str]


def trace(
    wanted: Sequence[tuple[str, Sequence[int]]], seed: int, place: Path, *, catch: bool = True
) -> list[Traced]:
    """The modules (kind, its programs' numbers), from `place` where they were traced already.

    catch: try whether a lost value is noticed.
    """
    modules = [
        _Module(str(place / f"{kind}-{numbers[0]}"), kind, tuple(numbers))
        for kind, numbers in wanted
    ]
    if not place.is_dir():
        place.mkdir()
        order, said = place / "order.json", place / "stderr.txt"
        order.write_bytes(msgspec.json.encode({"seed": seed, "modules": modules}))
        outcome = process.run(
            [sys.executable, _TRACER, order],
            stdout=place / "stdout.txt",
            stderr=said,
            limits=process.Limits(seconds=_TRACE_SECONDS),
            env={**os.environ, "PYTHONPATH": f"{_TESTS.parent}{os.pathsep}{_TESTS}"},
        )
        if not outcome.ok:
            why = "" if outcome.ended_by == "exit" else f": {outcome.ended_by}"
            raise click.ClickException(f"tracing failed{why}\n{said.read_text()[-2000:]}")
    return [_traced(module, catch) for module in modules]


def _traced(module: _Module, catch: bool) -> Traced:
    directory = Path(module.directory)
    program = programs.load(directory)
    loaded = Loaded(program=program, directory=module.directory)
    found = zip(module.numbers, program.functions, strict=True)
    return Traced(
        kind=module.kind,
        numbers=module.numbers,
        loaded=loaded,
        caught=tuple(n for n, function in found if catch and _catches(loaded, function)),
        steps=msgspec.json.decode((directory / "steps.json").read_bytes()),
    )


def _catches(loaded: Loaded, function: Function) -> bool:
    """True if PyTorch's own result, with an output's largest value lost, is found to be wrong."""
    assert function.reference is not None
    directory = Path(loaded.directory)
    first, *others = function.reference.outputs
    values = tensors.load(directory, first)
    values.flat[abs(values.astype(float)).argmax()] = 0
    outputs = (tensors.save(values, directory, "lost.bin"), *others)
    call = loaded.call(function)
    return numerics.compare(outputs, call, outputs_directory=directory).differs


def _at(traced: Traced, level: str, toolchain: Toolchain, directory: Path) -> list[Judged] | None:
    """Verdicts on a module at one level; None if one of several programs does not compile."""
    result = case.run(
        traced.loaded,
        plan(parse(_TARGET), toolchain),
        Context(toolchain=toolchain, store=Store(directory / "store")),
        Settings(flags=(f"--{_LEVEL_FLAG}={level}",), latency_budget=0, confirm=False),
        Silent(),
    )
    if result.output is None:
        if len(traced.numbers) > 1:
            return None
        why = result.failure.signature if result.failure else result.why
        return [_judged(traced, traced.numbers[0], level, "does not compile", why=why)]
    found = []
    for number, function in zip(traced.numbers, result.functions, strict=True):
        comparison = function.comparison
        if comparison is None:
            why = function.failure.signature if function.failure else result.why
            found.append(_judged(traced, number, level, "does not run", why=why))
            continue
        verdict: Verdict = "right" if comparison.ok else "accused"
        if comparison.verdict == "not-compared":
            verdict = "not compared"
        own = [o.rel_l2 / o.reference_error for o in comparison.outputs if o.reference_error]
        found.append(
            _judged(
                traced,
                number,
                level,
                verdict,
                ratio=max(map(_ratio, comparison.outputs)),
                to_torch=max(own, default=None),
                why=comparison.why,
            )
        )
    return found


def _judged(traced: Traced, number: int, level: str, verdict: Verdict, **more: Any) -> Judged:
    steps = traced.steps[f"p{number}"]
    return Judged(
        kind=traced.kind,
        number=number,
        level=level,
        steps=steps,
        verdict=verdict,
        caught=number in traced.caught,
        **more,
    )


def _ratio(output: OutputComparison) -> float:
    if output.tolerance == 0:  # exact
        return float(not output.ok)
    return max(output.rel_l2 / output.tolerance, output.excess / output.element_tolerance)


def tell(report: Report) -> None:
    """The report for people: the table, and whatever is not right."""
    console = out.console()
    tell_machine(report.machine)
    console.print(f"{_TARGET} at {', '.join(report.levels)}; seed {report.seed}")
    columns = (
        "programs",
        "comparisons",
        "false alarms",
        "not compared",
        "faults seen",
        "error / limit",
    )
    table = out.table("", *columns, "error / PyTorch's own", right=columns)
    for row in report.rows:
        table.add_row(
            row.kind,
            str(row.programs),
            str(row.comparisons),
            str(row.accused),
            str(row.lost),
            f"{row.caught} of {row.programs}",
            _figures(row.ratio),
            _figures(row.to_torch) if row.to_torch else "exact",
        )
    console.print(table)
    if report.operations:
        headings = ("operations", "of programs", "false alarms", "suspected", "error / limit")
        table = out.table("", *headings, "error / PyTorch's own", right=headings)
        for one in report.operations:
            table.add_row(
                one.kind,
                str(one.count),
                str(one.programs),
                str(len(one.accused)),
                str(one.suspected),
                _figures(one.ratio),
                _figures(one.to_torch) if one.to_torch else "exact",
            )
        console.print(table)
        for one in report.operations:
            for name in one.accused:
                console.print(f"{one.kind}: {name} is accused")
            for why in one.lost:
                console.print(f"{one.kind} {why}", soft_wrap=True)
    console.print(
        "ratios: median, 95th percentile, largest; faults: PyTorch's result with its largest "
        "value lost",
        soft_wrap=True,
    )
    for judged in report.judged:
        if judged.verdict != "right":
            name = f"{judged.kind} {judged.number} at {judged.level}"
            console.print(f"{name}: {judged.verdict}: {judged.why}\n  {judged.steps}")


def _figures(values: tuple[float, float, float]) -> str:
    return ", ".join(f"{value:.2g}" for value in values)


@click.command("right")
@click.option("--programs", "count", type=click.IntRange(min=1), default=50, show_default=True)
@click.option("--first", type=click.IntRange(min=0), default=0, help="Number of the first program.")
@click.option("--kind", "kinds", type=click.Choice(KINDS), multiple=True, help="Only these.")
@click.option("--level", "levels", type=click.Choice(LEVELS), multiple=True, help="Only these.")
@click.option(
    "--operations",
    type=click.IntRange(min=0),
    default=10,
    show_default=True,
    help="Of so many programs of each kind the single operations as well.",
)
@click.option("--seed", default=0, show_default=True)
@shared
def command(
    count: int,
    first: int,
    kinds: tuple[str, ...],
    levels: tuple[str, ...],
    operations: int,
    seed: int,
    as_json: bool,
    release: str | None,
) -> None:
    """Random right programs at every optimisation level: none may be accused."""
    load = os.getloadavg()[0]
    with reporting_errors(), own_cache() as directory:
        toolchain = find_release(release)
        if _LEVEL_FLAG not in toolchain.flags:
            raise click.ClickException(f"{toolchain.version} has no --{_LEVEL_FLAG}")
        chosen = (kinds or KINDS, count, first, levels or LEVELS, seed)
        judged = [*measure(*chosen, toolchain, directory)]
        chosen_parts = (kinds or KINDS, range(first, first + operations), seed)
        parts = [*measure_operations(*chosen_parts, toolchain, directory)] if operations else []
        made = Report(
            machine=machine(load, release),
            seed=seed,
            levels=levels or LEVELS,
            rows=rows(judged),
            judged=tuple(judged),
            operations=tuple(parts),
        )
    if as_json:
        out.emit(made)
    else:
        tell(made)
    if any(j.verdict in ("accused", "not compared") for j in judged) or any(
        p.accused for p in parts
    ):
        sys.exit(1)
