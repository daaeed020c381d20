"""`--help` of every command: what it is for, defaults, examples that parse, at 80 columns."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from iree_pilot.models.spec import registry
from iree_pilot.pipeline.cli import cli

#: What examples name and options want to be there.
_FILES = ("weights.irpa", "input.bin")
_LIMITS = {"time_limit", "memory_limit"}


def walk(group: click.Group = cli, *words: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """All commands, each with the words that call it."""
    context = click.Context(group)
    yield words, group
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from walk(command, *words, name)
        else:
            yield (*words, name), command


COMMANDS = dict(walk())
every_command = pytest.mark.parametrize("words", COMMANDS, ids=" ".join)


def shown(words: tuple[str, ...]) -> str:
    done = CliRunner().invoke(cli, [*words, "--help"], prog_name="iree-pilot", terminal_width=80)
    assert done.exit_code == 0
    return done.output


def examples(text: str) -> list[str]:
    return [line.strip() for line in text.partition("Examples:\n")[2].splitlines()]


def parsed(line: str) -> tuple[click.Command, dict[str, Any]]:
    """The command of an example and its parameters. Raises UsageError where it cannot be typed."""
    name, *words = shlex.split(line)
    command: click.Command = cli
    while isinstance(command, click.Group) and words:
        _, found, words = command.resolve_command(click.Context(command), words)
        assert found is not None
        command = found
    return command, command.make_context(name, words).params


@every_command
def test_it_says_what_the_command_is_for_at_80_columns(words: tuple[str, ...]) -> None:
    text = shown(words)
    assert text.startswith(f"Usage: {' '.join(('iree-pilot', *words))} [OPTIONS]")
    assert [line for line in text.splitlines() if len(line) > 80] == []


@every_command
def test_it_cuts_no_description_and_spells_no_pattern(words: tuple[str, ...]) -> None:
    text = shown(words)
    listed = text.partition("\nCommands:\n")[2].partition("Examples:")[0]
    assert "..." not in listed
    assert not re.search(r"%[A-Za-z]", text) and str(2**63 - 1) not in text


@every_command
def test_its_examples_can_be_typed(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("build").mkdir()
    for name in _FILES:
        Path(name).touch()
    lines = examples(shown(words))
    assert len(lines) in (2, 3)
    command = COMMANDS[words]
    for line in lines:
        assert line.startswith(" ".join(("iree-pilot", *words)))
        typed, values = parsed(line)
        assert typed is command or isinstance(command, click.Group)
        source = str(values.get("source", ""))
        if source and "." not in source and not source.startswith("repro-"):
            assert source.partition(":")[0] in registry()


@every_command
def test_it_shows_defaults(words: tuple[str, ...]) -> None:
    context = click.Context(COMMANDS[words], show_default=True)
    for option in COMMANDS[words].params:
        if isinstance(option, click.Option) and option.to_info_dict()["default"]:
            record = option.get_help_record(context)
            assert record is not None
            assert "[default: " in record[1]


def test_limits_and_the_release_are_offered_where_they_mean_something() -> None:
    options = {words: {param.name for param in one.params} for words, one in COMMANDS.items()}
    bounded = {words for words, names in options.items() if names >= _LIMITS}
    compiling = {"trace", "compile", "run", "bisect", "ranges", "workaround", "bringup"}
    compiling = {(name,) for name in compiling} | {("releases", "bisect"), ("nightly", "run")}
    assert bounded == compiling | {("reduce",)}
    asked = {("doctor",), ("targets",), ("verify",), ("releases", "ask")}
    assert {words for words, names in options.items() if "release" in names} == compiling | asked


@pytest.mark.parametrize(
    ("words", "option", "default"),
    [
        ("nightly run", "--time-limit", "the configuration's, else 10min"),
        ("nightly run", "--release", "the configuration's, else that of this environment"),
        ("verify", "--release", "the one that showed the failure, and that of this environment"),
        ("releases bisect", "--release", "the newest that fails"),
        ("run", "--release", "that of this environment"),
        ("bringup", "--budget", "no limit"),
        ("workaround", "--budget", "no limit"),
    ],
)
def test_a_default_is_what_the_command_takes(words: str, option: str, default: str) -> None:
    described = " ".join(shown(tuple(words.split())).split()).partition(f" {option} ")[2]
    assert described.partition("[default: ")[2].startswith(f"({default})]")


def test_the_list_of_commands_has_their_own_descriptions() -> None:
    context = click.Context(cli)
    own = [(name, cli.get_command(context, name)) for name in cli.list_commands(context)]
    described = [(name, one.get_short_help_str(1000)) for name, one in own if one]
    assert cli.summaries(context) == described
