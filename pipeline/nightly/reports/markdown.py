"""A night as Markdown, for `GITHUB_STEP_SUMMARY` and for a comment."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from iree_pilot.pipeline.nightly.records import INSTALLED
from iree_pilot.pipeline.nightly.reports.report import CaseRow, NightReport, ordered
from iree_pilot.pipeline.plural import count

#: A comment on GitHub may have 65,536 characters.
COMMENT = 60_000
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>|#~])")
_SYMBOLS = {"pass": "ok", "not run": "-"}


def markdown(report: NightReport, *, limit: int = COMMENT) -> str:
    """The night: what is new with all that helps, what else fails, every case in a table.

    limit: characters; what does not fit is left out from the end, and that is said.
    """
    text, left_out = "", 0
    for section in _sections(report):
        if len(text) + len(section) > limit - 200:
            left_out += 1
        else:
            text += section
    if left_out:
        text += f"\n_{left_out} more parts did not fit; `iree-pilot nightly report` has all._\n"
    return text


def _sections(report: NightReport) -> Iterator[str]:
    run = report.run
    yield f"# {_plain(report.title)}\n\n"
    with_versions = ", ".join(f"{name} {version}" for name, version in run.revision.items())
    taken = f"; {report.reused} unchanged, not run again" if report.reused else ""
    yield f"{_plain(with_versions)}; {_plain(run.machine)}{taken}\n\n"
    yield "".join(f"- **{count}** {verdict}\n" for verdict, count in report.counts.items()) + "\n"
    for note in report.notes:
        yield f"> {_plain(note)}\n\n"
    if report.news:
        yield "## News\n\n"
    for rows in report.stories:
        yield _story(rows)
    if report.accept:
        does = "remove what no longer fails from" if report.removes else "accept what was found in"
        yield f"To {does} the expected failures: {_code(report.accept)}\n\n"
    failing = [row for row in ordered(report.rows) if row.verdict in ("same failure", "fail")]
    if failing:
        yield (
            "## Fails as before\n\n| case | verdict | why | signature | reproducer |\n"
            "|---|---|---|---|---|\n"
        )
        for row in failing:
            assert row.judgement is not None
            found = [f"{label}: {said}" for label, said in row.brief_findings]
            why = "; ".join(filter(None, [row.why, *found]))
            cells = [_plain(row.case.name), row.verdict, _plain(why)]
            cells += [_code(row.judgement.signature), _code(row.judgement.reproducer)]
            yield f"| {' | '.join(cells)} |\n"
        yield "\n"
    if report.unjudged:
        yield (
            "## Not compared\n\n"
            + "".join(
                f"- {count} {verdict}: {_plain(why)}\n"
                for (verdict, why), count in report.unjudged.items()
            )
            + "\n"
        )
    yield _matrix(report)


def _story(rows: tuple[CaseRow, ...]) -> str:
    """One piece of news, with what it takes to look into it, and all cases that tell it."""
    row, *others = rows
    assert row.judgement is not None
    more = f" and {len(others)} more" if others else ""
    lines = [f"### {row.verdict}: {_plain(row.case.name)}{more}", "", _plain(row.why), ""]
    failure = row.outcome.failure if row.outcome else None
    facts = {"signature": row.judgement.signature, "since": row.judgement.since}
    if failure is not None and row.verdict != "fixed":
        facts |= {
            "kind": failure.kind,
            "phase": failure.phase or "",
            "operation": failure.operation,
            **row.places,
            "message": failure.message,
        }
    facts["reproducer"] = row.judgement.reproducer
    facts |= dict(row.findings)
    lines += [f"- {name}: {_code(text)}" for name, text in facts.items() if text]
    lines += [f"- again: {_code(again(row))}"]
    lines += [f"- also {_plain(other.case.name)}: {_plain(other.why)}" for other in others]
    return "\n".join([*lines, "", ""])


def again(row: CaseRow, directory: Path | None = None) -> str:
    """The command that runs a case by hand: here, where the configuration's `directory` is known,
    else there."""
    case = row.case
    words = ["iree-pilot", "run", _from_here(case.source, directory)]
    for key in sorted(case.fields):
        words += ["--set", f"{key}={case.fields[key]}"]
    words += ["--dtype", case.dtype] if case.dtype else []
    words += ["--seed", str(case.seed)] if case.seed else []
    words += [f"--no-decompose={op}" for op in case.leave]
    words += ["--seeded"] if case.seeded else []
    words += ["-t", case.target]
    words += ["--recipe", _from_here(case.recipe, directory)] if case.recipe else []
    words += [] if case.release == INSTALLED else ["--release", case.release]
    words += ["--", *case.flags] if case.flags else []
    return shlex.join(words)


def _from_here(file: str, directory: Path | None) -> str:
    """A file of a configuration's directory as it is named from here; what is none as it is."""
    if directory is not None and (directory / file).exists():
        return os.path.relpath(directory / file)
    return file


def _matrix(report: NightReport) -> str:
    """Programs down, targets with releases across."""
    columns = list(dict.fromkeys(_column(row) for row in report.rows))
    cells: dict[str, dict[str, str]] = {}
    for row in report.rows:
        said = _SYMBOLS.get(row.verdict, row.verdict)
        cells.setdefault(row.case.program, {})[_column(row)] = f"**{said}**" if row.news else said
    head = f"| program | {' | '.join(_plain(c) for c in columns)} |\n"
    lines = [
        f"| {_plain(program)} | {' | '.join(said.get(c, '') for c in columns)} |\n"
        for program, said in cells.items()
    ]
    rule = "|---" * (len(columns) + 1) + "|\n"
    body = "".join([head, rule, *lines])
    return (
        f"<details><summary>All {count(len(report.rows), 'case')}</summary>\n\n{body}\n</details>\n"
    )


def _column(row: CaseRow) -> str:
    case = row.case
    release = "" if case.release == INSTALLED else f" {case.release}"
    return f"{case.target}{release}{' ' + shlex.join(case.flags) if case.flags else ''}"


def _plain(text: str) -> str:
    """Text that Markdown takes as it is, on one line."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))


def _code(text: str) -> str:
    """Text as code, on one line, whatever backquotes it holds; a bar would end a table's cell."""
    line = " ".join(text.split()).replace("|", "\\|")
    longest = max((len(run) for run in re.findall("`+", line)), default=0)
    fence = "`" * (longest + 1)
    pad = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{pad}{line}{pad}{fence}" if line else ""
