"""`iree-pilot models`: the zoo."""

from __future__ import annotations

import click

from pipeline.cli.options import Common, common


@click.command("models")
@click.argument("name", required=False)
@common
def command(name: str | None, common: Common) -> None:
    """List the zoo's models and presets; with NAME, its fields too."""
    from models.spec import registry
    from pipeline.cli import output as out
    from pipeline.errors import UsageError, nearest

    zoo = registry()
    if name is not None and name not in zoo:
        raise UsageError(f"the zoo has no model {name!r}", advice=nearest(name, list(zoo)))
    shown = [zoo[name]] if name else list(zoo.values())
    if common.json:
        out.emit({"models": shown})
        return
    console = out.console()
    table = out.table("model", "preset", "parameters", "weights", "help", right=("parameters",))
    for spec in shown:
        for preset in spec.presets:
            first = preset is spec.presets[0]
            table.add_row(
                spec.name if first else "",
                preset.name + (" (default)" if first else ""),
                f"{preset.parameters:,}",
                "random" if preset.weights else "names only",
                preset.help,
            )
    console.print(table)
    for spec in shown:
        parts = f" Parts: {', '.join(spec.parts)}." if spec.parts else ""
        console.print(f"\n[bold]{spec.name}[/bold]  {spec.help}{parts}", soft_wrap=True)
        if name is None:
            continue
        fields = out.table("--set", "default", "takes", "help")
        for field in spec.fields:
            fields.add_row(field.name, str(field.default), field.accepts, field.help)
        console.print(fields)
