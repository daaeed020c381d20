"""What kind a test is: `unit`, unless its marks, its folder or its file's imports say otherwise.

How long it takes is another matter: `slow` is written by hand.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from guard import sitecustomize as guard
from places import ROOT, TESTS

#: What loads torch when it is imported.
_TORCH = ("torch", "diffusers", "iree.turbine", "safetensors.torch", "transformers")
#: Whether a unit test is running.
_guarded = False


@functools.cache
def is_torch(file: Path) -> bool:
    """Whether torch is imported when a file of ours is, by itself or by others of ours."""
    seen, left = set[Path](), [file]
    while left:
        here = left.pop()
        if here in seen:
            continue
        seen.add(here)
        for name in _imported(here):
            if any(name == heavy or name.startswith(f"{heavy}.") for heavy in _TORCH):
                return True
            left += _files(name)
    return False


@functools.cache
def _imported(file: Path) -> frozenset[str]:
    """The modules that a file imports when it is loaded, not later in a function."""
    found = set()
    for node in ast.parse(file.read_bytes()).body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return frozenset(found)


@functools.cache
def _files(module: str) -> tuple[Path, ...]:
    """The file of a module of ours; none of another."""
    path = module.replace(".", "/")
    places = (root / end for root in (ROOT, TESTS, ROOT / "scripts") for end in _ends(path))
    return tuple(place for place in places if place.is_file())


def _ends(path: str) -> tuple[str, str]:
    return f"{path}.py", f"{path}/__init__.py"


def has_units(file: Path) -> bool:
    """Whether there can be unit tests in a file: not where torch is needed to read it, nor among
    those that type whole commands."""
    return not is_torch(file) and TESTS / "e2e" not in file.parents


def mark(item: pytest.Item) -> None:
    """Marks a test `torch` by its file, and `unit` where nothing is against it."""
    if is_torch(item.path):
        item.add_marker("torch")
    if has_units(item.path) and not any(map(item.get_closest_marker, ("real", "torch"))):
        item.add_marker("unit")


@contextlib.contextmanager
def without_torch() -> Iterator[None]:
    """Importing torch fails in this process."""
    loaded = sys.modules.pop("torch", None)
    sys.meta_path.insert(0, guard.NoTorch)  # type: ignore[arg-type]
    try:
        yield
    finally:
        sys.meta_path.remove(guard.NoTorch)  # type: ignore[arg-type]
        if loaded is not None:
            sys.modules["torch"] = loaded


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """Importing torch and starting the compiler or the runtime fail, here and in children."""
    with without_torch(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(TESTS / "guard"), prepend=os.pathsep)
        patch.setattr(sys.modules[__name__], "_guarded", True)
        yield


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if _guarded:
        guard.no_binaries(event, arguments)


sys.addaudithook(_hook)
