"""Map from lines of a traced program to lines of Python: kept beside the program."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from pathlib import Path

import msgspec

NAME = "python.json"
_ALIAS = re.compile(r"#(loc\d*) = loc\((.*)\)$")
_FRAME = re.compile(r'#(?P<alias>loc\d*)\b|"(?P<file>(?:[^"\\]|\\.)*)":(?P<line>\d+):\d+')
_LOCATION = re.compile(r"(.+\.mlir):(\d+)(?::\d+)?")
#: Start of the resources, which follow the program's lines.
_RESOURCES = "{-#"
_INSTALLED = ("/site-packages/", "/dist-packages/", "/lib/python")


class _PythonLines(msgspec.Struct, frozen=True, kw_only=True):
    """lines: of the program, each with the number of its file in `files` and the line there."""

    files: tuple[str, ...]
    lines: dict[int, tuple[int, int]]


def keep(directory: Path, program: str, located: str) -> None:
    """Keeps beside a program what `located`, the same text with MLIR's locations, says of it.

    Of the frames of a line, the innermost one outside of installed packages. Nothing is kept where
    the texts differ in more than locations.
    """
    found = _read(program, located)
    if found is not None:
        (directory / NAME).write_bytes(msgspec.json.encode(found))


def carry(original: Path, made: Path, located: str) -> None:
    """Keeps beside a program that was made of another one what is known of the other's lines.

    located: the text of `made` with MLIR's locations, which are lines of the original.
    """
    try:
        known = msgspec.json.decode((original.parent / NAME).read_bytes(), type=_PythonLines)
    except (OSError, msgspec.DecodeError):
        return
    found = _read(made.read_text(encoding="utf-8"), located)
    if found is not None:
        lines = {
            number: known.lines[line]
            for number, (_, line) in found.lines.items()
            if line in known.lines
        }
        carried = msgspec.structs.replace(known, lines=lines)
        (made.parent / NAME).write_bytes(msgspec.json.encode(carried))


def _read(program: str, located: str) -> _PythonLines | None:
    """Where the lines of a program come from, as the same text with locations says."""
    matches = (_ALIAS.fullmatch(line) for line in located.splitlines() if line.startswith("#"))
    aliases = {match[1]: match[2] for match in matches if match}
    body = _program("\n".join(line for line in located.splitlines() if not _ALIAS.match(line)))
    plain = _program(program)
    if len(plain) != len(body):
        return None
    files: dict[str, int] = {}
    lines: dict[int, tuple[int, int]] = {}
    for number, (text, line) in enumerate(zip(plain, body, strict=True), 1):
        _, _, place = line.rpartition(" loc(")
        frames = list(_frames(place, aliases)) if "=" in text else []
        if frames:
            file, at = next((f for f in frames if not _is_installed(f[0])), frames[0])
            lines[number] = (files.setdefault(file, len(files)), at)
    return _PythonLines(files=tuple(files), lines=lines)


def of(location: str | None) -> str:
    """`FILE:LINE` of the Python that a line of a program (`FILE.mlir:LINE:COLUMN`) comes from;
    empty where that is not known."""
    match = _LOCATION.fullmatch(location or "")
    if match is None:
        return ""
    try:
        held = (Path(match[1]).parent / NAME).read_bytes()
        found = msgspec.json.decode(held, type=_PythonLines)
        file, line = found.lines[int(match[2])]
        return f"{found.files[file]}:{line}"
    except (OSError, KeyError, IndexError, msgspec.DecodeError):
        return ""


def _program(text: str) -> list[str]:
    """The lines of a program, without its resources and empty lines at the end."""
    lines = list(itertools.takewhile(lambda line: line != _RESOURCES, text.splitlines()))
    while lines and not lines[-1]:
        lines.pop()
    return lines


def _frames(place: str, aliases: dict[str, str]) -> Iterable[tuple[str, int]]:
    """The frames of a location, the innermost first."""
    for match in _FRAME.finditer(place):
        if match["alias"]:
            yield from _frames(aliases.get(match["alias"], ""), aliases)
        else:
            yield match["file"], int(match["line"])


def _is_installed(file: str) -> bool:
    return any(part in file for part in _INSTALLED)
