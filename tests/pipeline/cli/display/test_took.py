"""Each second of a command is told once, as the part that it belongs to."""

from __future__ import annotations

import pytest

from iree_pilot.pipeline.cli.display import took
from iree_pilot.pipeline.cli.display.took import Took


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(took, "time", made)
    return made


def test_the_parts_add_up_to_the_whole(clock: Clock) -> None:
    one = Took(98.0)
    for part, spent in (("trace", 53.0), ("compile", 20.0), ("isolate", 28.0), ("compile", 3.0)):
        one.enter(part)
        clock.now += spent
    assert str(one) == "took 106 s: start 2 s, trace 53 s, compile 23 s, isolate 28 s"
    assert one.document == {
        "seconds": 106.0,
        "parts": {"start": 2.0, "trace": 53.0, "compile": 23.0, "isolate": 28.0},
    }


def test_parts_have_names_for_people_and_keep_their_keys(clock: Clock) -> None:
    one = Took(100.0)
    for part in ("try", "search"):
        one.enter(part)
        clock.now += 60.0
    assert str(one) == "took 2 min 0 s: releases 60 s, workarounds 60 s"
    assert one.document["parts"] == {"start": 0.0, "try": 60.0, "search": 60.0}


def test_what_takes_next_to_nothing_is_not_told(clock: Clock) -> None:
    one = Took(100.0)
    clock.now += 0.005
    one.enter("trace")
    clock.now += 10
    assert str(one) == "took 10 s: trace 10 s"
