"""`iree-pilot nightly`: a whole matrix of cases, run, compared with earlier nights, reported."""

from __future__ import annotations

import itertools
import shlex
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from iree_pilot.pipeline.cli.group import Group, examples
from iree_pilot.pipeline.cli.nightly import nightly_moving
from iree_pilot.pipeline.cli.nightly.nightly_history import (
    database_option,
    held,
    history_at,
    place_of,
)
from iree_pilot.pipeline.cli.options import TEXT, Common, Output, Place, common

if TYPE_CHECKING:
    from iree_pilot.pipeline.errors import UsageError
    from iree_pilot.pipeline.nightly.cases.config import Nightly
    from iree_pilot.pipeline.nightly.cases.keys import Keys
    from iree_pilot.pipeline.nightly.history.history import History, NightRun
    from iree_pilot.pipeline.nightly.records import Case
    from iree_pilot.pipeline.nightly.reports.report import NightReport
    from iree_pilot.pipeline.nightly.workers.orders import Preview, Scheduler

#: Largest number that the history can be asked for.
_MOST = 2**63 - 1
#: Cases of a running night that are named.
_MOST_LEFT = 5

_CONFIG = click.option(
    "-c",
    "--config",
    type=Place(dir_okay=False),
    show_default="nightly.toml here, else the zoo's tiny presets",
    help="Configuration: what to run.",
)

_OF_CONFIG = click.option(
    "-c",
    "--config",
    type=Place(dir_okay=False),
    show_default="all nights",
    help="Only nights that had cases of this configuration.",
)


@click.group(
    "nightly",
    cls=Group,
    epilog=examples(
        "iree-pilot nightly run",
        "iree-pilot nightly status",
        "iree-pilot nightly report --format markdown -o report.md",
    ),
)
def command() -> None:
    """Run models x targets x releases, compare with earlier nights, isolate new failures."""


command.add_command(nightly_moving.export)
command.add_command(nightly_moving.merge)


@command.command(
    "run",
    epilog=examples(
        "iree-pilot nightly run",
        "iree-pilot nightly run -c nightly.toml --only 'llama and not hip' --dry-run",
        "iree-pilot nightly run --shard 2/4 --markdown - --junit nightly.xml",
    ),
)
@_CONFIG
@database_option
@click.option(
    "--only", type=TEXT, metavar="EXPR", help="Run only these cases: 'llama and not (hip or slow)'."
)
@click.option(
    "--shard", type=TEXT, metavar="I/N", help="Run part I of N of the matrix, for N machines."
)
@click.option("--dry-run", is_flag=True, help="List what would run, and for how long.")
@click.option(
    "--scheduler", type=TEXT, metavar="ADDRESS", help="Run on a dask cluster (tcp://...)."
)
@click.option("--fresh", is_flag=True, help="Run unchanged cases too.")
@click.option("--wait", is_flag=True, help="Wait for another night on the same history.")
@click.option(
    "--markdown", type=Output(stdout=True), help="Write the report to PATH (- for stdout)."
)
@click.option("--junit", type=Output(), help="Write JUnit XML to PATH.")
@click.option(
    "--artifacts",
    type=Output(file_okay=False),
    show_default="reproducers/ beside the history",
    help="Directory for reproducers.",
)
@common(limits=True, release=True, first="the configuration's")
@click.pass_context
def run(
    ctx: click.Context,
    config: str | None,
    database: str | None,
    only: str | None,
    shard: str | None,
    dry_run: bool,
    scheduler: str | None,
    fresh: bool,
    wait: bool,
    markdown: str | None,
    junit: str | None,
    artifacts: str | None,
    common: Common,
) -> None:
    """Run the matrix, or resume a night that was stopped.

    Exit code 0: nothing new; 1: news (a failure that is new, changed or gone; a case that is
    intermittent (`flaky`), slower or bigger, or is no longer compared).
    """
    import msgspec

    from iree_pilot.pipeline.cli.boundary import Failed, Interrupted
    from iree_pilot.pipeline.cli.display import output as out
    from iree_pilot.pipeline.cli.display.live import Live
    from iree_pilot.pipeline.cli.nightly.nightly_live import NightLive
    from iree_pilot.pipeline.cli.nightly.nightly_tell import tell, tell_plan
    from iree_pilot.pipeline.errors import UsageError
    from iree_pilot.pipeline.nightly.cases import matrix, selection
    from iree_pilot.pipeline.nightly.cases.keys import Keys
    from iree_pilot.pipeline.nightly.judgement import expectations
    from iree_pilot.pipeline.nightly.night import Night, NightOptions
    from iree_pilot.pipeline.store import outputs

    if common.json and markdown == "-":
        raise UsageError(
            "--json and --markdown - cannot both have stdout",
            advice="Write the report to a file: --markdown FILE.",
        )
    console = out.console(stderr=common.json or markdown == "-")
    with Live.of(console, common) as live:
        live.doing("reading the configuration")
        nightly, notes = _read(config), list[str]()
        if common.release:
            matrix.check_release(nightly, common.release)
        cases = _overridden(ctx, common, matrix.expand(nightly, on_progress=notes.append))
        cases = selection.select(cases, only=only, shard=shard)
    expected = expectations.read(_expectations(nightly))
    _check_writable(markdown, junit)
    folder = outputs.directory(Path(artifacts)) if artifacts else None
    chosen = _scheduler(nightly, scheduler)
    with history_at(database, begin=True, replace=not dry_run) as history:
        known = Keys(nightly.directory)
        if dry_run:
            tell_plan(common, _previews(history, cases, known, fresh), _width(nightly))
            return
        with (
            held(history, wait),
            NightLive(console, common) as watcher,
        ):
            options = NightOptions(
                keys=known,
                artifacts=folder or history.path.absolute().parent / "reproducers",
                expectations=expected,
                unused=expectations.unused(expected, nightly, cases),
                fresh=fresh,
                notes=notes,
                accept=_accepting(nightly, database),
            )
            night = Night(nightly, cases, history, chosen, watcher, options)
            try:
                report = night.run()
            except KeyboardInterrupt:
                stopped = night.so_far()
                if stopped is not None and common.verbosity >= 0 and not common.json:
                    done = sum(row.outcome is not None for row in stopped.rows)
                    console.print(
                        f"stopped: {done} of {len(stopped.rows)} done; the same command resumes it"
                    )
                raise Interrupted(msgspec.to_builtins(stopped) or {}) from None
    _publish(report, markdown, junit, quiet=common.verbosity < 0)
    if common.json:
        out.emit({**msgspec.to_builtins(report), "took": watcher.took.document})
    elif markdown != "-":
        watcher.summary()
        tell(console, report, common, nightly.directory)
    if report.news:
        raise Failed(1)


