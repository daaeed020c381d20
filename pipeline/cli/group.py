"""Groups of commands, which name the nearest one to a misspelt one, and the examples of a help."""

from __future__ import annotations

import click


def examples(*lines: str) -> str:
    """The epilog of a command's help: how it is typed, a line each."""
    return "\n".join(("\b", "Examples:", *(f"  {line}" for line in lines)))


class Group(click.Group):
    """A group that refuses an unknown command with the nearest one, or all of them."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        from iree_pilot.pipeline.errors import nearest

        known = self.list_commands(ctx)
        if args and args[0] not in known and not args[0].startswith("-"):
            raise click.UsageError(f"no command {args[0]!r}. {nearest(args[0], known)}", ctx)
        return super().resolve_command(ctx, args)
