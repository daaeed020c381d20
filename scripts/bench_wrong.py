"""Detection of wrong numbers, and isolation to the operation that computes them.

Models of 50 to 250 operations (`tests/right/wrong.py`) that the compiler gets right are compiled
with a planted fault (`bench_plant`); others contain operations that the compiler is known to get
wrong. A third of them also draws random numbers. Each is run and compared, then isolated, as in
`iree-pilot run` and `bisect`. A fault without effect on any output (the sign of a value that is
squared next, 5% of a value lost in the rounding of f16) does not count: another program is taken.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import bench_plant
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
from iree_pilot.pipeline.processes.process import Limits
from iree_pilot.pipeline.store.store import Store
from iree_pilot.pipeline.targets.targets import Plan, parse, plan
from iree_pilot.pipeline.toolchain.context import Context
from iree_pilot.pipeline.toolchain.releases import find as find_release
from iree_pilot.pipeline.toolchain.toolchain import Toolchain
from iree_pilot.repro import failed
from iree_pilot.repro.options import Options

_TARGET = "llvm-cpu"
_KIND = "wrong"
#: Programs of which one is made so many at a time: tracing starts torch once for all.
_AT_ONCE = 8
_OPERATIONS = range(50, 251)
_OPERATION = re.compile(r"^ *%[\w#:, %]+ = torch\.(?:aten|prims|operator)\b", re.MULTILINE)
_LIMITS = Limits(seconds=300.0)
#: An output that is not farther from the reference by this factor shows no effect of a fault.
_EFFECT = 2.0

Outcome = Literal["isolated", "elsewhere", "not isolated", "not seen"]


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """One wrong program.

    fault: what is wrong with it; operations: how many it has; noisy: it draws random numbers.
    outcome: `not seen` where the verdict (`said`) is no failure, `elsewhere` where what was
    isolated (`ops`) is more than, or not, the operation. calls and seconds: of the isolation.
    """

    number: int
    kind: Literal["planted", "known"]
    fault: str
    operations: int
    noisy: bool
    said: str
    outcome: Outcome
    ops: tuple[str, ...] = ()
    calls: int = 0
    seconds: float = 0.0
    why: str = ""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """All programs of a kind. calls, seconds: median and most, of those that were isolated."""

    kind: str
    programs: int
    seen: int
    isolated: int
    elsewhere: int
    calls: tuple[float, float]
    seconds: tuple[float, float]


class Report(msgspec.Struct, frozen=True, kw_only=True):
    machine: Machine
    seed: int
    rows: tuple[Row, ...]
    judged: tuple[Judged, ...]


def rows(judged: Sequence[Judged]) -> tuple[Row, ...]:
    """The table: planted and known faults, each without and with noise beside."""
    found = []
    for kind, noisy in dict.fromkeys((j.kind, j.noisy) for j in judged):
        own = [j for j in judged if (j.kind, j.noisy) == (kind, noisy)]
        done = [j for j in own if j.outcome == "isolated"]
        found.append(
            Row(
                kind=f"{kind}, random numbers beside" if noisy else kind,
                programs=len(own),
                seen=sum(j.outcome != "not seen" for j in own),
                isolated=len(done),
                elsewhere=sum(j.outcome == "elsewhere" for j in own),
                calls=_middle([j.calls for j in done]),
                seconds=_middle([j.seconds for j in done]),
            )
        )
    return tuple(found)


def _middle(values: Sequence[float]) -> tuple[float, float]:
    return (statistics.median(values), max(values)) if values else (0.0, 0.0)


def measure(
    count: int, known: int, first: int, seed: int, toolchain: Toolchain, directory: Path
) -> Iterator[Judged]:
    """`count` programs with a fault planted from number `first` on, `known` with known ones."""
    sys.path.append(str(Path(__file__).parent.parent / "tests"))
    from right import wrong

    planned = plan(parse(_TARGET), toolchain)
    bench = _Bench(planned, toolchain, seed, directory)
    yield from itertools.islice(bench.planted(first), count)
    yield from itertools.islice(bench.known(wrong.KNOWN + first), known)


def differs(right: CaseResult, wrong: CaseResult) -> bool:
    """True if a fault shows in a compared output, by more than rounding changes the correct one."""
    pairs = zip(right.functions, wrong.functions, strict=True)
    compared = ((a.comparison, b.comparison) for a, b in pairs)
    return any(
        two.rel_l2 > _EFFECT * one.rel_l2 or two.excess > _EFFECT * one.excess
        for before, after in compared
        if before is not None and after is not None
        for one, two in zip(before.outputs, after.outputs, strict=True)
    )


class _Bench:
    """Judges programs on one target; keeps what it makes in `directory`."""

    def __init__(self, plan: Plan, toolchain: Toolchain, seed: int, directory: Path) -> None:
        self._plan = plan
        self._toolchain = toolchain
        self._seed = seed
        self._directory = directory

    def planted(self, first: int) -> Iterator[Judged]:
        """Right programs compiled by a compiler with a fault, one after the other."""
        for traced in self._programs(first):
            (number,) = traced.numbers
            mlir = traced.loaded.mlir.read_text()
            fault = bench_plant.chosen(mlir, f"{self._seed} {number}")
            if fault is None:
                continue
            own = self._directory / f"compiler-{number}"
            faulty = bench_plant.faulty(self._toolchain, fault, own)
            result = self._run(traced, faulty)
            if result.output is None:
                continue
            judged = self._judged(traced, result, faulty, "planted", str(fault), (fault.name,))
            if judged.outcome != "isolated":
                # Without the fault it may be wrong as well, and with it right.
                right = self._run(traced, self._toolchain)
                if right.failure is not None:
                    continue
                if result.failure is None and not differs(right, result):
                    continue
            yield judged
            shutil.rmtree(own)

    def known(self, first: int) -> Iterator[Judged]:
        """Programs with what the compiler gets wrong."""
        from right import wrong

        for traced in self._programs(first):
            (number,) = traced.numbers
            result = self._run(traced, self._toolchain)
            if result.output is None:
                continue
            expected = wrong.expected(number)
            yield self._judged(traced, result, self._toolchain, "known", expected[0], expected)

    def _programs(self, first: int) -> Iterator[Traced]:
        """Programs of the size that is wanted, each a module."""
        for start in itertools.count(first, _AT_ONCE):
            modules = [(_KIND, (number,)) for number in range(start, start + _AT_ONCE)]
            place = self._directory / f"traced-{start}"
            for traced in bench_right.trace(modules, self._seed, place, catch=False):
                if operations(traced.loaded.mlir.read_text()) in _OPERATIONS:
                    yield traced

    def _run(self, traced: Traced, toolchain: Toolchain) -> CaseResult:
        return case.run(
            traced.loaded,
            self._plan,
            Context(toolchain=toolchain, limits=_LIMITS, store=Store(self._directory / "store")),
            Settings(latency_budget=0, confirm=False),
            Silent(),
        )

    def _judged(
        self,
        traced: Traced,
        result: CaseResult,
        toolchain: Toolchain,
        kind: Literal["planted", "known"],
        fault: str,
        expected: Sequence[str],
    ) -> Judged:
        common: dict[str, Any] = {
            "number": traced.numbers[0],
            "kind": kind,
            "fault": fault,
            "operations": operations(traced.loaded.mlir.read_text()),
            "noisy": _noisy(traced),
            "said": result.status,
        }
        if result.status != "failed":
            return Judged(**common, outcome="not seen", why=result.why)
        started = time.monotonic()
        context = Context(toolchain=toolchain, limits=_LIMITS)
        options = Options(place=self._directory / f"reproducer-{traced.numbers[0]}")
        bisection = failed.isolate(traced.loaded, result, self._plan, context, options)
        common |= {"calls": bisection.oracle_calls, "seconds": time.monotonic() - started}
        found = next((one for one in bisection.failures if one.reproducer is not None), None)
        if found is None or found.reproducer is None:
            return Judged(**common, outcome="not isolated", why=bisection.why)
        ops = found.reproducer.op_names
        alone = kind == "known" or len(ops) == 1
        # An overload is the operation too: floor_divide.Scalar.
        hit = alone and any(op == n or op.startswith(f"{n}.") for op in ops for n in expected)
        return Judged(**common, outcome="isolated" if hit else "elsewhere", ops=ops)


def operations(mlir: str) -> int:
    """Number of operations of a program in the torch dialect, without constants and lists."""
    return len(_OPERATION.findall(mlir))


def _noisy(traced: Traced) -> bool:
    return "torch.aten.rand" in traced.loaded.mlir.read_text()


def tell(report: Report) -> None:
    """The report for people: the table, and whatever is not isolated to its operation."""
    console = out.console()
    tell_machine(report.machine)
    console.print(f"{_TARGET}; seed {report.seed}")
    columns = ("programs", "seen", "isolated", "elsewhere", "calls", "seconds")
    table = out.table("", *columns, right=columns)
    for row in report.rows:
        counts = (row.programs, row.seen, row.isolated, row.elsewhere)
        figures = [", ".join(f"{v:.3g}" for v in pair) for pair in (row.calls, row.seconds)]
        table.add_row(row.kind, *map(str, counts), *figures)
    console.print(table)
    console.print("calls, seconds: median, most")
    for judged in report.judged:
        if judged.outcome != "isolated":
            console.print(describe(judged), soft_wrap=True, markup=False)


def describe(judged: Judged) -> str:
    """One program on one line."""
    noisy = ", random numbers beside" if judged.noisy else ""
    name = f"{judged.number} ({judged.operations} operations{noisy}), {judged.fault}"
    rest = f"{judged.why} {', '.join(judged.ops)}".strip()
    took = f"{judged.calls} calls, {judged.seconds:.0f} s"
    return f"{judged.outcome}: {name}: {judged.said}; {took}: {rest}"


@click.command("wrong")
@click.option("--programs", "count", type=click.IntRange(min=0), default=12, show_default=True)
@click.option("--known", type=click.IntRange(min=0), default=8, show_default=True)
@click.option("--first", type=click.IntRange(min=0), default=0, help="Number of the first program.")
@click.option("--seed", default=0, show_default=True)
@limit_option
@shared
def command(
    count: int,
    known: int,
    first: int,
    seed: int,
    limit: float,
    as_json: bool,
    release: str | None,
) -> None:
    """Faults planted, and known ones, in whole models: each is seen, and isolated."""
    load = os.getloadavg()[0]
    judged = []
    with reporting_errors(), own_cache() as directory:
        os.environ["IREE_PILOT_DATA"] = str(directory / "data")
        toolchain = find_release(release)
        found = measure(count, known, first, seed, toolchain, directory)
        for one in until(found, limit):
            judged.append(one)
            click.echo(describe(one), err=True)
        made = Report(
            machine=machine(load, release), seed=seed, rows=rows(judged), judged=tuple(judged)
        )
    if as_json:
        out.emit(made)
    else:
        tell(made)
    if any(one.outcome != "isolated" for one in judged):
        sys.exit(1)
