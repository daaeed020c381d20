"""A release that is not here is installed, and that is said and counted as what it is."""

from __future__ import annotations

import io

import pytest

from iree_pilot.pipeline.cli import installing
from iree_pilot.pipeline.cli.display.live import Live
from iree_pilot.pipeline.cli.display.screen import Screen
from iree_pilot.pipeline.errors import EnvironmentFault
from iree_pilot.pipeline.toolchain import releases


@pytest.fixture
def live() -> Live:
    return Live(Screen(file=io.StringIO(), width=80), quiet=False, verbose=False)


def said(live: Live) -> list[str]:
    assert isinstance(live.console.file, io.StringIO)
    return live.console.file.getvalue().splitlines()


def test_it_is_said_at_once_and_then_what_was_done_goes_on(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def install(version: str, tell: releases.Tell) -> str:
        asked.append((version, said(live)))
        tell("downloading it")
        return "the toolchain"

    monkeypatch.setattr(releases, "present", lambda release: None)
    monkeypatch.setattr(releases, "install", install)
    with live:
        assert installing.toolchain_of("3.11", live) == "the toolchain"
        assert live.took.enter("start") == "start"
    assert asked == [("3.11.0", ["installing IREE 3.11.0"])]
    assert said(live) == ["installing IREE 3.11.0", "downloading it"]
    parts = live.took.document["parts"]
    assert isinstance(parts, dict) and {*parts} == {"start", "install"}


def test_one_that_cannot_be_installed_is_counted_too(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    def install(version: str, tell: releases.Tell) -> str:
        raise EnvironmentFault("no network", advice="")

    monkeypatch.setattr(releases, "present", lambda release: None)
    monkeypatch.setattr(releases, "install", install)
    with live, pytest.raises(EnvironmentFault):
        installing.toolchain_of("3.11.0", live)
    assert live.took.enter("start") == "start"


def test_of_one_that_is_here_nothing_is_said(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(releases, "present", lambda release: "the toolchain")
    with live:
        assert installing.toolchain_of(None, live) == "the toolchain"
    assert said(live) == []