@command.command(
    "status",
    epilog=examples(
        "iree-pilot nightly status", "iree-pilot nightly status -c nightly.toml --limit 3"
    ),
)
@_OF_CONFIG
@database_option
@click.option(
    "--limit",
    type=click.IntRange(1),
    default=10,
    metavar="N",
    help="Number of nights to list.",
)
@common()
def status(config: str | None, database: str | None, limit: int, common: Common) -> None:
    """List the last nights and the state after the latest one."""
    from iree_pilot.pipeline.cli.display import output as out
    from iree_pilot.pipeline.cli.nightly.nightly_tell import tell
    from iree_pilot.pipeline.nightly.reports.report import counted

    runs: list[NightRun] = []
    report: NightReport | None = None
    running = False
    cases = _cases(config)
    if place_of(database).exists():
        with history_at(database) as history:
            runs = _nights(history, cases, min(limit, _MOST))
            running = history.is_held and (cases is None or runs[:1] == history.runs(1))
            report = _report(history, runs[0].id) if runs else None
    if common.json:
        out.emit({"runs": runs, "latest": report, "running": running})
        return
    console = out.console()
    if report is None:
        message = f"{_no_night(config)}: {_run_it(config)}"
        console.print(message, markup=False, soft_wrap=True)
        return
    table = out.table("night", "started", "cases", "verdicts", right=("night", "cases"))
    for one in runs:
        counts = counted(one.verdicts)
        now = running and one is runs[0]
        state = counts or f"{'running' if now else 'stopped'}: {one.done} of {one.cases} done"
        table.add_row(str(one.id), one.begun[:16].replace("T", " "), str(one.cases), state)
    console.print(table)
    if running and report.going_on:
        left = [row.case.name for row in report.rows if row.outcome is None]
        what = f"to come: {', '.join(left[:_MOST_LEFT])}" if left else "its news are looked into"
        more = f" and {len(left) - _MOST_LEFT} more" if len(left) > _MOST_LEFT else ""
        console.print(f"\nit is running now; {what}{more}", markup=False, soft_wrap=True)
        return
    tell(console, report, common)


