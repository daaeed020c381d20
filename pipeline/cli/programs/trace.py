"""`iree-pilot trace`: the program of a source, in a directory of the user's."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec
from rich.markup import escape

from iree_pilot.pipeline.cli.group import examples
from iree_pilot.pipeline.cli.options import (
    Common,
    SourceOptions,
    common,
    folder_option,
    source_options,
)


@click.command(
    "trace",
    epilog=examples(
        "iree-pilot trace llama:tiny -o llama",
        "iree-pilot trace model.py -o model --inline-parameters",
        "iree-pilot trace llama:8b --dtype bf16 --weights weights.irpa -o llama",
    ),
)
@source_options
@folder_option("the program's files")
@common(limits=True, release=True)
def command(source_options: SourceOptions, output: str, common: Common, source: str) -> None:
    """Trace SOURCE to MLIR: program.mlir, parameters, example inputs and PyTorch's outputs."""
    from iree_pilot.pipeline.cli import reading, reproducer
    from iree_pilot.pipeline.cli.boundary import Failed
    from iree_pilot.pipeline.cli.display import output as out
    from iree_pilot.pipeline.cli.display.live import Live
    from iree_pilot.pipeline.cli.session import Session
    from iree_pilot.pipeline.frontends import load
    from iree_pilot.pipeline.frontends.load import TraceFailed
    from iree_pilot.pipeline.store import outputs

    named = source
    source, source_options = reproducer.source(source, source_options, flagged=False)
    read = reading.files(source, source_options, named=named)
    directory = outputs.directory(Path(output))
    outputs.refuse_held(directory, read)
    _check(directory)
    outputs.check_writable(Path(output), replaced=True)
    console = out.console(stderr=common.json)
    live = Live.of(console, common)
    try:
        with live:
            session = Session(common, live)
            loaded = session.program(source, source_options, live)
    except TraceFailed as failed:
        if common.json:
            took = live.took.document
            out.emit({"program": None, "failure": failed.failure, "took": took})
        else:
            console.print(f"[bold red]{escape(source)} does not trace[/bold red]")
            lines = out.failure_lines(failed.failure, verbose=common.verbosity > 0)
            out.print_pairs(console, lines)
            live.summary()
        raise Failed(1) from failed
    live.program(loaded)
    made_of = load.made_of(loaded, session.job(source, source_options).source)
    outputs.refuse_held(directory, map(Path, made_of))
    outputs.replace_directory(directory, Path(loaded.directory), ["manifest.json"])
    if common.json:
        record = msgspec.to_builtins(loaded.program)
        program = {**record, "directory": str(directory), "cached": loaded.cached}
        out.emit({"program": program, "took": live.took.document})
    else:
        live.summary()
        console.print(str(directory), markup=False, soft_wrap=True)
    out.wrote(output, quiet=common.verbosity < 0)


def _check(directory: Path) -> None:
    from iree_pilot.pipeline.errors import UsageError

    if (
        directory.is_dir()
        and any(directory.iterdir())
        and not (directory / "program.json").is_file()
    ):
        raise UsageError(
            f"{directory} has files that are no program's",
            advice="Name a new or empty directory, or one that `trace` wrote.",
        )
