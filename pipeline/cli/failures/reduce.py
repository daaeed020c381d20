"""`iree-pilot reduce`: make MLIR smaller while a command of the user's finds it interesting."""

from __future__ import annotations

from pathlib import Path

import click

from iree_pilot.pipeline.cli.group import examples
from iree_pilot.pipeline.cli.options import Common, Output, common


@click.command(
    "reduce",
    epilog=examples(
        "iree-pilot reduce model.mlir -- ./fails.sh",
        "iree-pilot reduce model.mlir -o small.mlir -- grep -q stablehlo.sort {}",
    ),
)
@click.argument("file", metavar="FILE.mlir", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=Output(),
    metavar="FILE",
    show_default="FILE.reduced.mlir beside it",
    help="File for the reduced program.",
)
@common(limits=True)
@click.argument("test", metavar="-- COMMAND", nargs=-1, required=True, type=click.UNPROCESSED)
def command(file: Path, output: str | None, common: Common, test: tuple[str, ...]) -> None:
    """Reduce FILE.mlir while COMMAND exits with 0 on it (125: undecided).

    {} in COMMAND is replaced by the file; without it the file is the last argument.
    """
    import os
    import shlex
    import shutil
    import tempfile

    from iree_pilot.pipeline.cli.display import output as out
    from iree_pilot.pipeline.cli.display.live import Live
    from iree_pilot.pipeline.cli.options import limits
    from iree_pilot.pipeline.errors import UsageError
    from iree_pilot.pipeline.store import outputs
    from iree_pilot.repro.reducer.reduce import reduce

    if not file.is_file():
        what = f"{file} is not a file" if file.exists() else f"no file {file}"
        raise UsageError(what, advice="Name an .mlir file.")
    if shutil.which(test[0]) is None:
        raise UsageError(
            f"cannot run {shlex.quote(test[0])}, which decides whether {file} is interesting: "
            "there is no such command, or it is not executable",
            advice="Name a command on PATH, or the path of a script (chmod +x makes it one).",
        )
    target = Path(output) if output else file.with_suffix(".reduced.mlir")
    outputs.check(target, (file, *map(Path, test)))
    outputs.check_writable(target)
    console = out.console(stderr=common.json)
    with (
        tempfile.TemporaryDirectory(prefix="iree-pilot-reduce-") as scratch,
        Live.of(console, common) as live,
    ):
        live.doing(f"reducing {file}", "reduce")
        reduced = reduce(
            file,
            test,
            Path(scratch),
            limits=limits(common),
            width=max(1, os.cpu_count() or 1),
            on_progress=live.progress,
        )
        live.close()
        out.deliver(target, Path(reduced.mlir), quiet=common.verbosity < 0)
    if common.json:
        out.emit({**_facts(reduced), "path": str(target), "took": live.took.document})
        return
    minimal = "minimal" if reduced.minimal else "not proved minimal"
    console.print(
        f"{out.count(len(reduced.ops), 'operation')} left, {minimal}, "
        f"{out.count(reduced.calls, 'run')} of the test"
    )
    live.summary()
    console.print(str(target), markup=False, soft_wrap=True)


def _facts(reduced: object) -> dict[str, object]:
    import msgspec

    facts: dict[str, object] = msgspec.to_builtins(reduced)
    return {name: value for name, value in facts.items() if name != "mlir"}
