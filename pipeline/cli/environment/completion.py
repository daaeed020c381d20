"""`iree-pilot completion`: the script that makes a shell complete iree-pilot's words."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    add_completion_class,
    get_completion_class,
    split_arg_string,
)

from iree_pilot.pipeline.cli.group import examples

#: Variable through which a shell asks click for completions.
VARIABLE = "_IREE_PILOT_COMPLETE"


class Bash(BashComplete):
    """Click's for bash, which breaks words at colons and equal signs: it sees the line as typed.

    Files are completed here, beside what else there is. No space follows a directory or `KEY=`.
    """

    source_template = """\
%(complete_func)s() {
    local IFS=$'\\n' value
    COMPREPLY=()
    for value in $(env COMP_LINE="${COMP_LINE:0:COMP_POINT}" COMP_WORDBREAKS="$COMP_WORDBREAKS" \\
            %(complete_var)s=bash_complete "$1"); do
        [[ $value == *[/=] ]] && compopt -o nospace
        COMPREPLY+=("$value")
    done
}
complete -o nosort -o default -F %(complete_func)s %(prog_name)s
"""

    def get_completion_args(self) -> tuple[list[str], str]:
        line = os.environ["COMP_LINE"]
        words = split_arg_string(line)
        typed = "" if not line or line[-1].isspace() else words.pop()
        return words[1:], typed

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem[Any]]:
        items = super().get_completions(args, incomplete)
        return [
            made for item in items for made in ([item] if item.type == "plain" else _files(item))
        ]

    def format_completion(self, item: CompletionItem[Any]) -> str:
        """The part that bash replaces: what is behind the last of its word breaks."""
        typed = self.get_completion_args()[1]
        broken = [typed.rfind(c) for c in os.environ["COMP_WORDBREAKS"] if c in ":="]
        before = typed[: max(broken, default=-1) + 1]
        return str(item.value).removeprefix(before)


def _files(item: CompletionItem[Any]) -> list[CompletionItem[Any]]:
    """Files (of `dir`: directories) that begin like the item; hidden ones where it does."""
    typed = str(item.value)
    folder, slash, begin = typed.rpartition("/")
    place = Path(f"{folder}{slash}" or ".")
    found = []
    for entry in sorted(place.iterdir()) if place.is_dir() else ():
        name = entry.name
        if not name.startswith(begin) or (name.startswith(".") and not begin):
            continue
        if entry.is_dir():
            found.append(CompletionItem(f"{folder}{slash}{name}/"))
        elif item.type == "file":
            found.append(CompletionItem(f"{folder}{slash}{name}"))
    return found


add_completion_class(Bash)


@click.command(
    "completion", epilog=examples("iree-pilot completion zsh", "iree-pilot completion fish")
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print the script that makes SHELL complete commands, options, models, targets and files.

    \b
    bash  in ~/.bashrc:  eval "$(iree-pilot completion bash)"
    zsh   in ~/.zshrc:   eval "$(iree-pilot completion zsh)"
    fish  iree-pilot completion fish > ~/.config/fish/completions/iree-pilot.fish
    """
    found = get_completion_class(shell)
    assert found is not None
    click.echo(found(ctx.find_root().command, {}, "iree-pilot", VARIABLE).source(), nl=False)
