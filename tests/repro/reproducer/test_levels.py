"""The levels of a reproducer: what is too large to be handed on is left out, with the reason."""

from __future__ import annotations

from pathlib import Path
from threading import Event

import pytest
from fake import stub_toolchain

from iree_pilot.pipeline.failures.diagnostics import mismatch
from iree_pilot.pipeline.processes.process import Limits
from iree_pilot.pipeline.toolchain.context import Context
from iree_pilot.repro.reproducer.folder import bundle
from iree_pilot.repro.reproducer.levels import MadeLevels, Maker


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
    counted: list[tuple[int, int]] = []
    made = maker.make(on_level=lambda done, total: counted.append((done, total)))
    assert counted == [(2, 4), (3, 4), (4, 4)]
    assert [*made.files] == ["repro.mlir"]
    (left,) = [level for level in made.levels if level.name == "pass"]
    assert left.why == "it is too large: 1,048,577 bytes, over the limit of 1,048,576"
    assert (left.pass_name, left.changed) == ("some-pass", "")


def test_mlir_and_pytorch_are_handed_out_while_the_others_are_made(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "0.mlir"
    program.write_text("func.func @f() {\n  return\n}\n")
    handed: list[MadeLevels] = []
    taken = Event()

    def ready(made: MadeLevels) -> None:
        handed.append(made)
        taken.set()

    def waiting(self: Maker) -> tuple[bundle.Level, None]:
        assert taken.wait(60)
        return bundle.level("dispatch", why="no"), None

    monkeypatch.setattr(Maker, "_dispatch", waiting)
    monkeypatch.setattr(Maker, "_pass", lambda self: (bundle.level("pass", why="no"), None))
    context = Context(toolchain=stub_toolchain(tmp_path), limits=Limits(), directory=tmp_path)
    made = Maker(program, mismatch("x", what="values"), context, ()).make(ready=ready)
    (first,) = handed
    assert [level.name for level in first.levels] == ["mlir", "pytorch"]
    assert made.levels[:2] == first.levels
    assert [level.name for level in made.levels[2:]] == ["dispatch", "pass"]
