"""`iree-pilot cache`: what the cache holds; make it smaller; check it."""

from __future__ import annotations

import click
import msgspec

from iree_pilot.pipeline.cli.group import Group, examples
from iree_pilot.pipeline.cli.options import DURATION, SIZE, Common, common


@click.group(
    "cache",
    cls=Group,
    epilog=examples("iree-pilot cache info", "iree-pilot cache gc --max-size 20GB"),
)
def command() -> None:
    """Inspect, shrink or verify the cache of programs and modules."""


@command.command("info", epilog=examples("iree-pilot cache info", "iree-pilot cache info --json"))
@common()
def info(common: Common) -> None:
    """Show the contents of the cache by kind."""
    from iree_pilot.pipeline.cli.display import output as out
    from iree_pilot.pipeline.store.store import Store

    store = Store()
    usage = store.info()
    if common.json:
        out.emit({"root": str(store.root), "usage": usage})
        return
    console = out.console()
    console.print(str(store.root), markup=False, soft_wrap=True)
    table = out.table("kind", "entries", "size", right=("entries", "size"))
    for kind in usage:
        table.add_row(kind.kind, str(kind.entries), out.size(kind.bytes))
    table.add_row("all", str(sum(k.entries for k in usage)), out.size(sum(k.bytes for k in usage)))
    console.print(table)


@command.command(
    "gc",
    epilog=examples("iree-pilot cache gc --max-size 20GB", "iree-pilot cache gc --older-than 720h"),
)
@click.option(
    "--max-size",
    type=SIZE,
    metavar="SIZE",
    help="Remove the oldest entries until it has this size.",
)
@click.option(
    "--older-than", type=DURATION, metavar="TIME", help="Remove entries unused for this long."
)
@common()
def gc(max_size: float | None, older_than: float | None, common: Common) -> None:
    """Remove old entries, and leftovers of dead processes."""
    from iree_pilot.pipeline.cli.display import output as out
    from iree_pilot.pipeline.store.store import Store

    if max_size is None and older_than is None:
        raise click.UsageError(
            "nothing to remove is named: give --max-size SIZE or --older-than TIME (720h)"
        )
    removed = Store().gc(
        max_bytes=None if max_size is None else int(max_size), older_than=older_than
    )
    if common.json:
        out.emit(msgspec.to_builtins(removed))
        return
    kept = f"; {removed.in_use} in use were kept" if removed.in_use else ""
    out.console().print(
        f"removed {out.count(removed.entries, 'entry', 'entries')}, {out.size(removed.bytes)}{kept}"
    )


@command.command(
    "verify", epilog=examples("iree-pilot cache verify", "iree-pilot cache verify --json")
)
@common()
def verify(common: Common) -> None:
    """Hash every file; damaged entries are removed, and made again when needed."""
    from iree_pilot.pipeline.cli.display import output as out
    from iree_pilot.pipeline.cli.display.live import Live
    from iree_pilot.pipeline.store.store import Store

    console = out.console(stderr=common.json)
    store = Store()
    count = sum(kind.entries for kind in store.info())
    with Live.of(console, common) as live:
        live.doing(f"reading {out.count(count, 'entry', 'entries')}")
        damaged = store.verify()
    if common.json:
        out.emit({"entries": count, "damaged": damaged})
        return
    for entry in damaged:
        line = f"removed {entry.kind}/{entry.key}: {entry.why}"
        console.print(line, markup=False, soft_wrap=True)
    console.print(f"{out.count(count, 'entry', 'entries')} verified, {len(damaged)} damaged")