@command.command(
    "report",
    epilog=examples(
        "iree-pilot nightly report", "iree-pilot nightly report 12 --format markdown -o report.md"
    ),
)
@_OF_CONFIG
@database_option
@click.argument("night", type=click.IntRange(-_MOST, _MOST), required=False)
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "markdown", "junit", "json"]),
    default="text",
    help="Format of the report.",
)
@click.option("-o", "--output", type=Output(dir_okay=False), help="Write the report to FILE.")
@common()
def report(
    config: str | None,
    database: str | None,
    night: int | None,
    form: str,
    output: str | None,
    common: Common,
) -> None:
    """Print the report of one NIGHT again (a number from `nightly status`; default: the latest)."""
    import msgspec

    from iree_pilot.pipeline.cli.display import output as out
    from iree_pilot.pipeline.cli.nightly.nightly_tell import as_text, tell
    from iree_pilot.pipeline.nightly.reports.junit import junit
    from iree_pilot.pipeline.nightly.reports.markdown import markdown

    _check_writable(output)
    cases = _cases(config)
    with history_at(database) as history:
        if config and not (nights := _nights(history, cases, night=night)):
            raise _other_night(config, night)
        found = _report(history, nights[0].id if config else night)
    if common.json or form == "json":
        text = msgspec.json.encode(found).decode()
    elif form == "markdown":
        text = markdown(found)
    elif form == "junit":
        text = junit(found)
    elif output:
        text = as_text(found, common)
    else:
        tell(out.console(), found, common)
        return
    if output:
        out.deliver(output, text, quiet=common.verbosity < 0)
    else:
        click.echo(text)


@command.command(
    "expect",
    epilog=examples(
        "iree-pilot nightly expect",
        "iree-pilot nightly expect --accept --reason 'known' --expires 2030-01-31",
    ),
)
@_CONFIG
@database_option
@click.option("--accept", is_flag=True, help="Accept what the latest night found.")
@click.option("--only", type=TEXT, metavar="EXPR", help="Only these cases.")
@click.option("--reason", help="Why the failures are expected.")
@click.option("--link", help="Where it is tracked.", type=TEXT)
@click.option(
    "--expires",
    type=click.DateTime(["%Y-%m-%d"]),
    metavar="YYYY-MM-DD",
    help="Last day of the expectation.",
)
@common()
def expect(
    config: str | None,
    database: str | None,
    accept: bool,
    only: str | None,
    reason: str | None,
    link: str | None,
    expires: Any,
    common: Common,
) -> None:
    """List the expected failures, or accept those of the latest night.

    With --accept, failures are added to `expectations.toml` beside the configuration, with the
    --reason; those that are gone are removed, which needs none. The file may be edited by hand;
    comments are kept.
    """
    from iree_pilot.pipeline.cli.display import output as out
    from iree_pilot.pipeline.cli.nightly.nightly_tell import tell_expected
    from iree_pilot.pipeline.errors import UsageError
    from iree_pilot.pipeline.nightly.cases import selection
    from iree_pilot.pipeline.nightly.judgement import expectations

    nightly = _read(config)
    path = _expectations(nightly)
    if not accept:
        if reason or link or expires or only:
            raise UsageError(
                "--reason, --link, --expires and --only say what is accepted",
                advice="Add --accept.",
            )
        tell_expected(common, expectations.read(path), path)
        return
    if expires and expires.date() < date.today():
        raise UsageError(
            f"--expires {expires.date()} is past: nothing would be expected",
            advice="Name the last day that the failure is expected.",
        )
    with history_at(database) as history:
        found = _report(history, None)
    rows = found.rows
    if only is not None:
        chosen = {case.name for case in selection.select([r.case for r in rows], only=only)}
        rows = tuple(row for row in rows if row.case.name in chosen)
    judgements = [row.judgement for row in rows if row.judgement]
    added = sum(map(expectations.is_added, judgements))
    if added and not reason:
        raise UsageError(
            f"--accept needs a reason for {out.count(added, 'failure')}, for those who read the "
            "file later",
            advice="Add --reason 'why this is known to fail'.",
        )
    accepted = expectations.accept(
        path,
        judgements,
        expectations.Explanation(reason or "", link, expires.date() if expires else None),
        models={row.case.name: row.outcome.model for row in rows if row.outcome},
        statuses={row.case.name: row.outcome.status for row in rows if row.outcome},
    )
    if common.json:
        out.emit({"path": str(path), "accepted": accepted})
        return
    console = out.console()
    for word in ("added", "changed", "removed"):
        for name in getattr(accepted, word):
            console.print(f"{word:<8} {name}", markup=False, soft_wrap=True)
    console.print(str(path) if accepted else "nothing to accept", markup=False, soft_wrap=True)


def _read(config: str | None) -> Nightly:
    """The configuration named, the one here, or the default one."""
    from iree_pilot.pipeline.nightly.cases import config as configs

    here = Path("nightly.toml")
    if config is None and not here.exists():
        return configs.read(Path(configs.__file__).with_name("default.toml"))
    return configs.read(Path(config) if config else here)


def _expectations(nightly: Nightly) -> Path:
    """Beside the configuration; those of the default one are the user's own."""
    from iree_pilot.pipeline.store.store import data_directory

    name = "expectations.toml"
    if _is_default(nightly):
        return data_directory() / "nightly" / name
    return nightly.path.with_name(name)


