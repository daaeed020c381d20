"""Spares the MLIR bindings a search of the disk for each operation that they look at.

For every operation the bindings import the Python module of its dialect, to see whether that has a
class for it. Torch, StableHLO and others have no such module, and it is not remembered that there
is none: of the 10 s that describing an 8B model's 20,000 operations took, 9 went into imports that
fail. Here each dialect gets a module, an empty one where it has none.
"""

from __future__ import annotations

import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from typing import Any

_PACKAGE = "iree.compiler.dialects."


def complete() -> None:
    """Gives a module to each dialect that has none; the second call does nothing."""
    if not any(isinstance(finder, _DialectFinder) for finder in sys.meta_path):
        sys.meta_path.append(_DialectFinder())


class _DialectFinder(MetaPathFinder):
    """Last finder: called if no other one finds a module."""

    def find_spec(self, name: str, *_: Any) -> ModuleSpec | None:
        return ModuleSpec(name, _Empty()) if name.startswith(_PACKAGE) else None


class _Empty(Loader):
    def exec_module(self, module: Any) -> None:
        return
