"""Choices among equal values: indices may point to either, and what hangs on them is either."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from comparing import Array, compare

from iree_pilot.pipeline.numerics.numerics import Comparison
from iree_pilot.pipeline.program import tensors
from iree_pilot.pipeline.program.program import (
    Indexed,
)


def pointed(
    directory: Path, values: Array, own: Array, got: Array, *, exact: bool = True, **more: Any
) -> Comparison:
    """An index output along the last axis of `values`, which has as many rows as the output."""
    dtype = more.pop("dtype", "f32")
    precise = more.pop("precise", None)
    values, own = np.asarray(values, np.float64), np.asarray(own)
    rows = np.arange(len(values))[:, None] * values.shape[-1] + 0 * own
    stored = tensors.save(values.astype(tensors.numpy_dtype(dtype)), directory, "values")
    indexed = Indexed(
        output=0,
        operation="aten.topk",
        values=stored,
        precise=None if precise is None else tensors.save(np.asarray(precise), directory, "wide"),
        rows=tensors.save(rows.astype(np.int64), directory, "rows"),
        exact=exact,
    )
    outputs = [("i64", own)]
    mlir = more.pop("mlir", "")
    return compare(directory, [("i64", got)], outputs, [own], indexed=(indexed,), mlir=mlir, **more)


TIED = [[0.0, 0.0, 5.0, 0.0], [1.0, np.nan, np.nan, 1.0]]


@pytest.mark.parametrize(
    ("got", "right"),
    [
        ([[2, 0], [1, 2]], True),
        ([[2, 3], [2, 1]], True),
        ([[2, 1], [1, 2]], True),
        ([[0, 2], [1, 2]], False),  # a smaller value first
        ([[2, 2], [1, 2]], False),  # one element twice
        ([[2, 0], [1, 1]], False),
        ([[2, 0], [1, 0]], False),  # a number where NaN is largest
        ([[2, 4], [1, 2]], False),  # beyond the row, where the next one begins
        ([[2, -1], [1, 2]], False),
    ],
)
def test_indices_are_right_where_they_point_to_equal_values(
    tmp_path: Path, got: Array, right: bool
) -> None:
    assert pointed(tmp_path, TIED, [[2, 0], [1, 2]], got).ok is right


def test_a_sort_names_each_element_once(tmp_path: Path) -> None:
    values, own = np.zeros((1, 5)), [[0, 1, 2, 3, 4]]
    assert pointed(tmp_path, values, own, [[4, 2, 0, 1, 3]]).ok
    assert pointed(tmp_path, values, own, [[0, 1, 2, 3, 3]]).verdict == "mismatch"
    assert pointed(tmp_path, values, [[0, 0, 2, 2, 2]], [[3, 3, 1, 1, 1]]).ok
    assert pointed(tmp_path, values, [[0, 0, 2, 2, 2]], [[3, 2, 1, 1, 1]]).verdict == "mismatch"


def test_integers_are_tied_where_they_are_equal(tmp_path: Path) -> None:
    values = np.array([[3, 3, 200, 7]])
    assert pointed(tmp_path, values, [[0, 1]], [[1, 0]], dtype="ui8").ok
    assert pointed(tmp_path, values, [[0, 1]], [[2, 1]], dtype="ui8").verdict == "mismatch"


def test_a_tie_of_rounding_is_judged_by_how_far_apart_the_values_are(tmp_path: Path) -> None:
    near, far = 1 + 2e-7, 1.001
    precise = np.array([[1.0, near, far, -1.0]])
    own = [[2, 1, 0, 3]]

    def compared(*got: int, exact: bool = False) -> bool:
        return pointed(tmp_path, precise, own, [[*got]], precise=precise, exact=exact).ok

    assert compared(2, 0, 1, 3)
    assert not compared(2, 0, 1, 3, exact=True)
    assert not compared(1, 2, 0, 3)


def test_what_hangs_on_a_tie_is_right_by_either_choice(tmp_path: Path) -> None:
    one, other = np.arange(12.0), np.arange(12.0)
    other[3:6] += 100
    third = one.copy()
    third[3:6] -= 50
    for dtype in ("f32", "i32"):
        pair = [(dtype, one)]

        def compared(
            got: Array, dtype: str = dtype, pair: list[tuple[str, Array]] = pair
        ) -> Comparison:
            return compare(tmp_path, [(dtype, got)], pair, [one], retied=([other], [other]))

        assert compared(one).ok and compared(other).ok
        unknown = compared(third)
        assert unknown.verdict == "not-compared"
        assert "3 of 12 elements depend on which of equal values aten.topk" in unknown.why
        assert compared(np.roll(one, 1)).verdict == "mismatch"
        spread = third.copy()
        spread[[0, 1, 2, 7, 8, 9, 10, 11]] += 3
        assert compared(spread).verdict == "mismatch"


def test_a_tie_that_hardly_changes_a_result_does_not_hide_what_is_wrong(tmp_path: Path) -> None:
    right = np.random.default_rng(0).standard_normal(256)
    retied = ([right * (1 + 3e-8)], [right * (1 - 3e-8)])

    def compared(got: Array) -> Comparison:
        return compare(tmp_path, [("f32", got)], [("f32", right)], [right], retied=retied)

    assert compared(right * (1 + 6e-8)).ok
    assert compared(np.sort(right)).verdict == "mismatch"
    assert compared(right * 1.05).verdict == "mismatch"
