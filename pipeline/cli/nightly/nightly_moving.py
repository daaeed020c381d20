"""`iree-pilot nightly export` and `merge`: histories on the way between machines."""

from __future__ import annotations

from pathlib import Path

import click

from iree_pilot.pipeline.cli.group import examples
from iree_pilot.pipeline.cli.nightly.nightly_history import database_option, held, history_at
from iree_pilot.pipeline.cli.options import Common, Output, common


@click.command(
    "export",
    epilog=examples(
        "iree-pilot nightly export nights.db",
        "iree-pilot nightly export --database history.db nights.db",
    ),
)
@database_option
@click.argument("file", type=Output(dir_okay=False))
@common()
def export(database: str | None, file: str, common: Common) -> None:
    """Write the whole history to FILE, as a backup or to merge it elsewhere."""
    from iree_pilot.pipeline.cli.display import output as out
    from iree_pilot.pipeline.nightly.history import moving

    out.tell_of_fifo(file, quiet=common.verbosity < 0)
    with history_at(database) as history:
        nights = moving.export(history, Path(file))
    size = Path(file).stat().st_size if Path(file).is_file() else None
    if common.json:
        out.emit({"path": str(Path(file).absolute()), "nights": nights, "bytes": size})
        return
    large = "" if size is None else f", {out.size(size)}"
    click.echo(f"{file}: {out.count(nights, 'night')}{large}")


@click.command(
    "merge",
    epilog=examples(
        "iree-pilot nightly merge nights.db",
        "iree-pilot nightly merge --database history.db a.db b.db",
    ),
)
@database_option
@click.argument("files", type=click.Path(), nargs=-1, required=True)
@common()
def merge(database: str | None, files: tuple[str, ...], common: Common) -> None:
    """Add the nights of other histories; nights that are known already stay unchanged."""
    import msgspec

    from iree_pilot.pipeline.cli.boundary import Interrupted
    from iree_pilot.pipeline.cli.display import output as out
    from iree_pilot.pipeline.nightly.history import moving

    with history_at(database, begin=True, replace=True) as history, held(history, wait=True):
        merged: dict[str, moving.Merged] = {}
        try:
            for file in files:
                merged[file] = moving.merge(history, Path(file))
        except KeyboardInterrupt:
            raise Interrupted(msgspec.to_builtins(merged)) from None
    if common.json:
        out.emit(merged)
        return
    for file, one in merged.items():
        left = f", {one.unfinished} left out: not finished" if one.unfinished else ""
        click.echo(f"{file}: {one.added} added, {one.known} known already{left}")
