"""The command line: the only place that prints or exits.

One file a command. Each is imported when it is used or listed, and imports what is slow when it
runs, so that `--help` is instant.
"""

from __future__ import annotations

import importlib
import os
import sys

import click

from iree_pilot.pipeline.cli.boundary import INTERRUPTED, guarded
from iree_pilot.pipeline.cli.group import Group, examples

#: Commands in the order of `--help`, each with the module of this package that has it.
_COMMANDS = {
    "doctor": "environment.doctor",
    "models": "environment.models",
    "targets": "environment.targets",
    "releases": "environment.releases",
    "trace": "programs.trace",
    "compile": "programs.compile",
    "run": "programs.run",
    "bisect": "failures.bisect",
    "ranges": "programs.ranges",
    "verify": "failures.verify",
    "reduce": "failures.reduce",
    "workaround": "failures.workaround",
    "bringup": "failures.bringup",
    "nightly": "nightly.nightly",
    "cache": "environment.cache",
    "completion": "environment.completion",
}


class _Lazy(Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f"iree_pilot.pipeline.cli.{_COMMANDS[cmd_name]}")
        command: click.Command = module.command
        return command


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
