"""Stand-ins for the compiler's slowness: a stub `iree-compile` in a release's layout."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from iree_pilot.pipeline.toolchain import toolchain
from iree_pilot.pipeline.toolchain.toolchain import Toolchain

STUB = Path(__file__).with_name("iree-compile")


def stub_release(directory: Path, **settings: Any) -> Path:
    """Lays out a release in `directory` as its wheels do; returns the path of its compiler.

    settings: `version`, `revision`, `phases`, `flags` (what the help lists), `targets`
    (architecture -> the line with `#hal.executable.target<...>` that the IR begins with; others
    are unknown to it), `devices` (driver -> {stdout, stderr, status} of `--dump_devices=`), `run`
    (device -> what running a module there writes to stderr before it fails, or `hang`), `when`
    (word -> a line that says what goes wrong in each input that has the word), `mends` (what
    arguments make it go otherwise: [{given, then}]).
    """
    for place, names in {
        "iree/compiler/_mlir_libs": ("iree-compile", "iree-opt"),
        "iree/_runtime_libs": ("iree-run-module",),
    }.items():
        (directory / place).mkdir(parents=True, exist_ok=True)
        for name in names:
            shutil.copy(STUB, directory / place / name)
        (directory / place / "stub.json").write_text(json.dumps(settings))
    return directory / "iree/compiler/_mlir_libs/iree-compile"


def stub_toolchain(directory: Path, **settings: Any) -> Toolchain:
    """The toolchain of a `stub_release`."""
    stub_release(directory, **settings)
    return toolchain.from_directory(directory)
