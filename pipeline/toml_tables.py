"""Reads TOML that people write into records; a misfit is reported with its line and nearest key."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import msgspec
from msgspec import inspect

from iree_pilot.pipeline.errors import UsageError, nearest

T = TypeVar("T")

_HEADER = re.compile(r"\s*(\[\[?)\s*([^\[\]]+?)\s*\]")
_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+|\.\.\.)\]")
_REFUSED = re.compile(r"(?P<what>.*?)(?: - at `(?P<key>key in )?(?P<path>\$[^`]*)`)?", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(.*)`")
_WORDS = {
    "array": "a list",
    "object": "a table",
    "str": "a string",
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
}
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`")


#: Where people read what a file may say.
_DOCS = "docs/nightly.md"


def read(
    path: Path,
    form: type[T],
    docs: str = _DOCS,
    advice: str = "Name a file that says what to run.",
) -> T:
    """The file's tables as a `form` (a msgspec struct that forbids unknown fields).

    docs: the page that says what such a file may hold. advice: for one that cannot be read.

    Raises UsageError for a file that is not there or no TOML, an unknown key, a missing one, and a
    value of another type: with file, line, and what could have been meant.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as fault:
        why = fault.strerror if isinstance(fault, OSError) else "it is not UTF-8 text"
        raise UsageError(f"cannot read {path}: {why}", advice=advice) from fault
    return parse(path, text, form, docs)


def parse(path: Path, text: str, form: type[T], docs: str = _DOCS) -> T:
    """Same as `read`, for a text that `path` has or is to have."""
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as fault:
        what, _, at = str(fault).partition(" (at line ")
        line = at.split(",")[0] if at else len(text.splitlines())
        raise UsageError(
            f"{path}:{line}: this is no TOML: {what}",
            advice="Fix that line; see https://toml.io for the syntax.",
        ) from fault
    except RecursionError as fault:
        raise UsageError(
            f"{path}: this is no TOML that can be read: it is nested too deeply",
            advice=f"See {docs} for what it can say.",
        ) from fault
    try:
        return msgspec.convert(tables, form)
    except msgspec.ValidationError as fault:
        _refuse(path, text, form, str(fault), docs)


def place(path: Path, *keys: str | int, value: str = "") -> str:
    """`FILE:LINE` of a key (`"include", 1, "models"`), or of a value in what it is set to."""
    try:
        line = line_of(path.read_text(encoding="utf-8"), *keys, value=value)
    except (OSError, UnicodeDecodeError):
        line = 0
    return f"{path}:{line}" if line else str(path)


def line_of(text: str, *keys: str | int, value: str = "") -> int:
    """The line (from 1) where a key is set; of its table, where that is not to be seen; or 0.

    A number among the keys counts the tables of an array. value: a text in what the key is set
    to, which may go over several lines.
    """
    names = [key for key in keys if isinstance(key, str)]
    number = next((key for key in keys if isinstance(key, int)), 0)
    table: list[str] = []
    seen: dict[str, int] = {}
    best, found = 0, 0
    for at, line in enumerate(text.splitlines(), start=1):
        header = _HEADER.match(line)
        if header and not found:
            table = [part.strip(" \"'") for part in header[2].split(".")]
            seen[header[2]] = seen.get(header[2], -1) + (header[1] == "[[")
        here = table == names[: len(table)] and seen.get(".".join(table), -1) in (-1, number)
        if here and header and table:
            best = at
        key = line.split("=")[0].strip().strip("\"'").split(".")
        rest = names[len(table) :]
        if found and value and value in line:
            return at
        if here and not found and not header and rest and key == rest[: len(key)]:
            found = best = at
            if not value or value in line.partition("=")[2]:
                return at
    return best


def _refuse(path: Path, text: str, form: type[Any], message: str, docs: str) -> NoReturn:
    """Raises the UsageError for what msgspec said of the file."""
    refused = _REFUSED.fullmatch(message)
    what, where = (refused["what"], refused["path"] or "$") if refused else (message, "$")
    keys: list[str | int] = [
        name or (0 if number == "..." else int(number)) for name, number in _STEP.findall(where)
    ]
    unknown = _UNKNOWN.fullmatch(what)
    what = _plain(what)
    advice = f"See {docs} for what it can say."
    if unknown:
        keys.append(unknown[1])
        inside = f" of [{keys[0]}]" if len(keys) > 1 else ""
        what = f"there is no key {unknown[1]!r}{inside}"
        advice = nearest(unknown[1], _known(form, keys[:-1]))
    elif (named := what.partition(": ")[0]) in _known(form, keys):
        keys.append(named)  # a record's own check begins with the key
    elif keys:
        what = f"{'.'.join(key for key in keys if isinstance(key, str))}: {what}"
    line = line_of(text, *keys)
    raise UsageError(f"{path}:{line or 1}: {what}", advice=advice)


def _plain(what: str) -> str:
    """msgspec's message about a value, in the terms of TOML."""
    if missing := _MISSING.fullmatch(what):
        return f"the key {missing[1]!r} is missing"
    for word, said in _WORDS.items():
        what = re.sub(rf"`(?:{word})(?: \| null)?`", said, what)
    return what


def _known(form: type[Any], keys: list[str | int]) -> list[str]:
    """The keys of the table that `keys` lead to."""
    kind = inspect.type_info(form)
    for key in keys:
        kind = _bare(kind)
        if isinstance(kind, inspect.StructType) and isinstance(key, str):
            kind = next(f.type for f in kind.fields if f.encode_name == key)
        elif isinstance(kind, inspect.VarTupleType | inspect.ListType):
            kind = kind.item_type
    kind = _bare(kind)
    return [f.encode_name for f in kind.fields] if isinstance(kind, inspect.StructType) else []


def _bare(kind: inspect.Type) -> inspect.Type:
    """A type without `| None`."""
    if isinstance(kind, inspect.UnionType):
        return next(t for t in kind.types if not isinstance(t, inspect.NoneType))
    return kind
