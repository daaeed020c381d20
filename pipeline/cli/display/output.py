"""Printing: people's lines on a terminal or a pipe, or one JSON document."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from iree_pilot.pipeline.cli.display.screen import Screen, screen
from iree_pilot.pipeline.failure_lines import failure_lines as failure_lines
from iree_pilot.pipeline.plain import plain
from iree_pilot.pipeline.plural import count as count
from iree_pilot.pipeline.store import outputs


def console(*, stderr: bool = False) -> Screen:
    """A console that has colour on a terminal and plain lines in a pipe."""
    return screen(stderr=stderr)


def emit(document: Any) -> None:
    """The one JSON document of `--json`."""
    click.echo(msgspec.json.encode(document))


def table(*columns: str, right: tuple[str, ...] = ()) -> Table:
    """A table without lines; the columns named in `right`, numbers, are right-aligned and whole."""
    made = Table(box=None, pad_edge=False, header_style="bold", collapse_padding=True)
    for column in columns:
        number = column in right
        made.add_column(
            column, justify="right" if number else "left", overflow="fold", no_wrap=number
        )
    return made


def size(count: float) -> str:
    """Bytes for people: `512 B`, `48.2 kB`, `1.3 GB`; humanize counts decimals, not digits."""
    for unit in ("B", "kB", "MB", "GB"):
        if round(count) < 1000 or unit == "GB":
            return f"{count:.0f} B" if unit == "B" else f"{_three(count)} {unit}"
        count /= 1000
    raise AssertionError("unreachable")


#: Seconds from which on a duration is printed in minutes.
MINUTES = 120


def seconds(value: float, *, minutes: int = MINUTES) -> str:
    """A duration for people: `0.21 ms`, `45 ms`, `1.24 s`, `3 min 20 s`.

    minutes: seconds from which on it is printed in minutes.
    """
    if round(value * 1e6) < 1000:
        return f"{_three(value * 1e6)} µs"
    if round(value * 1e3) < 1000:
        return f"{_three(value * 1e3)} ms"
    if round(value) < minutes:
        return f"{_three(value)} s"
    whole, rest = divmod(round(value), 60)
    return f"{whole} min {rest} s"


def _three(value: float) -> str:
    """Three digits, more of what has more: never an exponent."""
    return f"{value:.0f}" if value >= 999.5 else f"{value:.3g}"


def command(argv: tuple[str, ...]) -> str:
    """A command as it is typed into a shell."""
    return shlex.join(argv)


def print_command(to: Console, label: str, argv: tuple[str, ...], *, indent: str = "") -> None:
    """`label $ command`: whole, to be pasted."""
    to.print(
        f"{indent}[dim]{label:<9} $ {escape(command(argv))}[/dim]", soft_wrap=True, no_wrap=True
    )


def deliver(path: str | Path, content: Path | bytes | str, *, quiet: bool = False) -> None:
    """Writes a file that the user named and says so; before, that a FIFO has to be read for that.

    Raises as `outputs.write`.
    """
    tell_of_fifo(path, quiet=quiet)
    outputs.write(Path(path), content)
    wrote(path, quiet=quiet)


def tell_of_fifo(path: str | Path, *, quiet: bool = False) -> None:
    """Reports on stderr that what is about to be written has to be read, where it is a FIFO."""
    if not quiet and Path(path).is_fifo():
        click.echo(plain(f"{path} is a FIFO: waiting for somebody to read it"), err=True)


def wrote(path: str | Path, *, quiet: bool = False) -> None:
    """Reports on stderr that a file or directory which the user named was written."""
    if not quiet:
        click.echo(plain(f"wrote {path}"), err=True)


def print_next(to: Console, label: str, argv: tuple[str, ...]) -> None:
    """`label: command`, whole: what to do next, to be pasted."""
    to.print(f"{label}: [bold]{escape(command(argv))}[/bold]", soft_wrap=True, no_wrap=True)


def print_pairs(to: Console, pairs: list[tuple[str, str]], *, indent: str = "  ") -> None:
    """Aligned `label  text` lines; words are not broken, so that they can be copied."""
    width = max((len(label) for label, _ in pairs), default=0)
    for label, text in pairs:
        head, *rest = text.splitlines() or [""]
        to.print(f"{indent}[dim]{label:<{width}}[/dim]  {escape(head)}", soft_wrap=True)
        for line in rest:
            to.print(f"{indent}{'':<{width}}  {escape(line)}", soft_wrap=True)
