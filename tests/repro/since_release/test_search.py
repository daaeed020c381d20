"""Where a failure comes and goes is found with few questions, and nothing is made up about it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iree_pilot.repro.since_release.release_search import TELLING, Verdict, assumed, changes, search

TELLING_VERDICTS = st.sampled_from(TELLING)
ANY_VERDICT: st.SearchStrategy[Verdict] = st.sampled_from([*TELLING, "unsupported"])
SHORT: dict[str, Verdict] = {
    "p": "passes",
    "s": "same",
    "d": "different",
    "-": "unsupported",
    "!": "not-installable",
}


class Asked:
    """Releases with known verdicts, which counts what is asked of it."""

    def __init__(self, verdicts: Sequence[Verdict]) -> None:
        self.names = [f"3.{minor}.0" for minor in range(len(verdicts))]
        self.truth = dict(zip(self.names, verdicts, strict=True))
        self.asked: list[str] = []

    def __call__(self, names: Sequence[str]) -> list[Verdict]:
        self.asked += names
        return [self.truth[name] for name in names]

    @property
    def compiles(self) -> int:
        """Only what can be read and installed is compiled."""
        return sum(self.truth[name] in TELLING for name in self.asked)


def asked(text: str) -> Asked:
    return Asked([SHORT[letter] for letter in text])


def told(one: Asked, found: dict[str, Verdict]) -> list[tuple[str, str]]:
    return [(change.older, change.newer) for change in changes(one.names, found)]


@given(st.integers(1, 15), TELLING_VERDICTS, TELLING_VERDICTS)
def test_one_change_among_sixteen_takes_six_compiles(
    place: int, before: Verdict, after: Verdict
) -> None:
    one = Asked([before] * place + [after] * (16 - place))
    found = search(one.names, one)
    if before == after:
        assert told(one, found) == []
    else:
        assert told(one, found) == [(one.names[place - 1], one.names[place])]
        assert one.compiles <= 6
        assert found | assumed(one.names, found) == one.truth


@given(st.lists(ANY_VERDICT, min_size=2, max_size=40), st.data())
def test_one_change_is_found_whatever_cannot_be_asked(
    noise: list[Verdict], data: st.DataObject
) -> None:
    """Releases that tell nothing lie anywhere, and are stepped over."""
    place = data.draw(st.integers(0, len(noise)))
    verdicts: list[Verdict] = [
        verdict if verdict not in TELLING else "passes" if at < place else "same"
        for at, verdict in enumerate(noise)
    ]
    one = Asked(verdicts)
    found = search(one.names, one)
    assert len(one.asked) == len(set(one.asked)), "nothing is asked twice"
    truth = changes(one.names, one.truth)
    assert changes(one.names, found) == truth
    if truth:
        assert one.compiles <= 2 + math.ceil(math.log2(len(noise) - 1))
    for change in truth:
        assert {one.truth[name] for name in change.between} <= {"unsupported"}


@given(st.integers(1, 14), st.integers(1, 14), TELLING_VERDICTS, TELLING_VERDICTS)
def test_a_failure_that_came_and_went_is_found(
    place: int, length: int, outside: Verdict, inside: Verdict
) -> None:
    end = min(place + length, 15)
    one = Asked([outside] * place + [inside] * (end - place) + [outside] * (16 - end))
    found = search(one.names, one)
    assert changes(one.names, found) == changes(one.names, one.truth)
    assert found == one.truth, "where the ends agree, every release is asked"


@given(st.integers(1, 14), st.integers(1, 14))
def test_three_verdicts_in_a_row_are_two_changes(first: int, length: int) -> None:
    end = min(first + length, 15)
    one = Asked(["different"] * first + ["same"] * (end - first) + ["passes"] * (16 - end))
    changed = [(one.names[first - 1], one.names[first]), (one.names[end - 1], one.names[end])]
    assert told(one, search(one.names, one, every=True)) == changed
    found = told(one, search(one.names, one))
    assert found == changed or len(found) == 1, "what halving steps over, --every finds"


@given(st.lists(st.sampled_from(list(SHORT.values())), max_size=20))
def test_every_release_is_asked_where_that_is_wanted(verdicts: list[Verdict]) -> None:
    one = Asked(verdicts)
    assert search(one.names, one, every=True) == one.truth
    assert len(one.asked) == len(one.names)


@given(st.lists(st.sampled_from(list(SHORT.values())), min_size=1, max_size=20))
def test_what_is_reported_was_asked_and_is_so(verdicts: list[Verdict]) -> None:
    one = Asked(verdicts)
    found = search(one.names, one)
    assert found.items() <= one.truth.items()
    assert set(found) == set(one.asked)
    for change in changes(one.names, found):
        assert {change.good, change.bad} <= set(one.asked)
        assert change.good_verdict != change.bad_verdict
        between = one.names[one.names.index(change.older) + 1 : one.names.index(change.newer)]
        assert list(change.between) == between
        assert all(one.truth[name] not in TELLING for name in between)


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ("----", []),
        ("!!!!", []),
        ("s", []),
        ("-s", []),
        ("--ss", []),
        ("-p--s!", [("3.1.0", "3.4.0")]),
        ("ppss-", [("3.1.0", "3.2.0")]),
    ],
)
def test_releases_that_tell_nothing_are_neither_good_nor_bad(
    verdicts: str, expected: list[tuple[str, str]]
) -> None:
    one = asked(verdicts)
    assert told(one, search(one.names, one)) == expected


def test_what_was_known_is_a_place_to_search_from() -> None:
    one = asked("ppppppsspppp")
    found = search(one.names, one, known=["3.7.0"])
    assert told(one, found) == [("3.5.0", "3.6.0"), ("3.7.0", "3.8.0")]
    assert len(one.asked) < len(one.names)


def test_a_change_tells_which_side_has_the_failure() -> None:
    one = asked("dsp")
    came, went = changes(one.names, one.truth)
    assert (came.good, came.bad, came.came) == ("3.0.0", "3.1.0", True)
    assert (went.good, went.bad, went.came) == ("3.2.0", "3.1.0", False)
    assert (went.older_verdict, went.newer_verdict) == ("same", "passes")


def test_only_what_lies_between_two_that_agree_is_assumed() -> None:
    names = [f"3.{minor}.0" for minor in range(6)]
    found: dict[str, Verdict] = {
        "3.0.0": "unsupported",
        "3.1.0": "same",
        "3.3.0": "same",
        "3.5.0": "passes",
    }
    assert assumed(names, found) == {"3.2.0": "same"}
