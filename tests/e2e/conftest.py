"""What the tables of wrong usage share."""

from __future__ import annotations

from pathlib import Path

import pytest
from wrong_usage import Refusals, desk


@pytest.fixture
def refusals(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Refusals:
    """In a directory with the FILES of the test's module."""
    desk(tmp_path, request.module.FILES)
    return Refusals(tmp_path, cache, monkeypatch, capsys)
