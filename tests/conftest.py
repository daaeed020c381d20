"""Fixtures that all tests share: no test reads or writes the user's own cache and data."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import profiles
import pytest
from hypothesis import settings

settings.load_profile(profiles.DEFAULT)  # --hypothesis-profile loads another one later


@pytest.fixture(scope="session", autouse=True)
def away_from_the_users_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keeps what fixtures of classes and modules do out of the user's own cache and data."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IREE_PILOT_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("IREE_PILOT_DATA", str(tmp_path_factory.mktemp("data")))
        yield


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The test's own empty cache directory."""
    directory = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("IREE_PILOT_CACHE", str(directory))
    return directory


@pytest.fixture(autouse=True)
def data(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The test's own empty data directory."""
    directory = tmp_path_factory.mktemp("data")
    monkeypatch.setenv("IREE_PILOT_DATA", str(directory))
    return directory


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for all tests of a session, whichever worker runs them: what is slow to make."""
    base = tmp_path_factory.getbasetemp()
    directory = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared-cache"
    directory.mkdir(exist_ok=True)
    return directory
