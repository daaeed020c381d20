"""The history that a nightly command works on, and what a user is told of its state."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from pipeline.nightly.history import History

database_option = click.option(
    "--database",
    type=click.Path(dir_okay=False),
    help="The history (default: nightly/history.db in the data directory).",
)


def history_at(database: str | None) -> History:
    """The history in this file, or in the usual place."""
    from pipeline.nightly.history import History
    from pipeline.store import data_directory

    history = History(Path(database) if database else data_directory() / "nightly" / "history.db")
    _tell_damage(history)
    return history


@contextmanager
def held(history: History, wait: bool) -> Iterator[None]:
    """Holds the history for a night; looking at all of it may show damage that opening did not."""
    before = history.set_aside
    with history.hold(wait=wait, on_wait=lambda: click.echo(_WAITING, err=True)):
        if history.set_aside != before:
            _tell_damage(history)
        yield


_WAITING = "another nightly is writing to this history; waiting for it"


def _tell_damage(history: History) -> None:
    if history.set_aside is not None:
        click.echo(
            f"the history {history.path} is damaged; it was moved to {history.set_aside}, "
            "and a new one is begun",
            err=True,
        )
