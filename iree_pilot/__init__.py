"""Drives PyTorch models through IREE: traces, compiles phase by phase, runs, compares, isolates.

    >>> import iree_pilot, torch
    >>> module, x = torch.nn.Linear(4, 2).eval(), torch.ones(1, 4)
    >>> program = iree_pilot.trace(module, (x,))
    >>> iree_pilot.compile(program, "hip:gfx942").status
    'compiled'
    >>> result = iree_pilot.run(program, "llvm-cpu")
    >>> result.status
    'ok'
    >>> iree_pilot.compare(program, [module(x) + 1]).ok
    False
    >>> iree_pilot.bisect(program, result, "reproducer")
    Traceback (most recent call last):
    iree_pilot.pipeline.errors.UsageError: there is nothing to isolate: llvm-cpu is ok
    Give the result of a run or a compile that failed.

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
    from iree_pilot.pipeline.errors import EnvironmentFault as EnvironmentFault
    from iree_pilot.pipeline.errors import UsageError as UsageError

_ERRORS = ("EnvironmentFault", "UsageError")
__all__ = [
    *("EnvironmentFault", "TraceFailed", "UsageError"),
    *("bisect", "compare", "compile", "run", "trace", "verify"),
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("iree-pilot")
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    room = "pipeline.errors" if name in _ERRORS else "api"
    return getattr(importlib.import_module(f"iree_pilot.{room}"), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
