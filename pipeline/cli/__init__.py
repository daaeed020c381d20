"""The command line: the only place that prints or exits.

One file a command. Each is imported when it is used, and imports what is slow when it runs, so that
`--help` is instant.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import NamedTuple

import click

from iree_pilot.pipeline.cli.boundary import INTERRUPTED, guarded
from iree_pilot.pipeline.cli.group import Group, examples


class _Entry(NamedTuple):
    """A command: the module of this package that has it, and the first sentence of its help."""

    module: str
    summary: str


#: Commands in the order of `--help`.
_COMMANDS = {
    "doctor": _Entry(
        "environment.doctor",
        "Check what can be traced, compiled and RUN on this machine, and how to fix what "
        "is missing.",
    ),
    "models": _Entry(
        "environment.models",
        "List the zoo's models and presets; with NAME, its fields too.",
    ),
    "targets": _Entry(
        "environment.targets",
        "List targets with the flags and the device that they stand for on this machine.",
    ),
    "releases": _Entry(
        "environment.releases",
        "List, install and remove compiler releases, or find since which one something fails.",
    ),
    "trace": _Entry(
        "programs.trace",
        "Trace SOURCE to MLIR: program.mlir, parameters, example inputs and PyTorch's outputs.",
    ),
    "compile": _Entry(
        "programs.compile",
        "Compile SOURCE for each TARGET; every phase is dumped, timed and counted.",
    ),
    "run": _Entry(
        "programs.run",
        "Trace SOURCE, compile it for each TARGET, run it there and compare with PyTorch.",
    ),
    "bisect": _Entry(
        "failures.bisect",
        "Reduce the failure of SOURCE for each TARGET to a minimal, verified reproducer.",
    ),
    "ranges": _Entry(
        "programs.ranges",
        "Find intermediates of SOURCE that overflow or underflow in 8-bit and 16-bit floats.",
    ),
    "verify": _Entry(
        "failures.verify",
        "Run a reproducer's programs from a copy in an empty directory, with the stock tools only.",
    ),
    "reduce": _Entry(
        "failures.reduce",
        "Reduce FILE.mlir while COMMAND exits with 0 on it (125: undecided).",
    ),
    "workaround": _Entry(
        "failures.workaround",
        "Find flags or rewrites with which SOURCE compiles, runs and agrees with PyTorch.",
    ),
    "bringup": _Entry(
        "failures.bringup",
        "Get SOURCE past all that keeps it from running on each TARGET, and write a recipe.",
    ),
    "nightly": _Entry(
        "nightly.nightly",
        "Run models x targets x releases, compare with earlier nights, isolate new failures.",
    ),
    "cache": _Entry(
        "environment.cache",
        "Inspect, shrink or verify the cache of programs and modules.",
    ),
    "completion": _Entry(
        "environment.completion",
        "Print the script that makes SHELL complete commands, options, models, targets and files.",
    ),
}


class _Lazy(Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f"iree_pilot.pipeline.cli.{_COMMANDS[cmd_name].module}")
        command: click.Command = module.command
        return command

    def summaries(self, ctx: click.Context) -> list[tuple[str, str]]:
        """Those of the table: to import all commands takes longer than all else of `--help`."""
        return [(name, entry.summary) for name, entry in _COMMANDS.items()]


@click.group(
    cls=_Lazy,
    context_settings={"help_option_names": ["-h", "--help"], "show_default": True},
    epilog=examples(
        "iree-pilot doctor",
        "iree-pilot run llama:tiny -t llvm-cpu,vulkan",
        "iree-pilot bisect model.py -t hip:gfx942",
    ),
)
@click.version_option(package_name="iree-pilot")
def cli() -> None:
    """Trace a PyTorch model, compile it with IREE phase by phase, run it, compare, explain.

    SOURCE is a model of the zoo (`iree-pilot models`), one of a library (timm:resnet18), FILE.py,
    package.module:factory, a .mlir, .mlirbc, .pt2 or .onnx file, the directory of a Hugging Face
    checkpoint, or the folder of a reproducer. TARGET is BACKEND[:ARCH], such as llvm-cpu, vulkan
    or hip:gfx942 (`iree-pilot targets`).

    Exit codes: 0 all as expected, 1 the program failed, 2 wrong usage, 3 the tool or the
    environment is at fault, 130 interrupted.
    """


def main() -> None:
    """Runs what the user typed, and exits."""
    try:
        if "_IREE_PILOT_COMPLETE" in os.environ:
            # Our own for bash.
            importlib.import_module("iree_pilot.pipeline.cli.environment.completion")
        code = guarded(cli, sys.argv[1:])
    except KeyboardInterrupt:  # once more, while it is said that the first one was heard
        code = INTERRUPTED
    sys.exit(code)
