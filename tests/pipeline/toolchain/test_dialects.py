"""Dialects without a Python module of their own get an empty one; the others keep theirs."""

from __future__ import annotations

import importlib
import sys

import pytest

from iree_pilot.pipeline.toolchain import dialects


def test_a_dialect_without_a_module_gets_an_empty_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
    dialects.complete()
    finders = list(sys.meta_path)
    dialects.complete()
    assert sys.meta_path == finders
    assert not hasattr(importlib.import_module("iree.compiler.dialects.none_such"), "AddOp")
    assert hasattr(importlib.import_module("iree.compiler.dialects.arith"), "AddFOp")
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("iree.compiler.none_such")
