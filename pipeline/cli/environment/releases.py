"""`iree-pilot releases`: the compiler releases that can be used, and installing others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from iree_pilot.pipeline.cli import completing
from iree_pilot.pipeline.cli.failures import releases_bisect
from iree_pilot.pipeline.cli.group import Group, examples
from iree_pilot.pipeline.cli.options import Common, common

if TYPE_CHECKING:
    from iree_pilot.pipeline.toolchain.toolchain import Toolchain

#: Number of downloads at a time.
_AT_ONCE = 3


@click.group(
    "releases",
    cls=Group,
    invoke_without_command=True,
    epilog=examples(
        "iree-pilot releases",
        "iree-pilot releases install 3.12.0 3.11.0",
        "iree-pilot releases bisect model.py -t llvm-cpu",
    ),
)
@common()
@click.pass_context
def command(ctx: click.Context, common: Common) -> None:
    """List, install and remove compiler releases, or find since which one something fails."""
    if ctx.invoked_subcommand is None:
        _list(common)


command.add_command(releases_bisect.bisect)
command.add_command(releases_bisect.ask)


def _list(common: Common) -> None:
    from iree_pilot.pipeline.cli.display import output as out
    from iree_pilot.pipeline.cli.display.live import Live
    from iree_pilot.pipeline.errors import EnvironmentFault
    from iree_pilot.pipeline.toolchain import releases, toolchain

    console = out.console(stderr=common.json)
    here = toolchain.installed()
    cached = releases.local()
    unknown = ""
    with Live.of(console, common) as live:
        live.doing("asking the package index for releases")
        try:
            known = releases.available()
        except EnvironmentFault as fault:
            known, unknown = [], fault.message
    if common.json:
        out.emit(
            {
                "installed": here.version,
                "cached": [{"version": r.version, "bytes": r.bytes} for r in cached],
                "available": known,
                "error": unknown or None,
            }
        )
        return
    table = out.table("release", "state", "size", right=("size",))
    sizes = {r.version: r.bytes for r in cached}
    for version in dict.fromkeys([here.version, *known, *sizes]):
        if version == here.version:
            table.add_row(version, "in this environment", "")
        elif version in sizes:
            table.add_row(version, "in the cache", out.size(sizes[version]))
        else:
            table.add_row(version, "can be installed", "")
    console.print(table)
    if unknown:
        line = f"what else there is is not known: {unknown}"
        console.print(line, markup=False, soft_wrap=True)


@command.command(
    "install",
    epilog=examples(
        "iree-pilot releases install 3.12.0", "iree-pilot releases install 3.12.0 3.11.0"
    ),
)
@click.argument("versions", nargs=-1, required=True, metavar="VERSION...")
@common()
def install(versions: tuple[str, ...], common: Common) -> None:
    """Install releases into the cache: the compiler and its matching runtime."""
    import msgspec

    from iree_pilot.pipeline.cli.boundary import Interrupted
    from iree_pilot.pipeline.cli.display import output as out
    from iree_pilot.pipeline.cli.display.live import Live
    from iree_pilot.pipeline.processes.workers import side_by_side
    from iree_pilot.pipeline.toolchain import releases

    console = out.console(stderr=common.json)
    with Live(console, quiet=common.verbosity < 0, verbose=common.verbosity > 0) as live:
        live.doing(f"installing {', '.join(versions)}", "install")
        made: list[Toolchain] = []

        def install(version: str) -> Toolchain:
            made.append(releases.install(version, live.note))
            return made[-1]

        try:
            found = side_by_side(install, versions, _AT_ONCE)
        except KeyboardInterrupt:
            raise Interrupted({"installed": msgspec.to_builtins(made)}) from None
    if common.json:
        out.emit({"installed": found, "took": live.took.document})
        return
    for toolchain in found:
        runtime = "with its runtime" if toolchain.runtime else "without a runtime"
        console.print(f"{toolchain.version} ({toolchain.revision[:12]}) {runtime}")
    live.summary()


@command.command(
    "remove",
    epilog=examples(
        "iree-pilot releases remove 3.12.0", "iree-pilot releases remove 3.12.0 --json"
    ),
)
@click.argument("version", shell_complete=completing.versions)
@common()
def remove(version: str, common: Common) -> None:
    """Remove a release from the cache."""
    from iree_pilot.pipeline.cli.display import output as out
    from iree_pilot.pipeline.toolchain import releases

    releases.remove(version)
    if common.json:
        out.emit({"removed": version})
    elif common.verbosity >= 0:
        out.console().print(f"removed {version}")
