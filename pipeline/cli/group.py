"""Groups of commands, which name the nearest one to a misspelt one, and the examples of a help."""

from __future__ import annotations

import click

#: No sentence has as many characters.
_SENTENCE = 1000


def examples(*lines: str) -> str:
    """The epilog of a command's help: how it is typed, a line each."""
    return "\n".join(("\b", "Examples:", *(f"  {line}" for line in lines)))


class Group(click.Group):
    """A group that refuses an unknown command with the nearest one, or all of them, and lists each
    with the whole first sentence of its help: click cuts it to what fits one line."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(self.summaries(ctx))

    def summaries(self, ctx: click.Context) -> list[tuple[str, str]]:
        """(name, first sentence of the help) of each command that is listed."""
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        return [(n, c.get_short_help_str(_SENTENCE)) for n, c in commands if c and not c.hidden]

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        from iree_pilot.pipeline.errors import nearest

        known = self.list_commands(ctx)
        if args and args[0] not in known and not args[0].startswith("-"):
            raise click.UsageError(f"no command {args[0]!r}. {nearest(args[0], known)}", ctx)
        return super().resolve_command(ctx, args)
