"""`scripts/bench nightly`: what a night costs, cold and with nothing changed.

The default matrix, or one that is named, is run twice with empty caches and an empty history of its
own. Cores are looked at all the while: a core is busy in a slice of time if it idled for less than
half of it. What else runs on the machine counts as busy too, so it should be idle.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import msgspec
import psutil
from bench_base import PILOT, Machine, machine, own_cache, reporting_errors, shared, tell_machine

from iree_pilot.pipeline.cli.display import output as out
from iree_pilot.pipeline.errors import EnvironmentFault
from iree_pilot.pipeline.processes import process
from iree_pilot.pipeline.store.store import cache_directory

_SLICE_SECONDS = 0.25
_MOST_SHARE = 0.05
_LEAST_BUSY = 0.85


class Busy(msgspec.Struct, frozen=True, kw_only=True):
    """all_cores: share of the time in which every core was busy. mean: of all cores' time."""

    all_cores: float
    mean: float


class Night(msgspec.Struct, frozen=True, kw_only=True):
    """One run of the matrix; seconds of wall time."""

    seconds: float
    exit_code: int
    cases: int
    reused: int
    verdicts: dict[str, int]
    busy: Busy


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The first night and the second. share: of the first one's time that the second takes."""

    machine: Machine
    cold: Night
    unchanged: Night
    share: float
    met: bool


class _Watch:
    """Samples the cores until it is stopped."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._slices: list[list[float]] = []
        self._thread = threading.Thread(target=self._look, daemon=True)

    @contextmanager
    def looking(self) -> Iterator[None]:
        self._thread.start()
        try:
            yield
        finally:
            self._stop.set()
            self._thread.join()

    @property
    def busy(self) -> Busy:
        slices = self._slices or [[0.0]]
        every = sum(min(cores) > 0.5 for cores in slices) / len(slices)
        mean = sum(sum(cores) / len(cores) for cores in slices) / len(slices)
        return Busy(all_cores=every, mean=mean)

    def _look(self) -> None:
        mine = sorted(os.sched_getaffinity(0))
        before = psutil.cpu_times(percpu=True)
        while not self._stop.wait(_SLICE_SECONDS):
            now = psutil.cpu_times(percpu=True)
            self._slices.append([_worked(before[core], now[core]) for core in mine])
            before = now


def _worked(before: object, now: object) -> float:
    """The share of the time between two looks in which a core did not idle."""
    spent = dict(zip(now._fields, (a - b for a, b in zip(now, before, strict=True)), strict=True))  # type: ignore[attr-defined, call-overload]
    every = sum(spent[name] for name in spent if name not in ("guest", "guest_nice"))
    idle = spent["idle"] + spent.get("iowait", 0.0)
    return 1 - idle / every if every > 0 else 0.0


def measure(config: str | None, only: str | None, release: str | None) -> Report:
    """Runs the matrix twice. Raises EnvironmentFault where a night does not come to its end."""
    load = os.getloadavg()[0]
    with own_cache(), tempfile.TemporaryDirectory(prefix="bench-", dir=cache_directory()) as place:
        words = ["--database", f"{place}/history.db", "--artifacts", f"{place}/reproducers"]
        words += ["--config", config] if config else []
        words += ["--only", only] if only else []
        words += ["--release", release] if release else []
        cold, unchanged = (_night(words, Path(place)) for _ in range(2))
    share = unchanged.seconds / cold.seconds
    return Report(
        machine=machine(load, release),
        cold=cold,
        unchanged=unchanged,
        share=share,
        met=share <= _MOST_SHARE and cold.busy.all_cores >= _LEAST_BUSY,
    )


def _night(words: list[str], place: Path) -> Night:
    watch, started = _Watch(), time.monotonic()
    with watch.looking():
        ended = process.run(
            [PILOT, "nightly", "run", "--json", *words],
            stdout=place / "stdout.json",
            stderr=place / "stderr.txt",
            limits=process.Limits(output_bytes=1 << 30),
        )
    seconds = time.monotonic() - started
    if ended.exit_code not in (0, 1):
        said = (place / "stderr.txt").read_text(errors="replace").strip()
        raise EnvironmentFault(f"the night ended with {ended.exit_code}: {said}")
    document = msgspec.json.decode((place / "stdout.json").read_bytes())
    return Night(
        seconds=seconds,
        exit_code=ended.exit_code or 0,
        cases=len(document["rows"]),
        reused=sum(row["outcome"]["reused"] for row in document["rows"]),
        verdicts=document["run"]["verdicts"],
        busy=watch.busy,
    )


def tell(report: Report) -> None:
    """The report for people."""
    console = out.console()
    tell_machine(report.machine)
    table = out.table("night", "time", "cases", "unchanged", "all cores busy", "mean", "verdicts")
    for name, night in (("cold", report.cold), ("nothing changed", report.unchanged)):
        verdicts = ", ".join(f"{count} {verdict}" for verdict, count in night.verdicts.items())
        busy = night.busy
        table.add_row(
            name,
            out.seconds(night.seconds),
            str(night.cases),
            str(night.reused),
            f"{busy.all_cores:.0%}",
            f"{busy.mean:.0%}",
            verdicts,
        )
    console.print(table)
    verdict = "[green]met[/green]" if report.met else "[red]MISSED[/red]"
    console.print(
        f"the second night takes {report.share:.1%} of the first (at most {_MOST_SHARE:.0%}); "
        f"all cores busy at least {_LEAST_BUSY:.0%} of the cold one: {verdict}"
    )


@click.command("nightly")
@click.option("-c", "--config", type=click.Path(exists=True, dir_okay=False))
@click.option("--only", metavar="EXPR", help="Only these cases.")
@shared
def command(config: str | None, only: str | None, as_json: bool, release: str | None) -> None:
    """A night with empty caches, then one with nothing changed; the cores meanwhile."""
    with reporting_errors():
        report = measure(config, only, release)
    if as_json:
        out.emit(report)
    else:
        tell(report)
