"""`iree-pilot completion`: the script that makes a shell complete iree-pilot's words."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Any

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    FishComplete,
    ZshComplete,
    add_completion_class,
    get_completion_class,
    split_arg_string,
)

from iree_pilot.pipeline.cli.group import examples

#: Variable through which a shell asks click for completions.
VARIABLE = "_IREE_PILOT_COMPLETE"


class Bash(BashComplete):
    """Click's for bash, which breaks words at colons and equal signs: it sees the line as typed.

    Files are completed here, beside what else there is; bash quotes them and marks directories. No
    space follows `KEY=`.
    """

    source_template = """\
%(complete_func)s() {
    local item
    COMPREPLY=()
    while IFS= read -r item; do
        [[ $item == file,* ]] && compopt -o filenames
        [[ $item == *= ]] && compopt -o nospace
        COMPREPLY+=("${item#*,}")
    done < <(env COMP_LINE="${COMP_LINE:0:COMP_POINT}" COMP_WORDBREAKS="$COMP_WORDBREAKS" \\
        %(complete_var)s=bash_complete "$1")
}
complete -o nosort -o default -F %(complete_func)s %(prog_name)s
"""

    def get_completion_args(self) -> tuple[list[str], str]:
        # The letter is part of the last word, or one of its own behind a space.
        words = split_arg_string(f"{os.environ['COMP_LINE']}x")
        typed = words.pop()[:-1]
        return words[1:], typed

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem[Any]]:
        items = super().get_completions(args, incomplete)
        return [
            made for item in items for made in ([item] if item.type == "plain" else _files(item))
        ]

    def format_completion(self, item: CompletionItem[Any]) -> str:
        """The part that bash replaces: what is behind the last of its word breaks, or in quotes."""
        line, typed = os.environ["COMP_LINE"], self.get_completion_args()[1]
        quoted = _open_quote(line)
        if quoted:
            before = typed.removesuffix(line.rpartition(quoted)[2])
        else:
            broken = [typed.rfind(c) for c in os.environ["COMP_WORDBREAKS"] if c in ":="]
            before = typed[: max(broken, default=-1) + 1]
        return f"{item.type},{str(item.value).removeprefix(before)}"


class Zsh(ZshComplete):
    """Click's for zsh, which replaces `--option=` by its value and puts a space behind `KEY=`.

    Without zsh's own completion, which a shell without settings does not load, it loads that.
    """

    source_template = """\
#compdef %(prog_name)s

%(complete_func)s() {
    local -a response described plain unspaced
    local type key descr
    (( ! $+commands[%(prog_name)s] )) && return 1

    response=("${(@f)$(env COMP_WORDS="${words[*]}" COMP_CWORD=$((CURRENT-1)) \
%(complete_var)s=zsh_complete %(prog_name)s)}")
    [[ $PREFIX == --*=* ]] && compset -P 1 '*='

    for type key descr in ${response}; do
        if [[ $type == plain && $descr != _ ]]; then
            described+=("$key:$descr")
        elif [[ $type == plain && $key == *= ]]; then
            unspaced+=("$key")
        elif [[ $type == plain ]]; then
            plain+=("$key")
        elif [[ $type == dir ]]; then
            _path_files -/
        elif [[ $type == file ]]; then
            _path_files -f
        fi
    done

    (( $#described )) && _describe -V unsorted described
    (( $#plain )) && compadd -V unsorted -a plain
    (( $#unspaced )) && compadd -S '' -V unsorted -a unspaced
}

if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    %(complete_func)s "$@"
else
    (( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
    compdef %(complete_func)s %(prog_name)s
fi
"""


class Fish(FishComplete):
    """Click's for fish, which cuts words at commas and has nothing behind `--option=`."""

    source_template = """\
function %(complete_func)s
    set -l option (string match -r -- '^--[^=]*=' (commandline -ct))
    set -l response (env %(complete_var)s=fish_complete COMP_WORDS=(commandline -cp) \
COMP_CWORD=(commandline -ct) %(prog_name)s)
    for item in $response
        set -l parts (string split -m 1 , -- $item)
        switch $parts[1]
            case plain
                echo -- "$option$parts[2]"
            case file
                __fish_complete_path $parts[2] | string replace -r '^' -- "$option"
            case dir
                __fish_complete_directories $parts[2] | string replace -r '^' -- "$option"
        end
    end
end

complete --no-files --command %(prog_name)s --arguments "(%(complete_func)s)"
"""


def _open_quote(line: str) -> str:
    """The quote that a line ends in; empty if it ends outside quotes."""
    lex = shlex.shlex(f"{line}x", posix=True)
    lex.whitespace_split, lex.commenters = True, ""
    try:
        for _ in lex:
            pass
    except ValueError:
        return str(vars(lex)["state"])  # typeshed does not have it
    return ""


def _files(item: CompletionItem[Any]) -> list[CompletionItem[Any]]:
    """Files (of `dir`: directories) that begin like the item; hidden ones where it does."""
    typed = str(item.value)
    folder, slash, begin = typed.rpartition("/")
    place = Path(f"{folder}{slash}" or ".").expanduser()
    found = []
    for entry in sorted(place.iterdir()) if place.is_dir() else ():
        name = entry.name
        if not name.startswith(begin) or (name.startswith(".") and not begin):
            continue
        if item.type == "file" or entry.is_dir():
            found.append(CompletionItem(f"{folder}{slash}{name}", type="file"))
    return found


for _shell in (Bash, Zsh, Fish):
    add_completion_class(_shell)


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
