"""`scripts/bench nightly-status`: what a long history costs: its size, and what is asked of it.

The history is generated: nights of cases with results as large as real ones, some failing always or
for a while, run anew or reused from the night before, times with noise.
"""

from __future__ import annotations

import os
import random
import subprocess
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import msgspec
from bench_base import (
    PILOT,
    Machine,
    Spread,
    machine,
    reporting_errors,
    rounds_option,
    shared,
    span,
    tell_machine,
)

from iree_pilot.pipeline.case_result import CaseResult, Step
from iree_pilot.pipeline.cli.display import output as out
from iree_pilot.pipeline.failures.diagnostics import Failure
from iree_pilot.pipeline.nightly.history.history import History
from iree_pilot.pipeline.nightly.judgement.opinion import judge
from iree_pilot.pipeline.nightly.metrics import metrics
from iree_pilot.pipeline.nightly.records import Case, CaseOutcome, Judgement
from iree_pilot.pipeline.store.store import cache_directory
from iree_pilot.pipeline.toolchain.phases import Phase

_PHASES = (
    *("input", "abi", "preprocessing", "global-optimization", "dispatch-creation", "flow"),
    *("stream", "executable-sources", "executable-configurations", "executable-targets", "hal"),
    *("vm", "end"),
)
_DIALECTS = ("arith", "tensor", "linalg", "util", "flow", "stream", "hal", "func")
_FIRST = datetime(2026, 1, 1, 2, 0, tzinfo=UTC)
_MOST_SECONDS = 1.0


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """bytes: of the database. seconds: what generating took. asked: wall time of each question:
    `iree-pilot nightly status`, and a night's own questions to its history.
    """

    machine: Machine
    cases: int
    nights: int
    anew: float
    bytes: int
    seconds: float
    asked: dict[str, Spread]

    @property
    def met(self) -> bool:
        return self.asked["status"].median < _MOST_SECONDS


def generate(history: History, cases: int, nights: int, anew: float, seed: int = 0) -> None:
    """Fills an empty history. anew: the fraction of cases that is run in a night, not reused."""
    chance = random.Random(seed)
    plan = [
        Case(source=f"model{n // 3}:tiny", target=("llvm-cpu", "vulkan", "hip:gfx942")[n % 3])
        for n in range(cases)
    ]
    latest: dict[str, CaseOutcome] = {}
    for number in range(nights):
        run = history.begin(
            plan,
            config="bench",
            title="bench",
            machine="bench",
            revision={"iree-compile": f"3.13.{number}"},
            started=_FIRST + timedelta(days=number),
        )
        for place, case in enumerate(plan):
            earlier = latest.get(case.name)
            if earlier is None or chance.random() < anew:
                latest[case.name] = _outcome(case, place, number, chance)
            else:
                latest[case.name] = msgspec.structs.replace(earlier, reused=True)
        history.record(run.id, *latest.values())
        history.finish(run.id, [_judgement(outcome, run.begun) for outcome in latest.values()])


def _outcome(case: Case, place: int, number: int, chance: random.Random) -> CaseOutcome:
    fails = place % 10 == 0 or (place + number) % 97 < 3
    seconds = (1 + place % 7) * chance.gauss(1, 0.05)
    failure = Failure(
        kind="diagnostic",
        message=f"failed to legalize operation 'vector.op{place % 37}' that was marked illegal",
        signature=f"diagnostic/vector.op{place % 37}/failed-to-legalize/{place % 37:08x}",
        phase="executable-targets",
        location="program.mlir:123:45",
    )
    result = CaseResult(
        target=case.target,
        release="3.13.0",
        device="local-task",
        device_name="a processor of some name",
        arch="host",
        status="failed" if fails else "ok",
        why="does not compile" if fails else "",
        steps=tuple(
            Step(name=name, status="ok", seconds=seconds, cached=name == "trace")
            for name in ("trace", "compile", "load", "run", "compare")
        ),
        phases=tuple(
            Phase(
                name=name,
                seconds=seconds / 13,
                bytes=chance.randrange(10**6),
                ops={dialect: chance.randrange(1, 999) for dialect in _DIALECTS},
            )
            for name in _PHASES
        ),
        failure=failure if fails else None,
        # What cannot be compressed: digests, paths of the store, figures of the comparison.
        command=("iree-compile", f"store/{chance.randbytes(500).hex()}/program.mlir"),
        output=None if fails else f"store/{chance.randbytes(32).hex()}/module.vmfb",
        output_bytes=10_000 + place,
        compile_seconds=seconds,
        peak_bytes=int(2e8 * chance.gauss(1, 0.02)),
    )
    found = metrics(result)
    if not fails:
        found |= {"dispatches": 40.0, "transient_bytes": 4096.0, "latency_seconds": seconds / 1e3}
    return CaseOutcome(
        case=case.name,
        result=result,
        key=chance.randbytes(32).hex(),
        metrics=found,
        machine="bench",
        worker="bench",
        begun=(_FIRST + timedelta(days=number)).isoformat(),
        seconds=seconds,
        peak_bytes=result.peak_bytes,
        attempts=(result.status,),
    )


