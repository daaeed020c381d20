"""The limits of a comparison: what is measured goes before what is only assumed."""

from __future__ import annotations

import pytest

from iree_pilot.pipeline.numerics import noise
from iree_pilot.pipeline.numerics.noise import Noise, Spread

QUANTIZING = Noise(computes="f32", quantizes="f8E4M3FN")


def limits(moved: Spread | None, own_error: float | None = 1e-7) -> noise.NoiseLimits:
    return noise.limits("f32", 4096, QUANTIZING, own_error, 1e-7, moved)


class TestSteps:
    """Another implementation may round each step of a sum to the program's type."""

    @pytest.mark.parametrize("dtype", ["f16", "bf16"])
    def test_some_roundings_of_a_narrow_type_are_allowed_in_each_element(self, dtype: str) -> None:
        step = noise.unit(dtype)
        limits = noise.limits(dtype, 10**6, Noise(computes=dtype), 0.4 * step, 0.0)
        assert 5 * step < limits.excess < 10 * step
        assert 2 * step < limits.rel_l2 < 5 * step

    def test_a_narrow_type_counts_where_pytorchs_own_error_shows_it(self) -> None:
        """An output in f32 beside others that a program computes in bf16."""
        beside = noise.limits("f32", 10**6, Noise(computes="bf16"), 1e-7, 0.0)
        reached = noise.limits("f32", 10**6, Noise(computes="bf16"), 1e-3, 0.0)
        assert beside.rel_l2 < 1e-4 and reached.rel_l2 > 2 * noise.unit("bf16")

    def test_f32_is_judged_as_closely_as_ever(self) -> None:
        assert noise.limits("f32", 10**6, Noise(), 1e-8, 0.0).excess < 5e-5

    def test_pytorchs_own_error_counts_where_it_is_larger(self) -> None:
        assert noise.limits("f16", 10**6, Noise(computes="f16"), 1e-3, 0.1).excess > 0.4


class TestRoundingTo8Bits:
    def test_without_a_measurement_one_rounding_is_allowed(self) -> None:
        assert limits(None).rel_l2 > noise.unit("f8E4M3FN")

    def test_a_program_that_a_perturbation_hardly_moves_is_judged_closely(self) -> None:
        close = limits(Spread(rel_l2=1e-3, excess=0.05))
        assert 2e-3 < close.rel_l2 < 2.1e-3
        assert 0.1 < close.excess < 0.11

    def test_a_program_that_a_perturbation_moves_far_may_lie_as_far(self) -> None:
        assert limits(Spread(rel_l2=0.05, excess=0.3)).rel_l2 > 0.1

    def test_pytorchs_own_error_counts_where_it_is_larger(self) -> None:
        assert limits(Spread(rel_l2=1e-9, excess=1e-9), own_error=0.1).rel_l2 > 0.4

    def test_what_the_limit_rests_on_is_told(self) -> None:
        assert "perturbation" in limits(Spread(rel_l2=1e-3, excess=0.05)).basis
        assert "f8E4M3FN" in limits(None).basis
