"""The lines of text that a failure is about: where it is located, and the Python that is from."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from iree_pilot.pipeline.program import python_lines

_LOCATION = re.compile(r"(?P<file>.+?):(?P<line>\d+)(?::\d+)?")


class SourceLines(msgspec.Struct, frozen=True, kw_only=True):
    """text: the line at a location. python: `FILE:LINE` of the Python that it comes from, with the
    line there, `python_text`. All empty where it is not known."""

    text: str = ""
    python: str = ""
    python_text: str = ""


def at(location: str | None) -> SourceLines:
    """The lines that a location is about, as its files are now."""
    python = python_lines.of(location)
    return SourceLines(text=quoted(location) or "", python=python, python_text=quoted(python) or "")


def place(location: str | None) -> tuple[str, int]:
    """(the file that a location names, the line in it); ("", 0) for one that names none."""
    match = _LOCATION.fullmatch(location or "")
    return (match["file"], int(match["line"])) if match else ("", 0)


def quoted(location: str | None) -> str | None:
    """The line that a location names, if the file is there and that is a line of text."""
    name, number = place(location)
    if not name or not Path(name).is_file():
        return None
    with Path(name).open(encoding="utf-8", errors="replace") as file:
        line = next((line.strip() for n, line in enumerate(file, 1) if n == number), "")
    return line if line.replace("\t", " ").isprintable() else None
