"""`iree-pilot bisect --against`: a program on two sides, dispatch by dispatch."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.markup import escape

from iree_pilot.pipeline.cli.display import output as out

if TYPE_CHECKING:
    from iree_pilot.pipeline.cli.options import SourceOptions
    from iree_pilot.pipeline.cli.session import Session
    from iree_pilot.pipeline.frontends.load import Loaded
    from iree_pilot.repro.differential.against import Differential
    from iree_pilot.repro.differential.side import Side

_SHOWN = 10
_VERDICTS = {
    "ok": "[green]agrees[/green]",
    "mismatch": "[red]differs[/red]",
    "not-compared": "is not compared",
}


def bisect(
    session: Session,
    loaded: Loaded,
    compared: tuple[Side, Side],
    chosen: SourceOptions,
    folder: tuple[Path, bool],
    live: Any,
) -> Differential:
    """Finds the first dispatch that differs between two `sides`.

    folder: where it goes, and whether that is only the usual place (`places.settled`).
    """
    from iree_pilot.repro.differential import against
    from iree_pilot.repro.options import Options
    from iree_pilot.repro.workarounds import by_itself

    for one in compared:  # both are of one program
        loaded = by_itself.apply(loaded, one.plan, session.context)
    live.doing("comparing dispatch by dispatch", "compare")
    for one in compared:
        own = (d for d in loaded.program.decomposed if d.target == one.plan.name)
        live.planned(one.name, None, one.plan.warnings, tuple(d.note for d in own))
    place, default = folder
    return against.bisect(
        loaded,
        compared,
        session.context,
        Options(place=place, default=default, seed=chosen.seed, fresh=chosen.fresh),
        on_progress=live.note,
        on_wait=lambda: live.note("another process is comparing the same; waiting"),
    )


def sides(
    session: Session, target: str, others: tuple[str, ...], flags: tuple[str, ...]
) -> tuple[Side, Side]:
    """The side that is asked about, and the one that it is held against.

    others: what --against was given: a target, flags of iree-compile, or both. flags: the user's,
    for both sides.
    """
    from iree_pilot.repro.differential.side import Side

    more = tuple(word for word in others if word.startswith("-"))
    named = [word for word in others if word not in more]
    if len(named) > 1:
        raise click.UsageError(f"--against names {len(named)} targets: {', '.join(named)}")
    made = []
    for spec, given in ((target, flags), (named[0] if named else target, (*flags, *more))):
        name, plan = session.plan(spec, None, given)
        name = shlex.join((name, *(given if more else ())))
        made.append(Side(name=name, plan=plan, flags=(*plan.flags, *given)))
    if made[0].flags == made[1].flags:
        raise click.UsageError(f"--against {shlex.join(others)} is what -t {target} is already")
    return made[0], made[1]


def tell(console: Any, result: Differential) -> None:
    """Prints the differing dispatches, the first one first, without the reproducers' paths."""
    compared = result.compared
    side, other = compared.sides
    count = out.count(compared.dispatches, "dispatch", "dispatches")
    took = f"{out.count(compared.compiles, 'compile')}, {out.seconds(compared.seconds)}"
    console.print(f"\n{count} of {escape(side)} against {escape(other)} ({took})", soft_wrap=True)
    for note in compared.notes:
        console.print(f"  note: {escape(note)}", soft_wrap=True)
    for name, whole in compared.whole:
        line = f"{_VERDICTS[whole.verdict]}{escape(f': {whole.why}' if whole.why else '')}"
        console.print(f"  {escape(name)} as a whole {line}", soft_wrap=True)
    if compared.status == "agrees":
        console.print("no dispatch differs")
    elif compared.status == "gave-up":
        console.print(escape(result.why), soft_wrap=True)
    for differing in compared.differing[:_SHOWN]:
        where = f"dispatch {differing.number} of {differing.function}"
        console.print(f"\n[bold]{escape(differing.name)}[/bold]  {escape(where)}", soft_wrap=True)
        levels = out.count(differing.levels, "level")
        pairs = [
            ("with", f"{levels} of the dispatches before it" if differing.levels else ""),
            ("operations", ", ".join(differing.operations)),
            *(("from", source) for source in differing.sources),
            ("error", differing.comparison.why),
        ]
        for label, text in pairs:
            if text:
                console.print(f"  [dim]{label:<11}[/dim] {escape(text)}", soft_wrap=True)
    left = len(compared.differing) - _SHOWN
    if left > 0:
        console.print(f"\nand {left} more that differ")
    for found in result.failures:
        if found.reproducer:
            state = "verified" if found.reproducer.verified else "[red]NOT verified[/red]"
            names = ", ".join(found.reproducer.op_names)
            console.print(f"\n  [dim]reduced to [/dim] {escape(names)}, {state}", soft_wrap=True)
            if found.beside:
                latest = escape(f"{found.reproducer.path}; {found.beside}")
                console.print(f"  [dim]latest     [/dim] {latest}", soft_wrap=True)
        elif found.why:
            console.print(f"\nno reproducer: {escape(found.why)}", soft_wrap=True)
