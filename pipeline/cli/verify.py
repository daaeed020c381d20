"""`iree-pilot verify`: does a reproducer still show its failure?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.markup import escape

from pipeline.cli.options import Common, common

if TYPE_CHECKING:
    from rich.console import Console

    from repro.verify import Verification


@click.command("verify")
@click.argument("directory", metavar="REPRODUCER_DIR", type=click.Path(path_type=Path))
@common
def command(directory: Path, common: Common) -> None:
    """Run a reproducer's programs from a copy in an empty directory, with the stock tools only.

    With the release that showed the failure, and with the one that is installed; --release names
    another one. Exit code 0: every level and run.sh show the failure; 1: one of them does not.
    """
    from pipeline.cli import output as out
    from pipeline.cli.boundary import Failed
    from repro import verify

    console = out.console(stderr=common.json)
    result = verify.verify(
        directory, common.release, lambda text: console.print(text, markup=False)
    )
    if common.json:
        out.emit(result)
    else:
        for one in (result, result.current):
            if one is not None:
                _tell(console, one)
    if not result.same or (result.current and not result.current.same):
        raise Failed(1)


def _tell(console: Console, result: Verification) -> None:
    for check in result.levels:
        mark = "[green]same[/green]" if check.same else "[red]not the same[/red]"
        console.print(f"{check.level.file:<14} {mark} {escape(check.why)}", soft_wrap=True)
    console.print(f"run.sh         exit code {result.script}")
    told = (
        f"the failure is there with {result.release}"
        if result.same
        else f"not the same with {result.release}: {result.why}"
    )
    console.print(escape(told), soft_wrap=True)
