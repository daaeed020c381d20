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
    assert str(one) == "took 2 min 0 s: releases 1 min 0 s, workarounds 1 min 0 s"
    assert one.document["parts"] == {"start": 0.0, "try": 60.0, "search": 60.0}


def test_what_takes_next_to_nothing_is_not_told(clock: Clock) -> None:
    one = Took(100.0)
    clock.now += 0.005
    one.enter("trace")
    clock.now += 10
    assert str(one) == "took 10 s: trace 10 s"


def test_what_takes_little_is_in_other_where_it_adds_up(clock: Clock) -> None:
    one = Took(100.0)
    for part in ("start", "trace", "compile", "run", "other"):
        one.enter(part)
        clock.now += 0.8
    one.enter("isolate")
    clock.now += 104.0
    assert str(one) == "took 108 s: isolate 104 s, other 4 s"
    assert one.document["seconds"] == pytest.approx(108.0)


def test_parts_are_told_in_minutes_where_the_whole_is(clock: Clock) -> None:
    one = Took(100.0)
    for part, spent in (("trace", 80.0), ("isolate", 167.0), ("compile", 9.0)):
        one.enter(part)
        clock.now += spent
    assert str(one) == "took 4 min 16 s: trace 1 min 20 s, compile 9 s, isolate 2 min 47 s"


def test_a_step_has_its_own_seconds_and_the_rest_of_them_is_other(clock: Clock) -> None:
    one = Took(99.0)
    one.enter(took.OTHER)
    clock.now += 20.0  # of which the step itself measured 9
    one.enter("confirm")
    clock.now += 10.0
    one.count("compile", 9.0)
    clock.now += 1.0
    one.count("trace", 0.0)
    assert str(one) == "took 32 s: start 1 s, compile 9 s, confirm 10 s, other 12 s"
    assert one.document["parts"] == {
        "start": 1.0, "other": 12.0, "confirm": 10.0, "compile": 9.0, "trace": 0.0,
    }  # fmt: skip


def test_a_step_takes_no_more_than_there_was(clock: Clock) -> None:
    one = Took(100.0)
    one.enter(took.OTHER)
    clock.now += 2.0
    one.count("run", 3.0)
    assert one.document == {"seconds": 2.0, "parts": {"start": 0.0, "other": 0.0, "run": 2.0}}
