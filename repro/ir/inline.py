"""A program whose functions call no others: what is cut out of one then holds all that it takes."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from iree_pilot.pipeline.toolchain.context import Context

_CALL = re.compile(rb"\bcall @")
#: Inlines calls and removes functions without callers, and changes nothing else.
_PASSES = "--pass-pipeline=builtin.module(inline{default-pipeline=},symbol-dce)"


def inlined(mlir: Path, context: Context, file: Path) -> bool:
    """True if `file` holds the program without its calls; False where it has none, or keeps one."""
    if context.toolchain.opt is None or not _CALL.search(mlir.read_bytes()):
        return False
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".inline-", dir=file.parent) as scratch:
        made = Path(scratch) / file.name
        command = (context.toolchain.opt, mlir, _PASSES, "-o", made)
        outcome, _ = context.at(Path(scratch)).run(command)
        if not outcome.ok or _CALL.search(made.read_bytes()):
            return False
        made.replace(file)  # at once: another bisection may read it
    return True
