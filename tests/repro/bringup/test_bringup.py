"""The search for a way past a failure says how far it is."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from iree_pilot.pipeline.failures.diagnostics import Failure
from iree_pilot.repro.bringup import bringup
from iree_pilot.repro.workarounds.combination_search import CombinationOutcome
from iree_pilot.repro.workarounds.table import TABLE

WANTED = [*TABLE[:5]]
SAME = CombinationOutcome(state="same")


class Trials:
    """What a search asks, each answered by the same failure."""

    def __init__(self, subject: Any, context: Any, *, on_progress: Any) -> None:
        self._on_progress = on_progress

    def ask(self, combinations: Any) -> list[CombinationOutcome]:
        for one in combinations:
            self._on_progress(one, SAME)
        return [SAME] * len(combinations)


def test_candidates_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[tuple[int, int]] = []
    monkeypatch.setattr(bringup, "Trials", Trials)
    monkeypatch.setattr(bringup.find_workarounds, "reduced", lambda *given: object())
    monkeypatch.setattr(bringup.find_workarounds, "wanted", lambda *given: WANTED)
    search: Any = bringup._BringUp.__new__(bringup._BringUp)
    search._root = tmp_path
    search._context = SimpleNamespace(at=lambda place: place, toolchain=None)
    search._bounds = bringup.Bounds(place=tmp_path)
    search._heard = bringup.Heard(tried=lambda count, total: heard.append((count, total)))
    found: Any = SimpleNamespace(path=str(tmp_path), whole=False, op_names=("a",))
    failure = Failure(kind="diagnostic", message="m", signature="a/b/c", phase="flow")
    now = bringup._Open(failure, found, "")
    assert search._rehearsed(now, None) == []
    assert heard == [(n, 5) for n in range(1, 6)]
    assert now.tried == 5
