"""Drives PyTorch models through IREE: traces, compiles phase by phase, runs, compares, isolates.

    import iree_pilot

    program = iree_pilot.trace(module, (x,))
    result = iree_pilot.run(program, "llvm-cpu")
    if result.status == "failed":
        iree_pilot.bisect(program, result, "reproducer")

What the functions return are the records that `iree-pilot --json` prints. Importing this loads
neither torch nor the compiler.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from iree_pilot.api import TraceFailed as TraceFailed
    from iree_pilot.api import bisect as bisect
    from iree_pilot.api import compare as compare
    from iree_pilot.api import compile as compile
    from iree_pilot.api import run as run
    from iree_pilot.api import trace as trace
    from iree_pilot.api import verify as verify

__all__ = ["TraceFailed", "bisect", "compare", "compile", "run", "trace", "verify"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("iree_pilot.api"), name)
