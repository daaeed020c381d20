"""Numbers below the smallest normal one, which devices may take for zero, and what they reach."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from comparing import Array, compare

from iree_pilot.pipeline.numerics.numerics import Comparison

SMALLEST = 2.0**-126


@pytest.mark.parametrize("dtype", ["f32", "bf16"])
def test_numbers_too_small_to_be_normal_may_be_zero(tmp_path: Path, dtype: str) -> None:
    values = np.array([1e-39, -5e-39, 1.0, 3.0, 1e-30]) if dtype == "f32" else np.ones(5)
    if dtype == "bf16":
        values[:2] = 1e-39, -5e-39
    flushed = np.where(np.abs(values) < SMALLEST, 0.0, values)
    for got in (values, flushed):
        assert compare(tmp_path, [(dtype, got)], [(dtype, values)], [values]).ok
    lost = np.where(np.arange(5) == 3, 0.0, values)
    assert compare(tmp_path, [(dtype, lost)], [(dtype, values)], [values]).verdict == "mismatch"


def test_where_all_numbers_may_be_zero_nothing_is_compared(tmp_path: Path) -> None:
    values = np.linspace(1e-42, 1.1e-38, 12)
    for got in (values, np.zeros(12)):
        comparison = compare(tmp_path, [("f32", got)], [("f32", values)], [values])
        assert comparison.verdict == "not-compared"
    scalar = np.float64(1e-40)
    assert compare(tmp_path, [("f32", 0)], [("f32", scalar)], [scalar]).verdict == "not-compared"
    wrong = compare(tmp_path, [("f32", values + 1e-36)], [("f32", values)], [values])
    assert wrong.verdict == "mismatch"


def test_numbers_of_doubles_that_f32_does_not_hold_are_not_lost(tmp_path: Path) -> None:
    values = np.linspace(1e-60, 1e-50, 8)
    assert compare(tmp_path, [("f64", values)], [("f64", values)]).ok
    assert compare(tmp_path, [("f64", np.zeros(8))], [("f64", values)]).verdict == "mismatch"


def test_what_comes_of_a_number_that_is_flushed_may_be_either(tmp_path: Path) -> None:
    precise = np.array([-88.0, 2.0, 3.0, -101.0, 0.5, 7.0])
    flushed = np.array([-88.0, 2.0, 3.0, -np.inf, 0.0, 7.0])

    def compared(*got: float) -> Comparison:
        return compare(
            tmp_path, [("f32", np.array(got))], [("f32", precise)], [precise], flushed=[flushed]
        )

    assert compared(*precise).ok and compared(*flushed).ok
    assert compared(-88.0, 2.0, 3.0, -np.inf, 0.25, 7.0).ok
    assert compared(-88.0, 2.0, 3.0, np.nan, 0.5, 7.0).verdict == "mismatch"
    assert compared(-np.inf, 2.0, 3.0, -101.0, 0.5, 7.0).verdict == "mismatch"
    assert compared(-88.0, 2.0, 3.0, -101.0, 1.5, 7.0).verdict == "mismatch"
    assert compared(-88.0, 2.0, 3.0, -101.0, 0.5, 0.0).verdict == "mismatch"


def test_integers_and_booleans_that_come_of_a_number_that_is_flushed_may_be_either(
    tmp_path: Path,
) -> None:
    def compared(dtype: str, precise: Array, flushed: Array, got: Array) -> str:
        outputs = [(dtype, got)], [(dtype, precise)], [precise]
        return compare(tmp_path, *outputs, flushed=[flushed]).verdict

    positive = np.array([True, True, True, False]), np.array([False, False, True, False])
    for values in ([1, 1, 1, 0], [0, 0, 1, 0], [1, 0, 1, 0]):
        assert compared("i1", *positive, np.array(values, bool)) == "ok"
    for values in ([1, 1, 0, 0], [0, 0, 1, 1]):
        assert compared("i1", *positive, np.array(values, bool)) == "mismatch"
    counts = np.array([8, 8, 3]), np.array([0, 8, 3])
    for values in ([8, 8, 3], [0, 8, 3], [5, 8, 3]):
        assert compared("i64", *counts, np.array(values)) == "ok"
    for values in ([9, 8, 3], [-1, 8, 3], [8, 0, 3]):
        assert compared("i64", *counts, np.array(values)) == "mismatch"


@pytest.mark.parametrize(
    ("dtype", "precise", "flushed"),
    [
        ("i1", [True, True], [False, False]),
        ("i32", [3, 0], [0, 0]),
        ("f32", [0.005, 0.003], [0.0, 0.0]),
        ("f32", [-101.0, -100.0], [-np.inf, -np.inf]),
    ],
)
def test_an_output_that_depends_on_numbers_that_are_flushed_is_not_compared(
    tmp_path: Path, dtype: str, precise: list[Any], flushed: list[Any]
) -> None:
    right, other = np.array(precise), np.array(flushed)
    for got in (right, other):
        outputs = [(dtype, got)], [(dtype, right)], [right]
        judged = compare(tmp_path, *outputs, flushed=[other])
        assert judged.verdict == "not-compared"
        assert "depends on numbers below the smallest normal one" in judged.why
