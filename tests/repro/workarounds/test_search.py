"""The search for workarounds, over oracles that are made up."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace

import pytest
from fake.nights import result
from hypothesis import given
from hypothesis import strategies as st

from iree_pilot.pipeline.failures.diagnostics import Failure
from iree_pilot.pipeline.numerics.numerics import Comparison
from iree_pilot.repro.workarounds import combination_search, combination_trial, find_workarounds
from iree_pilot.repro.workarounds.candidate import Candidate, ordered
from iree_pilot.repro.workarounds.combination_search import (
    Combination,
    CombinationOutcome,
    SearchBounds,
    Tried,
)
from iree_pilot.repro.workarounds.search_progress import CombinationProgress, ProgressCounter
from iree_pilot.repro.workarounds.table import TABLE

FIRST = Failure(kind="crash", phase="stream", message="", signature="first")
SECOND = Failure(kind="mismatch", phase="compare", message="", signature="second")
SAME = CombinationOutcome(state="same", rank=7, failure=FIRST)
WORKS = CombinationOutcome(state="works", rank=99)
COMPARED = Comparison(
    verdict="ok",
    why="",
    output=0,
    max_abs=0.0,
    max_rel=0.0,
    rel_l2=0.0,
    tolerance=1e-5,
    nan=0,
    inf=0,
    outputs=(),
)


def candidate(name: str, **fields: object) -> Candidate:
    made = {"reason": "", "group": "host", "flags": (f"--{name}",)}
    return Candidate(name=name, **(made | fields))  # type: ignore[arg-type]


def candidates(count: int) -> list[Candidate]:
    return [candidate(f"c{i}") for i in range(count)]


def as_given(found: Sequence[Candidate], failure: Failure) -> Sequence[Candidate]:
    return found


class Oracle:
    """Answers by names; whatever is not told is the same failure."""

    def __init__(self, answers: dict[tuple[str, ...], CombinationOutcome]) -> None:
        self.answers = {frozenset(names): outcome for names, outcome in answers.items()}
        self.asked: list[tuple[str, ...]] = []
        self.width = 2

    def ask(self, combinations: Sequence[Combination]) -> list[CombinationOutcome]:
        names = [tuple(one.name for one in combination) for combination in combinations]
        self.asked += names
        return [self.answers.get(frozenset(one), SAME) for one in names]


def answers(tried: Sequence[Tried]) -> list[tuple[str, ...]]:
    return [
        tuple(c.name for c in one.candidates)
        for one in tried
        if one.outcome.state in combination_search.ANSWERS
    ]


class TestWhatACaseSays:
    """Whether a case that did not fail has got past the failure."""

    def outcome(self, status: str, wanted: Failure) -> combination_search.State:
        why = "" if status == "ok" else f"{status}: why"
        case = result(status=status, why=why, comparison=COMPARED if status == "ok" else None)
        return combination_trial.judge(case, wanted, ("flow", "stream")).state

    def test_a_failure_to_compile_is_got_past_whatever_comes_of_the_numbers(self) -> None:
        states = {status: self.outcome(status, FIRST) for status in ("ok", "ran", "compiled")}
        assert states == {"ok": "works", "ran": "runs", "compiled": "compiles"}

    def test_wrong_numbers_are_got_past_by_right_ones_only(self) -> None:
        states = {status: self.outcome(status, SECOND) for status in ("ok", "ran", "compiled")}
        assert states == {"ok": "works", "ran": "inconclusive", "compiled": "inconclusive"}
        assert "inconclusive" not in combination_search.ANSWERS


class TestSingles:
    @given(count=st.integers(1, 30), at=st.integers(0, 29), width=st.integers(1, 4))
    def test_one_that_works_is_found_before_any_pair(self, count: int, at: int, width: int) -> None:
        name = f"c{at % count}"
        oracle = Oracle({(name,): WORKS})
        tried = combination_search.search(
            candidates(count), oracle.ask, as_given, SearchBounds(width=width)
        )
        assert answers(tried) == [(name,)]
        assert max(len(names) for names in oracle.asked) == 1

    @given(
        working=st.sets(st.integers(0, 29), min_size=1),
        enough=st.integers(1, 5),
        width=st.integers(1, 4),
        patience=st.integers(1, 30),
    )
    def test_nothing_is_asked_twice_and_it_stops_when_there_is_enough(
        self, working: set[int], enough: int, width: int, patience: int
    ) -> None:
        oracle = Oracle({(f"c{i}",): WORKS for i in working})
        tried = combination_search.search(
            candidates(30),
            oracle.ask,
            as_given,
            SearchBounds(enough=enough, width=width, patience=patience),
        )
        assert len(oracle.asked) == len(set(oracle.asked)) == len(tried)
        assert 1 <= len(answers(tried)) <= min(len(working), enough + width - 1)
        last = max(i for i, one in enumerate(tried) if one.outcome.state == "works")
        assert len(tried) - last - 1 < patience + width

    def test_all_are_tried_where_all_answers_are_wanted(self) -> None:
        oracle = Oracle({("c0",): WORKS, ("c29",): WORKS})
        tried = combination_search.search(
            candidates(30), oracle.ask, as_given, SearchBounds(enough=None, patience=None, width=3)
        )
        assert answers(tried) == [("c0",), ("c29",)]
        assert len(tried) == 30

    def test_what_was_found_is_kept_when_the_time_is_over(self) -> None:
        oracle = Oracle({("c1",): WORKS})
        left = iter([False, False, False, True, True])
        tried = combination_search.search(
            candidates(30), oracle.ask, as_given, SearchBounds(expired=lambda: next(left, True))
        )
        assert answers(tried) == [("c1",)]
        assert len(tried) < 5


class TestPairs:
    @given(count=st.integers(3, 20), data=st.data())
    def test_the_next_obstacle_is_met_with_what_is_made_for_it(
        self, count: int, data: st.DataObject
    ) -> None:
        first, second = data.draw(
            st.lists(st.integers(0, count - 1), min_size=2, max_size=2, unique=True)
        )
        further = CombinationOutcome(state="further", rank=15, failure=SECOND)
        oracle = Oracle({(f"c{first}",): further, (f"c{first}", f"c{second}"): WORKS})

        def order(found: Sequence[Candidate], failure: Failure) -> list[Candidate]:
            assert failure == SECOND
            return sorted(found, key=lambda one: one.name != f"c{second}")

        tried = combination_search.search(candidates(count), oracle.ask, order)
        assert answers(tried) == [(f"c{first}", f"c{second}")]
        assert oracle.asked[count] == (f"c{first}", f"c{second}")

    @given(
        states=st.lists(
            st.sampled_from(
                ["further", "same", "other", "unresolved", "unsupported", "inapplicable"]
            ),
            max_size=40,
        ),
        most=st.integers(0, 30),
    )
    def test_their_number_is_bounded_and_none_is_made_of_what_cannot_be_tried(
        self, states: list[combination_search.State], most: int
    ) -> None:
        oracle = Oracle(
            {
                (f"c{i}",): CombinationOutcome(state=state, rank=i, failure=SECOND)
                for i, state in enumerate(states)
            }
        )
        tried = combination_search.search(
            candidates(len(states)), oracle.ask, as_given, SearchBounds(most_pairs=most, width=2)
        )
        pairs = [set(names) for names in oracle.asked if len(names) == 2]
        assert len(pairs) <= most
        assert len({frozenset(pair) for pair in pairs}) == len(pairs)
        able = {f"c{i}" for i, s in enumerate(states) if s in ("further", "same", "other")}
        assert all(pair <= able for pair in pairs)
        moved = {f"c{i}" for i, s in enumerate(states) if s in ("further", "other")}
        assert all(pair & moved for pair in pairs)
        assert answers(tried) == []

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            (candidate("a", flags=("--x=1",)), candidate("b", flags=("--x=2",))),
            (candidate("a", flags=(), arch="p"), candidate("b", flags=(), arch="q")),
            (candidate("a", fields={"k": "1"}), candidate("b", fields={"k": "2"})),
            (candidate("a", edit="fnuz"), candidate("b", edit="fnuz")),
        ],
    )
    def test_two_that_decide_the_same_thing_are_no_pair(
        self, one: Candidate, other: Candidate
    ) -> None:
        further = CombinationOutcome(state="further", rank=15, failure=SECOND)
        oracle = Oracle({("a",): further})
        combination_search.search([one, other], oracle.ask, as_given)
        assert oracle.asked == [("a",), ("b",)]


class TestOrder:
    def test_what_the_message_names_comes_first_then_what_is_made_for_it(self) -> None:
        failure = Failure(
            kind="diagnostic",
            phase="executable-targets",
            message="no; try --iree-spirv-index-bits=64",
            signature="diagnostic/iree_linalg_ext.online_attention/x",
        )
        names = [one.name for one in ordered(TABLE, failure)]
        assert names[0] == "iree-spirv-index-bits=64"
        assert names[1] == "attention as matmuls and softmax"

    def test_what_acts_later_is_not_tried_for_a_failure_at_the_beginning(self) -> None:
        failure = Failure(kind="crash", phase="input", message="", signature="x")
        found = ordered(TABLE, failure)
        assert found
        assert all(one.early for one in found)

    @given(st.sampled_from(["input", "stream", "executable-targets", "run", "compare"]))
    def test_nothing_is_lost_or_doubled(self, phase: str) -> None:
        failure = Failure(kind="crash", phase=phase, message="", signature="f16")
        names = [one.name for one in ordered(TABLE, failure)]
        able = {one.name for one in TABLE if one.early or phase != "input"}
        assert sorted(names) == sorted(able)


class TestRehearsal:
    def test_what_works_on_the_reproducer_comes_first_and_what_does_not_last(self) -> None:
        oracle = Oracle(
            {("c3",): WORKS, ("c1",): CombinationOutcome(state="further", failure=SECOND)}
        )
        field = candidate("--set k=v", flags=(), fields={"k": "v"})
        wanted = [*candidates(5), field]
        ordered = find_workarounds.rehearsed(wanted, oracle, lambda: False)
        names = [one.name for one in ordered]
        assert names == ["c3", "c1", "--set k=v", "c0", "c2", "c4"]
        assert sorted(oracle.asked) == [(f"c{i}",) for i in range(5)]


class CountedTrials(Oracle):
    """An oracle whose compiles are counted and whose outcomes are heard of."""

    def __init__(
        self, answers: dict[tuple[str, ...], CombinationOutcome], progress: ProgressCounter
    ) -> None:
        super().__init__(answers)
        self.compiles, self._progress = 0, progress

    def ask(self, combinations: Sequence[Combination]) -> list[CombinationOutcome]:
        outcomes = super().ask(combinations)
        self.compiles += len(combinations)
        for combination, outcome in zip(combinations, outcomes, strict=True):
            self._progress.add(combination, outcome)
        return outcomes


def test_each_round_has_its_own_count_and_all_compiles_are_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On the reproducer, on the program, in pairs, and again with more time."""
    heard: list[CombinationProgress] = []
    progress = ProgressCounter(heard.append)
    late = CombinationOutcome(state="unresolved", rank=7)
    further = CombinationOutcome(state="further", rank=8, failure=SECOND)
    small = CountedTrials({}, progress)
    trials = CountedTrials({("c1",): late, ("c0",): further}, progress)
    longer = CountedTrials({("c1",): WORKS}, progress)
    lookup = find_workarounds._Lookup.__new__(find_workarounds._Lookup)
    monkeypatch.setattr(find_workarounds, "wanted", lambda *_: candidates(3))
    monkeypatch.setattr(find_workarounds, "_known", lambda *_: "its reproducer")
    lookup.__dict__.update(
        _subject=None,
        _result=None,
        _options=SimpleNamespace(enough=3, seconds=None),
        _context=SimpleNamespace(toolchain=None, within=lambda name: None),
        _progress=progress,
        _width=1,
        _rehearsing=0,
        _trials=lambda *_: small,
    )
    tried = lookup._tried(trials, longer)  # type: ignore[arg-type]
    assert [(one.round, one.count, one.total) for one in heard] == [
        *(("reproducer", n, 3) for n in (1, 2, 3)),
        *(("program", n, 3) for n in (1, 2, 3)),
        ("pairs", 1, 24),
        ("longer", 1, 1),
    ]
    assert answers(tried) == [("c1",)]
    assert lookup._rehearsing == 3