def _judgement(outcome: CaseOutcome, night: str) -> Judgement:
    if outcome.failure is None:
        return Judgement(case=outcome.case, verdict="pass")
    signature = outcome.failure.signature
    return Judgement(case=outcome.case, verdict="same failure", signature=signature, since=night)


def measure(cases: int, nights: int, anew: float, count: int, release: str | None) -> Report:
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="bench-", dir=cache_directory()) as directory:
        path = Path(directory) / "nightly" / "history.db"
        started = time.perf_counter()
        with History(path) as history:
            generate(history, cases, nights, anew)
        seconds = time.perf_counter() - started
        with History(path) as history:
            latest = history.run()
            found = history.outcomes(latest.id)
            past = history.past(found, before=latest.id)
            asks: dict[str, Callable[[], Any]] = {
                "status": lambda: _status(path),
                "all cases' last 100 nights": lambda: history.past(found, before=latest.id),
                "outcomes of a night": lambda: history.outcomes(latest.id),
                "usual times": lambda: history.usual(found),
                "judging a night": lambda: [
                    judge(outcome, past[name], (), latest.begun) for name, outcome in found.items()
                ],
            }
            asked = {
                name: Spread.of([_seconds(ask) for _ in range(count)]) for name, ask in asks.items()
            }
        size = path.stat().st_size
        return Report(
            machine=machine(load, release),
            cases=cases,
            nights=nights,
            anew=anew,
            bytes=size,
            seconds=seconds,
            asked=asked,
        )


def _seconds(ask: Callable[[], Any]) -> float:
    started = time.perf_counter()
    ask()
    return time.perf_counter() - started


def _status(path: Path) -> None:
    subprocess.run(
        [PILOT, "nightly", "status", "--database", path], check=True, capture_output=True
    )


def tell(report: Report) -> None:
    console = out.console()
    tell_machine(report.machine)
    outcomes = report.cases * report.nights
    console.print(
        f"\n{report.cases} cases x {report.nights} nights, {report.anew:.0%} of them run anew: "
        f"{out.size(report.bytes)}, {report.bytes / outcomes:.0f} bytes an outcome; "
        f"written in {out.seconds(report.seconds)}",
        soft_wrap=True,
    )
    table = out.table("asked", "wall", right=("wall",))
    for name, spread in report.asked.items():
        table.add_row(name, span(spread, out.seconds))
    console.print(table)
    verdict = "[green]met[/green]" if report.met else "[red]MISSED[/red]"
    console.print(f"status below {out.seconds(_MOST_SECONDS)}: {verdict}")


@click.command("nightly-status")
@click.option("--cases", type=click.IntRange(min=1), default=1000, show_default=True)
@click.option("--nights", type=click.IntRange(min=2), default=100, show_default=True)
@click.option(
    "--anew",
    type=click.FloatRange(0, 1),
    default=1.0,
    show_default=True,
    help="The fraction of cases that each night runs, and does not reuse.",
)
@rounds_option(5)
@shared
def command(
    cases: int, nights: int, anew: float, pairs: int, as_json: bool, release: str | None
) -> None:
    """A generated history of many nights: its size, and how long it takes to answer."""
    with reporting_errors():
        report = measure(cases, nights, anew, pairs, release)
    if as_json:
        out.emit(report)
    else:
        tell(report)