def _accepting(nightly: Nightly, database: str | None) -> tuple[str, ...]:
    """The command that accepts what the latest night found, but for the reason; for any directory
    of this machine."""
    named = [] if _is_default(nightly) else ["-c", str(nightly.path)]
    named += ["--database", str(Path(database).absolute())] if database else []
    return ("iree-pilot", "nightly", "expect", "--accept", *named)


def _is_default(nightly: Nightly) -> bool:
    from iree_pilot.pipeline.nightly.cases import config as configs

    return nightly.path == Path(configs.__file__).with_name("default.toml").absolute()


def _previews(
    history: History, cases: Sequence[Case], keys: Keys, fresh: bool
) -> tuple[Preview, ...]:
    from iree_pilot.pipeline.nightly.workers.orders import preview

    found = {} if fresh else {case.name: keys.key(case) for case in cases}
    reused = [name for name, key in found.items() if key and history.reusable(key)]
    return preview(cases, reused, history.usual([case.name for case in cases]))


def _width(nightly: Nightly) -> int:
    import os

    return nightly.config.schedule.jobs or len(os.sched_getaffinity(0))


def _scheduler(nightly: Nightly, address: str | None) -> Scheduler:
    if address:
        from iree_pilot.pipeline.nightly.workers.cluster import Cluster

        return Cluster(address)
    from iree_pilot.pipeline.nightly.workers.pool import Pool

    return Pool(nightly.config.schedule.jobs, nightly.config.schedule.memory_bytes)


def _overridden(ctx: click.Context, common: Common, cases: tuple[Case, ...]) -> tuple[Case, ...]:
    """The cases with the limits and the release of the command line, where it gives some."""
    import msgspec
    from click.core import ParameterSource

    changes: dict[str, Any] = {}
    if ctx.get_parameter_source("time_limit") is ParameterSource.COMMANDLINE:
        changes["time_limit"] = common.time_limit
    if common.memory_limit:
        changes["memory_limit"] = int(common.memory_limit)
    if common.release:
        changes["release"] = common.release
    made = [msgspec.structs.replace(case, **changes) for case in cases]
    return tuple({case.name: case for case in made}.values())


def _cases(config: str | None) -> frozenset[tuple[str, str]] | None:
    """(program, target) of the cases of a configuration; None where none is named."""
    from iree_pilot.pipeline.nightly.cases import matrix

    if config is None:
        return None
    # Which releases can be installed is not asked: nothing is run.
    return frozenset((c.program, c.target) for c in matrix.expand(_read(config), available=list))


def _nights(
    history: History,
    cases: frozenset[tuple[str, str]] | None,
    limit: int = 1,
    night: int | None = None,
) -> list[NightRun]:
    """The last nights, or `night`, of those that had one of these cases; newest first."""
    if cases is None:
        return history.runs(limit)
    runs = (run for run in history.runs(sys.maxsize) if night in (None, run.id))
    found = (
        run
        for run in runs
        if any((case.program, case.target) in cases for case in history.planned(run.id))
    )
    return [*itertools.islice(found, limit)]


def _no_night(config: str | None) -> str:
    return f"there was no night of {config} yet" if config else "there was no night yet"


def _run_it(config: str | None) -> str:
    return shlex.join(["iree-pilot", "nightly", "run", *(("-c", config) if config else ())])


def _other_night(config: str, night: int | None) -> UsageError:
    """The error for a night that had no case of a configuration."""
    from iree_pilot.pipeline.errors import UsageError

    every = "without -c, `nightly status` lists the nights of all configurations"
    if night is None:
        return UsageError(_no_night(config), advice=f"{_run_it(config)}; {every}.")
    return UsageError(
        f"there is no night {night} with a case of {config}",
        advice=f"`nightly status -c {shlex.quote(config)}` lists those that there are; {every}.",
    )


def _report(history: History, night: int | None) -> NightReport:
    from iree_pilot.pipeline.errors import UsageError
    from iree_pilot.pipeline.nightly.reports import report

    try:
        return report.of(history, history.run(night))
    except KeyError:
        raise UsageError(
            _no_night(None) if night is None else f"there is no night {night}",
            advice=_run_it(None) if night is None else "`nightly status` lists them.",
        ) from None


def _check_writable(*files: str | None) -> None:
    from iree_pilot.pipeline.store import outputs

    for file in files:
        if file and file != "-":
            outputs.check(Path(file))


def _publish(report: NightReport, markdown: str | None, junit: str | None, *, quiet: bool) -> None:
    from iree_pilot.pipeline.cli.display import output as out
    from iree_pilot.pipeline.nightly.reports import junit as xml
    from iree_pilot.pipeline.nightly.reports import markdown as text

    if markdown == "-":
        click.echo(text.markdown(report))
    elif markdown:
        out.deliver(markdown, text.markdown(report), quiet=quiet)
    if junit:
        out.deliver(junit, xml.junit(report), quiet=quiet)
