"""`iree-pilot run`: trace, compile for each target, run where there is a device, compare."""

from __future__ import annotations

import click

from iree_pilot.pipeline.cli.group import examples
from iree_pilot.pipeline.cli.options import (
    Common,
    SourceOptions,
    common,
    expected_option,
    recipe_option,
    resume_option,
    source_options,
    target_option,
)


@click.command(
    "run",
    epilog=examples(
        "iree-pilot run llama-fp8:tiny -t llvm-cpu,vulkan",
        "iree-pilot run model.mlir -t llvm-cpu --input 2x4xf32=@input.bin",
        "iree-pilot run llama -t vulkan --generate 16",
    ),
)
@source_options
@target_option
@expected_option
@click.option("--bisect", is_flag=True, help="Isolate each target that fails.")
@click.option(
    "--generate",
    type=int,
    metavar="N",
    help="Also generate N tokens in one session on the device and compare each with PyTorch's: "
    "prefill gives the first, N - 1 decode steps the others. Traces with dynamic=true.",
)
@recipe_option
@resume_option
@common(limits=True, release=True)
@click.argument("flags", nargs=-1, type=click.UNPROCESSED)
def command(
    source_options: SourceOptions,
    targets: str | None,
    device: str | None,
    expected: tuple[str, ...],
    bisect: bool,
    generate: int | None,
    recipe: str | None,
    resume: str | None,
    common: Common,
    flags: tuple[str, ...],
    source: str,
) -> None:
    """Trace SOURCE, compile it for each TARGET, run it there and compare with PyTorch.

    Verdicts: ok (every output was compared and agrees), ran (not compared; the reason is printed),
    compiled (not run; the reason is printed), failed. Without a reference, the targets are compared
    with each other.

    FLAGS after -- go to iree-compile.
    """
    from iree_pilot.pipeline.cli.programs.cases import Request, cases

    if bisect and resume:
        raise click.UsageError("--bisect isolates programs from the start: it takes no --from")
    cases(
        Request(
            source=source,
            chosen=source_options,
            targets=targets,
            device=device,
            common=common,
            flags=flags,
            bisect=bisect,
            generate=generate,
            resume=resume,
            recipe=recipe,
            expected=expected,
        )
    )
