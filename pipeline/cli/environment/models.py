"""`iree-pilot models`: the zoo, and whether a checkpoint fits one of its families."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.markup import escape

from iree_pilot.pipeline.cli import completing
from iree_pilot.pipeline.cli.group import examples
from iree_pilot.pipeline.cli.options import TEXT, Common, common
from iree_pilot.pipeline.plural import count

if TYPE_CHECKING:
    from iree_pilot.models.weights.checkpoints import Checkpoint


_CAME = {"ok": "", "ran": " (runs, not compared)", "compiled": " (compiles)"}


@click.command(
    "models",
    options_metavar="[OPTIONS]",
    epilog=examples(
        "iree-pilot models",
        "iree-pilot models llama",
        "iree-pilot models check path/to/checkpoint --dtype bf16",
    ),
)
@click.argument("name", required=False, metavar="[NAME]", shell_complete=completing.models)
@click.argument(
    "path", required=False, metavar="[check CONFIG_OR_CHECKPOINT]", shell_complete=completing.files
)
@click.option(
    "--dtype",
    type=TEXT,
    metavar="DTYPE",
    shell_complete=completing.dtypes,
    show_default="the checkpoint's",
    help="With check: the dtype to check for: f32, f16, bf16.",
)
@common()
def command(name: str | None, path: str | None, dtype: str | None, common: Common) -> None:
    """List the zoo's models and presets; with NAME, its fields too.

    With `check CONFIG_OR_CHECKPOINT`: whether a Hugging Face config.json, or a checkpoint directory
    with its weights, is complete and fits a family of the zoo. Nothing is compiled.
    """
    from iree_pilot.models.spec import registry
    from iree_pilot.pipeline.cli.display import output as out
    from iree_pilot.pipeline.errors import UsageError, nearest

    if name == "check":
        if path is None:
            raise UsageError(
                "models check needs an argument", advice="Name a config.json or a directory."
            )
        _check(Path(path), dtype, common)
        return
    if dtype is not None:
        raise UsageError("--dtype goes with `models check`", advice="Leave it out.")
    if path is not None:
        raise UsageError(
            f"models {name} {path}: one model at a time", advice="`models check PATH` checks."
        )
    zoo = registry()
    name = None if name == "list" else name  # as others have it
    if name is not None and name not in zoo:
        raise UsageError(f"the zoo has no model {name!r}", advice=nearest(name, list(zoo)))
    shown = [zoo[name]] if name else list(zoo.values())
    passed = _passed()
    if common.json:
        out.emit({"models": shown, "passes": passed})
        return
    console = out.console()
    columns = ["model", "preset", "parameters", "weights", "help", *(["passes on"] * bool(passed))]
    table = out.table(*columns, right=("parameters",))
    for spec in shown:
        for preset in spec.presets:
            first = preset is spec.presets[0]
            table.add_row(
                spec.name if first else "",
                preset.name + (" (default)" if first else ""),
                f"{preset.parameters:,}",
                "random" if preset.weights else "names only",
                escape(preset.help),
                *([", ".join(passed.get(f"{spec.name}:{preset.name}", ()))] * bool(passed)),
            )
    console.print(table)
    for spec in shown:
        parts = f". Parts: {', '.join(spec.parts)}." if spec.parts else ""
        parts += " Generates tokens." if spec.chain else ""
        console.print(f"\n[bold]{spec.name}[/bold]  {escape(spec.help + parts)}", soft_wrap=True)
        if name is None:
            continue
        if spec.architectures:
            form = "FP8 checkpoints" if spec.fp8 else "checkpoints"
            console.print(f"Loads {form} of {', '.join(spec.architectures)}.", soft_wrap=True)
        fields = out.table("--set", "default", "takes", "help")
        for field in spec.fields:
            cells = (field.name, str(field.default), field.accepts, field.help)
            fields.add_row(*map(escape, cells))
        console.print(fields)


def _passed() -> dict[str, list[str]]:
    """Targets that each `model:preset` passed on in the last nightly that had it.

    A target for which it did not fail is listed with how far it came.
    """
    from iree_pilot.models.spec import registry
    from iree_pilot.pipeline.cli.nightly.nightly_history import history_at, place_of
    from iree_pilot.pipeline.nightly.records import INSTALLED

    if not place_of(None).exists():
        return {}
    found: dict[str, list[str]] = {}
    with history_at(None) as history:
        latest = history.latest()
    for one in latest:
        case = one.case
        model, _, preset = case.source.partition(":")
        plain = case.release == INSTALLED and case.program == case.source and not case.flags
        if model in registry() and plain and one.status in _CAME:
            name = f"{model}:{preset or registry()[model].presets[0].name}"
            found.setdefault(name, []).append(f"{case.target}{_CAME[one.status]}")
    return found


def _check(path: Path, dtype: str | None, common: Common) -> None:
    from iree_pilot.models.libraries import directories
    from iree_pilot.models.weights import checkpoints
    from iree_pilot.pipeline.cli.display import output as out
    from iree_pilot.pipeline.cli.display.live import Live
    from iree_pilot.pipeline.errors import UsageError

    if path.is_dir() and (found := directories.read(path.resolve())):
        raise UsageError(
            f"{path}: {found.name} is loaded by {found.library}; `models check` is for families of "
            "the zoo",
            advice=f"Tracing it checks the same: iree-pilot trace {shlex.quote(str(path))} -o DIR",
        )
    checkpoint = checkpoints.read_config(path) if path.is_file() else checkpoints.read(path)
    chosen = checkpoints.chosen(checkpoint, {}, dtype, "")
    held = checkpoint.tensors
    console = out.console(stderr=common.json)
    with Live.of(console, common) as live:
        # Frameworks from here on: only once the files themselves are in order.
        live.doing("importing PyTorch and transformers")
        from iree_pilot.models.weights import compare, read
        from iree_pilot.models.weights.plan import check

        live.doing(f"comparing {path} with transformers' {checkpoint.architecture}")
        plan = check(checkpoint, chosen)
        plan.refuse()
        live.doing(f"looking for NaN and infinity in {count(len(held), 'tensor')} of {path}")
        faults = (*read.not_finite(held), *read.untied(plan.held, plan.ties))
    compare.refuse(faults, checkpoint.architecture, checkpoint.path, len(held))
    if common.json:
        out.emit(
            {
                "path": checkpoint.path,
                "architecture": checkpoint.architecture,
                "family": checkpoint.family,
                "parameters": plan.parameters,
                "fields": plan.shown,
                "tensors": len(held),
                "unused": plan.unused,
                "files": checkpoint.files,
            }
        )
        return
    for line in _plan_lines(checkpoint, plan):
        console.print(line, markup=False, soft_wrap=True)


def _plan_lines(checkpoint: Checkpoint, plan: Any) -> list[str]:
    shown = ", ".join(f"{name}={value}" for name, value in plan.shown.items())
    held = checkpoint.tensors
    lines = [
        f"{checkpoint.path}: {checkpoint.architecture}, loaded by the family {checkpoint.family}",
        f"  {plan.parameters:,} parameters: {shown}",
    ]
    if not held:
        return [*lines, "  the config fits; there are no weights to check beside it"]
    lines += [
        f"  {count(len(held), 'tensor')} in {count(len(checkpoint.files), 'file')}: none missing, "
        "none superfluous; names, shapes and dtypes fit, all values are finite",
    ]
    if plan.unused:
        lines.append(
            f"  left out, as this architecture has no use for it: {', '.join(plan.unused)}"
        )
    return lines
