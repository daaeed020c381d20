"""A change that lasts is found, soon and once; noise, however it is distributed, hardly ever."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from profiles import examples

from iree_pilot.pipeline.nightly.judgement.baseline import Rule, shifts, suspected

NOISY = Rule(least=0.1, nights=3)
EXACT = Rule(least=0.02)


def noise(spread: float, *, least: int = 0, most: int = 60) -> st.SearchStrategy[list[float]]:
    """Factors within `spread` of 1."""
    return st.lists(st.floats(1 - spread, 1 + spread), min_size=least, max_size=most)


class TestNoise:
    @given(noise(0.045), st.floats(1e-6, 1e6))
    def test_noise_below_the_least_change_is_never_told(
        self, factors: list[float], level: float
    ) -> None:
        values = [level * factor for factor in factors]
        assert shifts(values, NOISY) == []
        assert not suspected(values, NOISY)

    @pytest.mark.parametrize(
        "draw",
        [
            lambda chance: chance.gauss(1, 0.1),
            lambda chance: chance.gauss(1, 0.2),
            lambda chance: chance.lognormvariate(0, 0.2),
            lambda chance: chance.gauss(1, 0.05) * (2 if chance.random() < 0.05 else 1),
        ],
        ids=["a tenth", "a fifth", "skewed", "every 20th night twice as slow"],
    )
    def test_false_alarms_are_rare(self, draw: Callable[[random.Random], float]) -> None:
        """After 20 nights: fewer than 1 in 1,000 nights; 40,000 nights are drawn."""
        chance = random.Random(5)
        series = [[draw(chance) for _ in range(100)] for _ in range(500)]
        alarms = [s for values in series for s in shifts(values, NOISY) if s.up and s.found >= 20]
        assert len(alarms) < 40

    @given(noise(0.03, least=1), st.floats(1.5, 100), st.integers(0, 60))
    def test_two_noisy_nights_are_not_told(
        self, factors: list[float], spike: float, place: int
    ) -> None:
        values = [*factors[:place], spike, spike * 1.01, *factors[place:]]
        assert not any(s.up for s in shifts(values, NOISY) if place > 0)


class TestSteps:
    @settings(max_examples=examples(2))
    @given(noise(0.03, least=10), noise(0.03, least=3), st.floats(1.3, 50))
    def test_a_step_of_30_percent_is_found_in_the_third_night_and_once(
        self, before: list[float], after: list[float], step: float
    ) -> None:
        (found,) = shifts([*before, *(step * factor for factor in after)], NOISY)
        assert found.up
        assert (found.start, found.found) == (len(before), len(before) + 2)
        assert found.values == len(before)
        assert 0.97 <= found.before <= 1.03
        assert 0.97 * step <= found.after <= 1.03 * step

    @given(noise(0.03, least=10), noise(0.03, least=3), st.floats(0.02, 0.7))
    def test_a_step_down_is_found_too(
        self, before: list[float], after: list[float], step: float
    ) -> None:
        (found,) = shifts([*before, *(step * factor for factor in after)], NOISY)
        assert not found.up

    def test_under_normal_noise_it_takes_hardly_longer(self) -> None:
        chance = random.Random(3)
        nights = []
        for _ in range(300):
            before = [chance.gauss(1, 0.05) for _ in range(20)]
            after = [chance.gauss(1.3, 0.065) for _ in range(10)]
            ups = [s for s in shifts([*before, *after], NOISY) if s.up]
            nights.append(ups[0].found - 19 if ups else 99)
        assert sum(n <= 3 for n in nights) > 0.7 * 300
        assert sum(n <= 6 for n in nights) > 0.95 * 300

    def test_where_noise_is_large_more_nights_tell_what_three_cannot(self) -> None:
        chance = random.Random(4)
        found = 0
        for _ in range(300):
            before = [chance.gauss(1, 0.08) for _ in range(30)]
            after = [chance.gauss(1.3, 0.1) for _ in range(12)]
            found += any(s.up for s in shifts([*before, *after], NOISY))
        assert found > 0.9 * 300

    @given(st.lists(st.integers(1, 3), min_size=1, max_size=5))
    def test_each_further_step_is_told_against_the_one_before(self, steps: list[int]) -> None:
        levels = [1.0]
        for step in steps:
            levels.append(levels[-1] * (1 + step))
        values = [level for level in levels for _ in range(12)]
        found = shifts(values, NOISY)
        assert [(s.before, s.after) for s in found] == list(itertools.pairwise(levels))

    def test_a_step_after_few_nights_must_be_larger(self) -> None:
        assert shifts([1.0] * 3 + [1.2] * 3, NOISY) == []
        assert len(shifts([1.0] * 3 + [2.0] * 3, NOISY)) == 1

    @given(st.lists(st.floats(0.1, 10), max_size=5))
    def test_nothing_is_told_from_fewer_values_than_show_the_noise(
        self, values: list[float]
    ) -> None:
        assert shifts(values, NOISY) == []

    def test_what_is_too_small_to_matter_is_not_told(self) -> None:
        values = [1e-6] * 10 + [5e-6] * 10
        assert len(shifts(values, NOISY)) == 1
        assert shifts(values, Rule(least=0.1, floor=1e-5, nights=3)) == []


class TestExact:
    def test_one_night_is_enough_and_it_is_told_once(self) -> None:
        (found,) = shifts([100, 100, 100, 103, 103, 103], EXACT)
        assert (found.before, found.after, found.start, found.found) == (100, 103, 3, 3)

    def test_the_second_night_of_all_can_tell(self) -> None:
        assert len(shifts([100, 103], EXACT)) == 1

    def test_less_than_the_least_is_not_told_until_it_adds_up(self) -> None:
        assert shifts([100, 101, 100, 101], EXACT) == []
        creeping = shifts([100 * 1.01**night for night in range(30)], EXACT)
        assert creeping
        assert all(s.up for s in creeping)

    def test_from_nothing_to_something_is_a_change(self) -> None:
        assert len(shifts([0, 0, 5], EXACT)) == 1
        assert shifts([0, 0, 0], EXACT) == []

    def test_it_is_never_suspected_but_told(self) -> None:
        assert not suspected([100, 100, 103], EXACT)


class TestSuspicion:
    def test_the_first_nights_of_a_step_are_suspected_and_then_told(self) -> None:
        values = [1.0] * 10 + [1.4] * 4
        assert [suspected(values[:n], NOISY) for n in (10, 11, 12)] == [False, True, True]
        assert [s.found for s in shifts(values, NOISY)] == [12]
        assert not suspected(values[:13], NOISY), "it is told now"
        assert not suspected(values, NOISY)

    def test_a_spike_is_suspected_only_until_the_next_value(self) -> None:
        assert suspected([1.0] * 10 + [1.4], NOISY)
        assert not suspected([1.0] * 10 + [1.4, 1.0], NOISY)

    def test_getting_faster_is_no_suspicion(self) -> None:
        assert not suspected([1.0] * 10 + [0.5], NOISY)

    def test_few_values_tell_nothing(self) -> None:
        assert not suspected([], NOISY)
        assert not suspected([1.0], NOISY)
        assert not suspected([1.0, 1.0, 2.0], NOISY)
        assert suspected([1.0, 1.0, 1.0, 2.0], NOISY)
