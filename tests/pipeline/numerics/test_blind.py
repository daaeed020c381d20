"""References in which wrong numbers would not show: constants, and what hangs on random numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from comparing import Array, compare

from iree_pilot.pipeline.numerics import blind, numerics
from iree_pilot.pipeline.numerics.numerics import Comparison
from iree_pilot.pipeline.program.program import (
    Tensor,
)


def test_a_reference_that_is_the_same_everywhere_proves_nothing(tmp_path: Path) -> None:
    for constant in (np.zeros(8), np.ones((2, 3)), np.full(5, np.nan)):
        comparison = compare(tmp_path, [("f32", constant)], [("f32", constant)], [constant])
        assert comparison.verdict == "not-compared" and not comparison.differs
        assert comparison.why.startswith("agrees exactly, but the reference ")
        assert comparison.why.endswith(": give other inputs"), "there are no weights"
    wrong = compare(tmp_path, [("f32", np.full(8, 0.1))], [("f32", np.zeros(8))], [np.zeros(8)])
    assert wrong.verdict == "mismatch"


def test_only_weights_that_were_drawn_are_told_to_be_initialised(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(np.full(4, np.nan, "f").tobytes())
    outputs = [Tensor(dtype="f32", shape=(4,), file="a.bin")]
    (own,) = blind.reasons(outputs, tmp_path, drawn=True)
    (files,) = blind.reasons(outputs, tmp_path)
    assert own.endswith(": initialise the model's weights, or give other inputs")
    assert files == "the reference has no finite number: give other inputs"


def test_a_constant_output_beside_one_that_tells_something_is_accepted(tmp_path: Path) -> None:
    for other in (("f32", np.arange(8.0)), ("i64", np.ones(3, int)), ("f32", np.float64(2.5))):
        pair = [("f32", np.ones(8)), other]
        assert compare(tmp_path, pair, pair).ok, other


def test_an_all_zero_output_is_accepted_beside_one_that_tells_something(tmp_path: Path) -> None:
    values = np.arange(8.0)
    pair = [("f32", np.zeros(8)), ("f32", values)]
    assert compare(tmp_path, pair, pair).ok
    wrong = compare(tmp_path, [("f32", np.zeros(8)), ("f32", values[::-1])], pair)
    assert wrong.verdict == "mismatch" and wrong.output == 1
    lost = compare(tmp_path, [("f32", np.ones(8)), ("f32", values)], pair)
    assert lost.verdict == "mismatch" and lost.output == 0
    zeros = [("f32", np.zeros(8)), ("i64", np.zeros(3, int)), ("f32", np.float64(0))]
    nothing = compare(tmp_path, zeros, zeros)
    assert {o.verdict for o in nothing.outputs} == {"not-compared"}


def test_what_is_nearly_a_constant_reference_agrees_within_the_tolerance(tmp_path: Path) -> None:
    near = compare(tmp_path, [("f32", np.full(8, 1e-9))], [("f32", np.zeros(8))], [np.zeros(8)])
    assert near.verdict == "not-compared"
    assert near.why.startswith("agrees within the tolerance, but the reference is all zero")


def test_a_constant_is_compared_where_nothing_was_put_in(tmp_path: Path) -> None:
    pair = [("f32", np.zeros(5)), ("f32", np.zeros((0, 5)))]
    assert compare(tmp_path, pair, pair, [v for _, v in pair], inputs=(0, 5)).ok
    assert compare(tmp_path, pair, pair, inputs=(3, 5)).verdict == "not-compared"


def test_outputs_without_elements_prove_nothing_by_themselves(tmp_path: Path) -> None:
    empty = ("f32", np.zeros((0, 5)))
    for inputs in ((3, 5), (0, 5)):
        nothing = compare(tmp_path, [empty], [empty], inputs=inputs)
        assert nothing.verdict == "not-compared"
        assert nothing.why == "agrees exactly, but the reference has no elements: give other inputs"
    beside = [empty, ("f32", np.arange(5.0))]
    assert compare(tmp_path, beside, beside, inputs=(3, 5)).ok


@pytest.mark.parametrize(
    ("dtype", "value", "proves"),
    [
        ("f32", 0.0, False),
        ("f32", float("nan"), False),
        ("f32", float("inf"), False),
        ("f32", 2.5, True),
        ("i64", 0, False),
        ("i64", 3, True),
        ("i1", False, False),
        ("i1", True, True),
    ],
)
def test_a_single_number_proves_something_unless_anything_would_give_it(
    tmp_path: Path, dtype: str, value: float, proves: bool
) -> None:
    types = {"f32": np.float32, "i64": np.int64, "i1": np.bool_}
    one = (dtype, np.array(value, types[dtype]))
    for shape in ((), (1,), (1, 1)):
        pair = [(dtype, one[1].reshape(shape))]
        assert compare(tmp_path, pair, pair).ok == proves
    beside = [one, ("f32", np.arange(4, dtype=np.float32))]
    assert compare(tmp_path, beside, beside).ok


def test_what_returns_nothing_was_not_compared(tmp_path: Path) -> None:
    compared = compare(tmp_path, [], [])
    assert (compared.verdict, compared.why) == (
        "not-compared",
        "it returns nothing that could be compared",
    )


def test_integers_and_booleans_of_zeros_prove_nothing_either(tmp_path: Path) -> None:
    zeros = [("i1", np.zeros(8, bool)), ("i64", np.zeros(3, int))]
    for pair in (zeros, zeros[:1], zeros[1:]):
        assert compare(tmp_path, pair, pair).verdict == "not-compared"
    for told in (("i1", np.ones(8, bool)), ("i64", np.full(3, 7)), ("i64", np.array(1))):
        assert compare(tmp_path, [told], [told]).ok


def test_what_somebody_says_has_to_come_out_may_be_one_number(tmp_path: Path) -> None:
    six = [("f32", np.full(4, 6.0))]
    assert compare(tmp_path, six, six).verdict == "not-compared"
    assert compare(tmp_path, six, six, stated=True).ok
    assert compare(tmp_path, [("f32", np.full(4, 5.0))], six, stated=True).differs
    tiny = [("f32", np.array([1.1e-38, -1.1e-38]))]
    zeros = [("f32", np.zeros(2))]
    said = compare(tmp_path, zeros, tiny, stated=True)
    assert said.verdict == "not-compared" and "below the smallest normal number" in said.why
    assert compare(tmp_path, zeros, zeros, stated=True).ok


def test_of_an_output_that_depends_on_random_numbers_only_the_type_is_judged(
    tmp_path: Path,
) -> None:
    right, other = np.arange(6.0), np.arange(6.0)[::-1]
    pair = [("f32", right), ("f32", right)]
    reasons = ("", "it draws random numbers: aten.randn_like")

    def compared(first: Array, second: Array, dtype: str = "f32") -> Comparison:
        got = [("f32", first), (dtype, second)]
        return compare(tmp_path, got, pair, [right, right], incomparable=reasons)

    noisy = compared(right, other)
    assert noisy.verdict == "not-compared"
    assert "output 1 (y1, 6): it draws random numbers: aten.randn_like" in noisy.why
    assert [o.verdict for o in noisy.outputs] == ["ok", "not-compared"]
    assert compared(other, other).verdict == "mismatch"
    assert compared(right, other, dtype="f16").verdict == "mismatch"


def test_a_constant_output_beside_random_numbers_is_not_compared_either(tmp_path: Path) -> None:
    constant, noisy = np.zeros(6), np.arange(6.0)
    pair = [("f32", constant), ("f32", noisy)]
    comparison = compare(
        tmp_path, pair, pair, [constant, noisy], incomparable=("", "it draws random numbers")
    )
    assert [o.verdict for o in comparison.outputs] == ["not-compared"] * 2


def test_what_hides_wrong_numbers_is_told_from_what_tells_nothing(tmp_path: Path) -> None:
    varied, zeros = np.arange(6.0), np.zeros(6)

    def compared(values: Array, why: str) -> Comparison:
        pair = [("f32", values)]
        return compare(tmp_path, pair, pair, [values], incomparable=(why,))

    noisy = compared(varied, "it draws random numbers: aten.rand")
    assert numerics.hides(noisy) and noisy.verdict == "not-compared"
    failure = numerics.hidden(noisy)
    assert failure.kind == "mismatch" and failure.signature.split("/")[1] == numerics.HIDDEN
    assert "aten.rand" in failure.message
    assert not numerics.hides(compared(zeros, "")) and not numerics.hides(compared(varied, ""))
