"""Output of `nightly`: the plan of a night, its verdicts, and expected failures."""

from __future__ import annotations

from collections.abc import Sequence
from io import StringIO
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from iree_pilot.pipeline.cli.display import output as out
from iree_pilot.pipeline.cli.display.screen import PIPE_WIDTH, Screen
from iree_pilot.pipeline.cli.options import Common
from iree_pilot.pipeline.nightly.judgement.expectations import Expectation
from iree_pilot.pipeline.nightly.reports.markdown import again
from iree_pilot.pipeline.nightly.reports.report import CaseRow, NightReport, ordered
from iree_pilot.pipeline.nightly.workers.orders import Preview, shared_out
from iree_pilot.pipeline.program.source_lines import SourceLines

#: Verdicts that are no news, and that a reader wants to see nevertheless.
_KNOWN = ("same failure", "fail", "not run")


def tell_plan(common: Common, previews: Sequence[Preview], width: int) -> None:
    """Prints the plan of a night: each case, whether it is unchanged, its usual duration."""
    known = [one.seconds for one in previews if one.seconds is not None]
    unchanged = sum(one.cached for one in previews)
    expected = shared_out(known, width)
    if common.json:
        out.emit({"cases": previews, "unchanged": unchanged, "seconds": expected})
        return
    console = out.console()
    table = out.table("case", "would", "usually takes", right=("usually takes",))
    for one in previews:
        takes = "-" if one.seconds is None or one.cached else out.seconds(one.seconds)
        table.add_row(escape(one.case), "be reused: unchanged" if one.cached else "run", takes)
    console.print(table)
    new = len(previews) - len(known)
    parts = [out.count(len(previews), "case"), f"{unchanged} unchanged"]
    parts += [f"{new} never ran before"] if new else []
    parts += (
        [f"about {out.seconds(expected)}{' for the others' if new else ''}"] if expected else []
    )
    console.print(f"\n{', '.join(parts)}")


def tell_expected(common: Common, expected: Sequence[Expectation], path: Path) -> None:
    """Prints the expected failures and their reasons."""
    if common.json:
        out.emit({"path": str(path), "expectations": expected})
        return
    console = out.console()
    table = out.table("case", "signature", "reason", "until")
    for one in expected:
        cells = (one.case, one.signature, one.reason_and_link, str(one.expires or ""))
        table.add_row(*map(escape, cells))
    nothing = f"nothing is expected to fail: {escape(str(path))}"
    console.print(table if expected else nothing, soft_wrap=True)


def as_text(report: NightReport, common: Common) -> str:
    """The output of `tell` as plain lines."""
    file = StringIO()
    tell(Screen(file=file, width=PIPE_WIDTH, highlight=False), report, common)
    return file.getvalue()


def tell(
    console: Console, report: NightReport, common: Common, directory: Path | None = None
) -> None:
    """The verdicts: what is new in full, what fails as before in a line each, the rest counted.

    directory: that of the configuration, where it is known.
    """
    if report.going_on:
        console.print(
            f"[bold]{escape(report.title)}[/bold]; `nightly run` resumes it", soft_wrap=True
        )
        return
    quiet, verbose = common.verbosity < 0, common.verbosity > 0
    known = [
        row
        for row in ordered(report.rows)
        if not row.news and ((row.verdict in _KNOWN and not quiet) or verbose)
    ]
    unjudged = {} if quiet or verbose else report.unjudged
    if not quiet and (report.stories or known or unjudged or report.notes):
        console.print()
    for rows in report.stories:
        _tell_news(console, rows, common, directory)
    for row in known:
        name, why = escape(row.case.name), escape(row.why)
        parts = "  ".join(filter(None, [name, f"[dim]{why}[/dim]" if why else ""]))
        console.print(f"[dim]{row.verdict:<15}[/dim] {parts}", soft_wrap=True)
        _tell_found(console, row, row.findings if verbose else row.brief_findings)
    for (verdict, why), count in unjudged.items():
        cases = out.count(count, "case")
        console.print(f"[dim]{verdict:<15}[/dim] {cases}  [dim]{escape(why)}[/dim]", soft_wrap=True)
    for note in report.notes:
        console.print(f"note: {escape(note)}", soft_wrap=True)
    reused = f"; {report.reused} unchanged" if report.reused else ""
    console.print(
        f"\n[bold]{escape(report.title)}[/bold]: {report.counted}{reused}", soft_wrap=True
    )
    if report.run.accept and not quiet:
        does = "remove" if report.removes else "accept"
        out.print_command(console, does, report.accept_words)


def _tell_news(
    console: Console, rows: tuple[CaseRow, ...], common: Common, directory: Path | None
) -> None:
    style = "green" if rows[0].verdict == "fixed" else "bold red"
    for row in rows:
        name, why = escape(row.case.name), escape(row.why)
        console.print(f"[{style}]{row.verdict:<15}[/] {name}  {why}", soft_wrap=True)
    row = rows[0]
    failure = row.outcome.failure if row.outcome else None
    if failure is not None and row.verdict != "fixed":
        # Not from the files as they are now: they may have changed since that night.
        source = (row.outcome and row.outcome.source) or SourceLines()
        pairs = out.failure_lines(failure, verbose=common.verbosity > 0, source=source)
        out.print_pairs(console, pairs, indent="    ")
    _tell_found(console, row, row.findings)
    command = escape(again(row, directory))
    console.print(f"    [dim]$ {command}[/dim]", soft_wrap=True, no_wrap=True)


def _tell_found(console: Console, row: CaseRow, findings: Sequence[tuple[str, str]]) -> None:
    """The reproducer and what else is known of a failure, each on a line of its own."""
    if row.judgement and row.judgement.reproducer:
        console.print(f"    reproducer: {escape(row.judgement.reproducer)}", soft_wrap=True)
    for label, said in findings:
        # A workaround ends in a command to be pasted.
        whole = label == "workaround"
        console.print(f"    {label}: {escape(said)}", soft_wrap=True, no_wrap=whole)
