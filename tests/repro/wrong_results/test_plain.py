"""The few elements that matter: what is left is still wrong, in a bounded number of runs."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from iree_pilot.repro.wrong_results.plain_values import Choice, plain

SIZES = st.lists(st.integers(0, 200), min_size=1, max_size=4)


class Device:
    """Wrong as long as these elements keep their values; counts what it is asked."""

    def __init__(self, needed: set[tuple[int, int]], *, ones: Sequence[int] = ()) -> None:
        self.needed, self.ones = needed, ones
        self.batches: list[int] = []

    def wrong(self, choice: Choice) -> bool:
        left = {(number, e) for number, kept in enumerate(choice) for e in kept.elements}
        return self.needed <= left and all(choice[n].fill != 0 for n in self.ones)

    def ask(self, choices: Sequence[Choice]) -> list[bool]:
        self.batches.append(len(choices))
        return [self.wrong(choice) for choice in choices]


@given(SIZES, st.data())
def test_what_is_left_is_still_wrong_and_the_runs_are_bounded(
    sizes: list[int], data: st.DataObject
) -> None:
    elements = [(n, e) for n, size in enumerate(sizes) for e in range(size)]
    needed = data.draw(st.sets(st.sampled_from(elements), max_size=6)) if elements else set()
    device = Device(needed)
    choice = plain(sizes, device.ask)
    assert device.wrong(choice)
    assert len(device.batches) <= 12 and sum(device.batches) <= 128


@given(st.integers(1, 4096), st.data())
def test_one_element_of_many_is_found(size: int, data: st.DataObject) -> None:
    needed = data.draw(st.integers(0, size - 1))
    choice = plain([size], Device({(0, needed)}).ask)
    assert len(choice[0].elements) <= 1


def test_inputs_that_do_not_matter_become_zero_at_once() -> None:
    device = Device({(1, 3)})
    choice = plain([64, 4, 64, 64], device.ask)
    assert [kept.elements for kept in choice] == [(), (3,), (), ()]
    assert [choice[n].fill for n in (0, 2, 3)] == [0, 0, 0]


def test_an_input_that_may_not_be_zero_becomes_one() -> None:
    choice = plain([8, 8], Device({(0, 2)}, ones=[1]).ask)
    assert (choice[1].elements, choice[1].fill) == ((), 1)
    assert choice[0].elements == (2,)
