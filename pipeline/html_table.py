"""Records as tables of HTML, for notebooks."""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator

from iree_pilot.pipeline.failures.diagnostics import Failure
from iree_pilot.pipeline.program import source_lines


def table(rows: Iterable[tuple[str, str | None]]) -> str:
    """HTML of (name, value) rows, escaped; without those that have no value."""
    cells = "".join(
        f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>"
        for name, value in rows
        if value
    )
    return f"<table>{cells}</table>"


def of_failure(failure: Failure) -> Iterator[tuple[str, str | None]]:
    """Rows of where a failure is, with the lines of MLIR and of Python there, and of its message,
    by the names that the command line has for them."""
    source = source_lines.at(failure.location)
    yield "phase", failure.phase
    yield "operation", failure.op
    yield "at", failure.location
    yield "", source.text
    yield "python", source.python
    yield "", source.python_text
    yield "message", failure.message
