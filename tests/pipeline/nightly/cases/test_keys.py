"""A case's key: what it depends on."""

from __future__ import annotations

from pathlib import Path

import pytest

from iree_pilot.pipeline import case
from iree_pilot.pipeline.nightly.cases import keys


def test_the_code_in_folders_of_a_room_counts_too(monkeypatch: pytest.MonkeyPatch) -> None:
    core = Path(case.__file__).parent
    real, edited = Path.read_bytes, core / "targets/backends/hip.py"

    def digest(changed: bytes) -> str:
        monkeypatch.setattr(
            Path, "read_bytes", lambda file: real(file) + (changed if file == edited else b"")
        )
        keys._own_code.cache_clear()
        return keys._own_code()

    try:
        assert digest(b"") == digest(b"") != digest(b"# edited")
    finally:
        keys._own_code.cache_clear()
