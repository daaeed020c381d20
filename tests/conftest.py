"""What all tests share: no test reads or writes the user's own cache and data, and unit tests do
without torch, the compiler and the runtime."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Generator, Iterator
from pathlib import Path

import kinds
import profiles
import pytest
import warm
from hypothesis import settings

from iree_pilot.pipeline.processes import fork_servers

settings.load_profile(profiles.DEFAULT)  # --hypothesis-profile loads another one later
_COUNT = itertools.count()


def units_only(config: pytest.Config) -> bool:
    """Whether only unit tests are asked for."""
    return bool(config.getoption("markexpr").split()[:1] == ["unit"])


def pytest_configure(config: pytest.Config) -> None:
    """All workers' commands have their Python children from the same servers, see `warm.py`."""
    if fork_servers.SHARED in os.environ or units_only(config) or config.option.collectonly:
        return
    servers = contextlib.ExitStack()
    os.environ[fork_servers.SHARED] = servers.enter_context(warm.listening())
    servers.callback(os.environ.pop, fork_servers.SHARED)
    config.add_cleanup(servers.close)


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Generator[None, object, object]:
    """Only unit tests are there without torch being loaded."""
    with kinds.without_torch() if units_only(session.config) else contextlib.nullcontext():
        return (yield)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Files without unit tests are not even read where only those are asked for."""
    named = collection_path.name.startswith("test_") and collection_path.suffix == ".py"
    return True if named and units_only(config) and not kinds.has_units(collection_path) else None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Before those that are not asked for are left out."""
    for item in items:
        kinds.mark(item)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """A test's fixtures are part of it, those that it shares too."""
    with kinds.guarded() if item.get_closest_marker("unit") else contextlib.nullcontext():
        return (yield)


@pytest.fixture(scope="session", autouse=True)
def away_from_the_users_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keeps what fixtures of classes and modules do out of the user's own cache and data."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IREE_PILOT_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("IREE_PILOT_DATA", str(tmp_path_factory.mktemp("data")))
        yield


@pytest.fixture
def own_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory beside tmp_path. It is counted here: to find the next number pytest looks through
    all directories that there are, for each test."""
    return tmp_path_factory.getbasetemp() / "own" / str(next(_COUNT))


@pytest.fixture(autouse=True)
def cache(own_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The test's own empty cache directory."""
    directory = own_folder / "cache"
    directory.mkdir(parents=True)
    monkeypatch.setenv("IREE_PILOT_CACHE", str(directory))
    return directory


@pytest.fixture(autouse=True)
def data(own_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The test's own empty data directory."""
    directory = own_folder / "data"
    directory.mkdir(parents=True)
    monkeypatch.setenv("IREE_PILOT_DATA", str(directory))
    return directory


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for all tests of a session, whichever worker runs them: what is slow to make."""
    base = tmp_path_factory.getbasetemp()
    directory = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared-cache"
    directory.mkdir(exist_ok=True)
    return directory
