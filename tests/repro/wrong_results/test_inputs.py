"""What inputs a program with wrong numbers is handed on with, where the fault comes and goes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from iree_pilot.pipeline.numerics.judging import OutputComparison
from iree_pilot.pipeline.numerics.numerics import Comparison
from iree_pilot.pipeline.program.program import Function, Tensor
from iree_pilot.repro.oracles.oracle import NotAProgram
from iree_pilot.repro.wrong_results import inputs
from iree_pilot.repro.wrong_results.plain_values import Choice, Kept

WRONG = Comparison(
    verdict="mismatch", why="", output=None, max_abs=0.0, max_rel=0.0, rel_l2=0.0, tolerance=0.0,
    nan=0, inf=0, outputs=(),
)  # fmt: skip


class Judged:
    comparison = WRONG
    outputs = ()

    def __init__(self, wrong: bool) -> None:
        self.failure = "a mismatch" if wrong else None
        self.why = "" if wrong else "nothing to compare"


class Call:
    function = Function(name="main", inputs=(), outputs=())
    inputs = (Tensor(dtype="f32", shape=(2,), file="given.bin"),)


class Fickle(inputs._Settling):
    """Wrong or right as it is told, one run after the other."""

    def __init__(self, runs: Sequence[bool]) -> None:
        self._call: Any = Call()
        self._given = [np.array([3.0, 4.0], np.float32)]
        self._runs = iter(runs)
        self._wanted = set()
        self.tried: list[Choice] = []

    def _ask(self, choices: Sequence[Choice]) -> list[bool]:
        return [True for _ in choices]

    def _tried(self, choices: Sequence[Choice]) -> list[Any]:
        self.tried += choices
        return [(self._call, Judged(next(self._runs))) for _ in choices]

    def _loaded(self, call: Any) -> Any:
        return None


@pytest.fixture(autouse=True)
def unseen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "_shown", lambda n, tensor: "")


@pytest.mark.parametrize(
    ("dtype", "basis", "told"),
    [
        (
            "f32",
            "the reference's own error 2.5e-08",
            "the relative L2 error of the whole output, norm(given - expected) / norm(expected), "
            "is 0.312; at most 1e-06 is allowed, derived from the reference's own error 2.5e-08",
        ),
        ("i32", "integers and booleans are exact", "none is allowed: integers and booleans are"),
    ],
)
def test_the_tolerance_is_told_with_what_is_measured(dtype: str, basis: str, told: str) -> None:
    output = OutputComparison(
        index=0,
        name="result0",
        dtype=dtype,
        shape=(4,),
        verdict="mismatch",
        rel_l2=0.3123,
        tolerance=1e-6,
        basis=basis,
    )
    assert inputs.limit(output).startswith(told)


def test_plain_inputs_are_taken_where_they_are_wrong_once_more() -> None:
    made = Fickle([True, True])
    assert made.run().kept == 0


@pytest.mark.parametrize(
    ("elements", "kept", "fills", "told"),
    [
        (12, 0, (0,), ("Reproduces with all 12 input elements set to 0.",)),
        (12, 0, (0, 1), ("Reproduces with all 12 input elements set to 0 or 1.",)),
        (12, 2, (1,), ("Reproduces with 10 of 12 input elements set to 1.",)),
        (1, 0, (0,), ("Reproduces with its one input set to 0.",)),
        (2, 2, (), ()),
    ],
)
def test_the_values_of_plain_inputs_are_told(
    elements: int, kept: int, fills: tuple[int, ...], told: tuple[str, ...]
) -> None:
    settled = inputs.Settled(
        function="main",
        inputs=(),
        expected=(),
        wrong=(),
        kept=kept,
        elements=elements,
        fills=fills,
    )
    assert settled.remarks == told


def test_the_inputs_it_came_with_are_taken_where_plain_ones_are_wrong_no_more() -> None:
    made = Fickle([True, False, False, True])
    assert made.run().kept == 2
    first, plain, *again = made.tried
    assert plain != first
    assert again == [first, first]


def test_what_is_never_wrong_again_is_not_handed_on() -> None:
    with pytest.raises(NotAProgram, match="nothing to compare"):
        Fickle([True, *[False] * 6]).run()


def test_right_indices_of_equal_values_are_not_among_the_wrong_ones() -> None:
    got, right = np.array([0, 1, 2]), np.array([2, 0, 1])
    told = inputs._worst(got, right, np.array([True, False, True]))
    assert [one.index for one in told] == [(0,), (2,)]
    assert inputs._ties(np.array([[0.0, 3.0, 0.0]]))
    assert not inputs._ties(np.array([[0.0], [0.0]]))


def test_what_keeps_all_its_elements_has_no_other_values() -> None:
    choice = (Kept((0, 1), 1), Kept((2,), 0), Kept((0,)))
    assert inputs._fills(choice, [2, 3, 1]) == (0,)
