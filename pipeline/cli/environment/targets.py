"""`iree-pilot targets`: what can be compiled for, and what can run here."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

import click
import msgspec

from iree_pilot.pipeline.cli.group import examples
from iree_pilot.pipeline.cli.options import Common, common
from iree_pilot.pipeline.errors import PilotError

if TYPE_CHECKING:
    from iree_pilot.pipeline.targets.targets import Plan


@click.command(
    "targets", epilog=examples("iree-pilot targets", "iree-pilot targets --release 3.12.0 --json")
)
@common(release=True)
def command(common: Common) -> None:
    """List targets with the flags and the device that they stand for on this machine."""
    from iree_pilot.pipeline.cli.display import output as out
    from iree_pilot.pipeline.cli.display.live import Live
    from iree_pilot.pipeline.cli.installing import toolchain_of
    from iree_pilot.pipeline.targets.targets import BACKENDS, parse, plan

    console = out.console(stderr=common.json)
    plans: dict[str, Plan | PilotError] = {}
    with Live.of(console, common) as live:
        toolchain = toolchain_of(common.release, live)
        for backend in BACKENDS:
            try:
                plans[backend] = plan(parse(backend), toolchain)
            except PilotError as error:
                plans[backend] = error
    if common.json:
        out.emit({"release": toolchain.version, "targets": [_row(*p) for p in plans.items()]})
        return
    for name, made in plans.items():
        pairs = [("arch", BACKENDS[name].takes)]
        if isinstance(made, PilotError):
            pairs += [("error", made.message), ("", made.advice)]
        else:
            device = made.device
            pairs.append(("here", made.target.spec))
            pairs.append(("flags", shlex.join(made.flags)))
            if device:
                pairs.append(("device", f"{device.uri}  {device.name}"))
            else:
                pairs.append(("device", f"none: {made.why_not_run}"))
                pairs += [("", made.advice)] if made.advice else []
            pairs += [("warning", w) for w in made.warnings]
        console.print(f"[bold]{name}[/bold]")
        out.print_pairs(console, pairs)
    console.print(
        f"\nWhat else iree-compile {toolchain.version} has is reached through its own flags, "
        "after --.",
        soft_wrap=True,
    )


def _row(name: str, made: Plan | PilotError) -> dict[str, Any]:
    if isinstance(made, PilotError):
        return {"name": name, "error": made.message, "advice": made.advice}
    return {"name": name, **msgspec.to_builtins(made)}
