"""How far a result is off where its elements are of very different sizes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from iree_pilot.pipeline.numerics.deviations import Piece, measured

STEP = 2.0**-24


def piece(got: Any, expected: Any, own: Any = None) -> Piece:
    got, expected = np.asarray(got, float), np.asarray(expected, float)
    own = expected if own is None else np.asarray(own, float)
    none = np.zeros(got.shape)
    alike = np.ones(got.shape, bool)
    return Piece(0, got, own, expected, alike, none, np.abs(own - expected), None, ~alike)


def measure(*pieces: Piece, dtype: str = "f32") -> tuple[float, float]:
    """(the norm of the error relative to that of what is expected, the scale of an element)"""

    def read() -> Iterator[Piece]:
        yield from pieces

    sums, extremes = measured(read, dtype)
    return sums.relative(sums.error), extremes.root


@pytest.mark.parametrize("fill", [-1e9, -3.4e38, 1e6])
@pytest.mark.parametrize("masked", [1, 100, 5000])
def test_the_fill_of_a_mask_is_no_measure_of_what_stands_beside_it(
    fill: float, masked: int
) -> None:
    right = np.random.default_rng(0).normal(size=1000)
    wrong = np.random.default_rng(1).normal(size=1000)
    fills = np.full(masked, fill)
    error, scale = measure(piece(fills, fills), piece(wrong, right))
    assert error > 1 and scale == pytest.approx(1, rel=0.1)


def test_what_underflows_beside_others_is_no_measure() -> None:
    large = np.array([2.5, -0.16, 1.0])
    error, scale = measure(piece([*large, 0.0], [*large, -3e-12]), dtype="f16")
    assert error < 1e-6 and scale == pytest.approx(2.0**-14)
    error, _ = measure(piece([*large, 3e-5], [*large, 1e-5]), dtype="f16")
    assert error > 0.1, "what is wrong stays so"
    error, _ = measure(piece([*large, 0.0], [*large, -3e-12]), dtype="f32")
    assert error == 1


def test_what_is_large_and_rounded_is_the_measure_of_what_is_left() -> None:
    large = np.array([1e6, -1e6, 1e6])
    noise = large * (1 + 400 * STEP)
    error, scale = measure(piece([*noise, 1.0], [*large, 1.1]))
    assert scale > 5e5 and error < 1e-4
    _, scale = measure(piece([*large, 1.0], [*large, 1.1], own=[*noise, 1.1]))
    assert scale > 5e5, "PyTorch's own are as far off"


def test_three_sizes_and_numbers_of_one_size() -> None:
    sizes = [1e12, 1e6, 1.0]
    assert measure(piece(sizes, sizes))[1] == 1.0
    near = np.linspace(1, 200, 50)
    assert measure(piece(near, near))[1] == pytest.approx(math.sqrt(np.square(near).mean()))
    zeros = [0.0, 0.0, 5.0]
    assert measure(piece(zeros, zeros))[1] == pytest.approx(5 / math.sqrt(3))
