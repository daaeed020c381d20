"""Common parts of the benches: the machine, spreads of values, options, a cache."""

from __future__ import annotations

import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from iree_pilot.pipeline.cli.display import output as out
from iree_pilot.pipeline.cli.options import DURATION
from iree_pilot.pipeline.errors import PilotError
from iree_pilot.pipeline.store.store import cache_directory
from iree_pilot.pipeline.targets.devices import LOCAL
from iree_pilot.pipeline.targets.discovery import find
from iree_pilot.pipeline.toolchain.releases import find as find_release

PILOT = str(Path(sys.executable).with_name("iree-pilot"))
T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


class Spread(msgspec.Struct, frozen=True):
    """Several values of one thing."""

    median: float
    least: float
    most: float
    values: tuple[float, ...]

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(statistics.median(values), min(values), max(values), tuple(values))


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """Machine and time of a measurement. load: 1-minute load averages at the start and the end."""

    processor: str
    cores: int
    memory_bytes: int
    system: str
    load: tuple[float, float]
    iree_pilot: str
    python: str
    compiler: str
    revision: str


def machine(load: float, release: str | None) -> Machine:
    toolchain = find_release(release)
    (processor,) = find(LOCAL[0], toolchain).devices
    return Machine(
        processor=processor.name,
        cores=len(os.sched_getaffinity(0)),
        memory_bytes=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        system=f"{platform.system()} {platform.release()}",
        load=(load, os.getloadavg()[0]),
        iree_pilot=version("iree-pilot"),
        python=platform.python_version(),
        compiler=toolchain.version,
        revision=toolchain.revision,
    )


def tell_machine(here: Machine) -> None:
    """The machine for people."""
    out.console().print(
        f"{here.processor}, {here.cores} cores, {out.size(here.memory_bytes)}, {here.system}; "
        f"load average {here.load[0]:.2f} at the begin, {here.load[1]:.2f} at the end\n"
        f"iree-pilot {here.iree_pilot}, IREE {here.compiler} ({here.revision[:12]}), "
        f"Python {here.python}",
        soft_wrap=True,
    )


def span(spread: Spread, form: Callable[[float], str]) -> str:
    if len(spread.values) == 1:
        return form(spread.median)
    return f"{form(spread.median)} ({form(spread.least)} to {form(spread.most)})"


@contextmanager
def own_cache() -> Iterator[Path]:
    """An empty cache for iree-pilot, here and in children, on the disk of the usual one."""
    usual = os.environ.get("IREE_PILOT_CACHE")
    with tempfile.TemporaryDirectory(prefix="bench-", dir=cache_directory()) as directory:
        os.environ["IREE_PILOT_CACHE"] = directory
        try:
            yield Path(directory)
        finally:
            del os.environ["IREE_PILOT_CACHE"]
            if usual is not None:
                os.environ["IREE_PILOT_CACHE"] = usual


@contextmanager
def reporting_errors() -> Iterator[None]:
    """Errors that the user or the machine caused are reported as iree-pilot reports them."""
    try:
        yield
    except PilotError as error:
        click.echo(f"error: {error.message}\n{error.advice}", err=True)
        sys.exit(error.exit_code)


def shared(function: F) -> F:
    for option in (
        click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout."),
        click.option("--release", metavar="VERSION", help="Another compiler release, or a build."),
    ):
        function = option(function)
    return function


def until(found: Iterable[T], limit: float) -> Iterator[T]:
    """Items found within so many seconds; later ones are not waited for."""
    started = time.monotonic()
    for one in found:
        yield one
        if time.monotonic() - started > limit:
            click.echo(f"stopped after {out.seconds(limit)}", err=True)
            return


def limit_option(function: F) -> F:
    return click.option(
        "--limit",
        type=DURATION,
        default="24h",
        show_default=True,
        metavar="TIME",
        help="Begin with no other program after it, and report what there is.",
    )(function)


def rounds_option(default: int) -> Callable[[F], F]:
    return click.option(
        "--pairs",
        type=click.IntRange(min=1),
        default=default,
        show_default=True,
        help="How many rounds are measured.",
    )
