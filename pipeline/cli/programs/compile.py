"""`iree-pilot compile`: compile for a target, up to a phase or from one."""

from __future__ import annotations

import click

from iree_pilot.pipeline.cli import completing
from iree_pilot.pipeline.cli.group import examples
from iree_pilot.pipeline.cli.options import (
    Common,
    Output,
    SourceOptions,
    common,
    recipe_option,
    resume_option,
    source_options,
    target_option,
)


@click.command(
    "compile",
    epilog=examples(
        "iree-pilot compile model.py -t vulkan -o model.vmfb",
        "iree-pilot compile model.mlir -t llvm-cpu --to flow -o model.flow.mlir",
        "iree-pilot compile model.py -t hip:gfx942 -- --iree-opt-level=O3",
    ),
)
@source_options
@target_option
@click.option(
    "--to",
    metavar="PHASE",
    shell_complete=completing.phases,
    help="Stop after this phase and write the IR.",
)
@recipe_option
@resume_option
@click.option(
    "-o",
    "--output",
    type=Output(stdout=True),
    metavar="FILE",
    help="Write the module (or IR) to FILE; - for stdout.",
)
@common(limits=True, release=True)
@click.argument("flags", nargs=-1, type=click.UNPROCESSED)
def command(
    source_options: SourceOptions,
    targets: str | None,
    device: str | None,
    to: str | None,
    recipe: str | None,
    resume: str | None,
    output: str | None,
    common: Common,
    flags: tuple[str, ...],
    source: str,
) -> None:
    """Compile SOURCE for each TARGET; every phase is dumped, timed and counted.

    FLAGS after -- go to iree-compile. Without -o the output stays in the cache, where the phases'
    dumps are beside it.
    """
    from iree_pilot.pipeline.cli.programs.cases import Request, cases

    cases(
        Request(
            source=source,
            chosen=source_options,
            targets=targets,
            device=device,
            common=common,
            flags=flags,
            run=False,
            to=to,
            resume=resume,
            recipe=recipe,
            output=output,
        )
    )
