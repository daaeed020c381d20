"""The levels of a reproducer: what is too large to be handed on is left out, with the reason."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake import stub_toolchain

from iree_pilot.pipeline.failures.diagnostics import mismatch
from iree_pilot.pipeline.processes.process import Limits
from iree_pilot.pipeline.toolchain.context import Context
from iree_pilot.repro.reproducer.folder import bundle
from iree_pilot.repro.reproducer.levels import Maker


def test_ir_that_has_grown_too_large_is_left_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A pass that does not end leaves the next one more than anybody wants to read."""
    program, grown = tmp_path / "0.mlir", tmp_path / "pass.mlir"
    program.write_text("func.func @f() {\n  return\n}\n")
    grown.write_bytes(bytes(bundle.LARGEST_BYTES + 1))
    found = bundle.level("pass", pass_name="some-pass", changed="+ much")
    monkeypatch.setattr(Maker, "_dispatch", lambda self: (bundle.level("dispatch", why="no"), None))
    monkeypatch.setattr(Maker, "_pass", lambda self: (found, grown))
    maker = Maker(
        program,
        mismatch("x", what="values"),
        Context(toolchain=stub_toolchain(tmp_path), limits=Limits(), directory=tmp_path),
        (),
    )
    made = maker.make()
    assert [*made.files] == ["repro.mlir"]
    (left,) = [level for level in made.levels if level.name == "pass"]
    assert left.why == "it is too large: 1,048,577 bytes, over the limit of 1,048,576"
    assert (left.pass_name, left.changed) == ("some-pass", "")
