"""What a program was made of, as the tracing child records it."""

from __future__ import annotations

from pathlib import Path

import pytest

from iree_pilot.pipeline.frontends import trace_child
from iree_pilot.pipeline.toolchain.toolchain import remember


def test_what_the_tool_reads_itself_is_no_part_of_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IREE_PILOT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "numbers.txt").write_text("1 2 3")
    opened = trace_child.watch_files()
    remember("probe", ("a",), lambda: {"wrong": 1}, dict)
    assert remember("probe", ("a",), dict, dict) == {"wrong": 1}, "read from the cache"
    (tmp_path / "numbers.txt").read_text()
    found = trace_child.dependencies(opened, tmp_path / "program")
    assert str(tmp_path / "numbers.txt") in found
    assert [file for file in found if file.startswith(str(tmp_path / "cache"))] == []
    package = Path(trace_child.__file__).resolve().parents[2]
    for room in ("iree_pilot", "pipeline", "models", "repro"):
        assert [file for file in found if file.startswith(str(package / room))] == []
