"""`iree-pilot verify`: does a reproducer still show its failure?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.markup import escape

from iree_pilot.pipeline.cli.group import examples
from iree_pilot.pipeline.cli.options import Common, common, trust_option

if TYPE_CHECKING:
    from rich.console import Console

    from iree_pilot.repro.reproducer.verify import Check, Verification


@click.command(
    "verify",
    epilog=examples(
        "iree-pilot verify repro-model-vulkan",
        "iree-pilot verify their-folder --release 3.12.0 --trust",
    ),
)
@click.argument("directory", metavar="REPRODUCER_DIR", type=click.Path(path_type=Path))
@trust_option
@common(release="the one that showed the failure, and that of this environment")
def command(directory: Path, trust: bool, common: Common) -> None:
    """Run a reproducer's programs from a copy in an empty directory, with the stock tools only.

    Uses the release that showed the failure and the one that is installed, or --release. Exit code
    0: every level and run.sh reproduce the failure; 1: one of them does not; 2: there is no
    reproducer.

    For a folder that was not written here, neither Python nor a modified run.sh is run without
    --trust. Skipped steps are listed; the verdict covers the others.
    """
    import msgspec

    from iree_pilot.pipeline.cli import reproducer
    from iree_pilot.pipeline.cli.boundary import Failed, Interrupted
    from iree_pilot.pipeline.cli.display import output as out
    from iree_pilot.pipeline.cli.display.live import Live
    from iree_pilot.pipeline.cli.installing import toolchain_of
    from iree_pilot.repro.reproducer import verify
    from iree_pilot.repro.trust.trust import open_folder

    console = out.console(stderr=common.json)
    opened = open_folder(directory, trust=trust)
    reproducer.announce(opened)
    with Live.of(console, common) as live:
        live.doing(f"running the programs of {directory} with the stock tools", "verify")
        checked: dict[str, list[Check]] = {}
        try:
            result = verify.verify(
                directory,
                common.release,
                get=lambda wanted: toolchain_of(wanted, live),
                trust=trust,
                on_check=lambda release, one: checked.setdefault(release, []).append(one),
            )
        except KeyboardInterrupt:
            raise Interrupted(_finished(checked)) from None
        if result.unavailable:
            own = opened.report.release
            live.note(
                f"release {own}, which showed the failure, is not installed and was not used: "
                f"{result.unavailable}"
            )
            live.note(f"used instead: {result.release}, from this Python environment")
    if common.json:
        out.emit({**msgspec.to_builtins(result), "took": live.took.document})
    else:
        for one in (result, result.current):
            if one is not None:
                _tell(console, one)
        live.summary()
    if not result.same or (result.current and not result.current.same):
        raise Failed(1)


def _finished(checked: Mapping[str, Sequence[Check]]) -> dict[str, Any]:
    """Document of `--json` for an interrupted verification: of the release that is checked first,
    then of the environment's."""
    import msgspec

    made = [{"release": r, "levels": msgspec.to_builtins(found)} for r, found in checked.items()]
    return {**made[0], **({"current": made[1]} if made[1:] else {})} if made else {}


def _if_right(claimed: str) -> str:
    if not claimed:
        return ""
    return f", if the numbers that the folder expects are right: not checked here, as {claimed}"


#: Meaning of run.sh's exit status.
_SCRIPT = {0: "same", 1: "not the same", 125: "undecided"}


def _tell(console: Console, result: Verification) -> None:
    for check in result.levels:
        mark = "[green]same[/green]" if check.same else "[red]not the same[/red]"
        mark = mark if check.ran else "[yellow]not run:[/yellow]"
        line = f"{check.level.file:<14} {mark} {escape(check.why)}"
        console.print(line.rstrip(), soft_wrap=True)
    console.print(f"{'run.sh':<14} {_script(result)}", markup=False, soft_wrap=True)
    closing = (
        f"the failure is there with {result.release}{_if_right(result.claimed)}"
        if result.same
        else f"not the same with {result.release}: {result.why}"
    )
    console.print(escape(closing), soft_wrap=True)


def _script(result: Verification) -> str:
    if result.script_why:
        return f"not run: {result.script_why}"
    if result.script is None:
        return "stopped before it ended"
    meaning = _SCRIPT.get(result.script, "failed")
    return f"{meaning} (exit status {result.script})"
