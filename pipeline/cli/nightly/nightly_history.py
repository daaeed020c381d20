"""The history that a nightly command works on, and what a user learns of its state."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from iree_pilot.pipeline.cli.options import Place

if TYPE_CHECKING:
    from iree_pilot.pipeline.nightly.history.history import History

#: First bytes of each SQLite database.
_SQLITE = b"SQLite format 3\0"

database_option = click.option(
    "--database",
    type=Place(dir_okay=False),
    show_default="nightly/history.db in the data directory",
    help="History of the nights.",
)


def history_at(database: str | None, *, begin: bool = False, replace: bool = False) -> History:
    """The history in this file, or in the usual place.

    begin: it is made where there is none. replace: a damaged one is moved aside for a new one.
    Raises UsageError where there is none otherwise, EnvironmentFault for a damaged one.
    """
    from iree_pilot.pipeline.errors import UsageError
    from iree_pilot.pipeline.nightly.history.history import History
    from iree_pilot.pipeline.store import outputs

    path = place_of(database)
    if not begin and not path.exists():
        raise UsageError(
            f"there is no history {path}",
            advice="`iree-pilot nightly run` starts one; --database names another.",
        )
    if database and _holds_something_else(path):
        raise UsageError(
            f"{path} is no history: it is not an SQLite database",
            advice="Name the file of a history, or one that is not there yet.",
        )
    if database:
        outputs.check_parent(path)
    history = History(path, kept=not replace)
    _tell_damage(history)
    return history


def _holds_something_else(path: Path) -> bool:
    """True if it is a file that was never a database, which must not be moved aside."""
    if not path.is_file() or path.stat().st_size == 0:
        return False
    with path.open("rb") as file:
        return file.read(len(_SQLITE)) != _SQLITE


def place_of(database: str | None) -> Path:
    """The file of the history that a user names, or of the usual one."""
    from iree_pilot.pipeline.store.store import data_directory

    return Path(database) if database else data_directory() / "nightly" / "history.db"


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
            "and a new one was started",
            err=True,
        )
