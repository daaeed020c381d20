"""The limits of a comparison: what is measured goes before what is only assumed; what a program's
text shows, and what roundings explain."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from comparing import QUANTIZING, Array, compare

from iree_pilot.pipeline.numerics import noise
from iree_pilot.pipeline.numerics.noise import Noise, Spread
from iree_pilot.pipeline.numerics.numerics import Comparison

BY_8_BITS = Noise(computes="f32", quantizes="f8E4M3FN")


def limits(moved: Spread | None, own_error: float | None = 1e-7) -> noise.NoiseLimits:
    return noise.limits("f32", 4096, BY_8_BITS, own_error, 1e-7, moved)


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


@pytest.mark.parametrize(
    ("line", "computes", "quantizes"),
    [
        (
            "%0 = torch.aten.relu %a : !torch.vtensor<[4],f32> -> !torch.vtensor<[4],f32>",
            "f32",
            None,
        ),
        ("%0 = arith.mulf %a, %b : tensor<4xf64>", "f64", None),
        ("%0 = arith.addf %a, %b : tensor<4x?xbf16>", "bf16", None),
        ("%0 = util.global.load @w : tensor<4x8xf8E4M3FN>", "f32", None),
        (
            "%0 = torch.prims.convert_element_type %w, %int6 : !torch.vtensor<[4],f8E4M3FN>, "
            "!torch.int -> !torch.vtensor<[4],f32>",
            "f32",
            None,
        ),
        (QUANTIZING, "f32", "f8E4M3FN"),
        (QUANTIZING.replace("%0,", "%arg0,"), "f32", None),
        ("%5 = arith.truncf %4 : tensor<4xf16> to tensor<4xf8E5M2FNUZ>", "f16", "f8E5M2FNUZ"),
        ("%5 = arith.truncf %4 : f32 to f8E4M3FNUZ", "f32", "f8E4M3FNUZ"),
        ("// a file named half_f16_model.py", "f32", None),
    ],
)
def test_a_programs_text_shows_what_it_rounds_to(
    tmp_path: Path, line: str, computes: str, quantizes: str | None
) -> None:
    mlir = tmp_path / "p.mlir"
    mlir.write_text(f"module {{\n  {line}\n}}\n")
    assert noise.scan(mlir) == Noise(computes=computes, quantizes=quantizes)


def test_what_roundings_before_it_explain_is_not_compared(tmp_path: Path) -> None:
    right = np.array([0.0, 1.0, 2.0, 3.0])
    moved = ([np.array([6e-8, 1.0, 2.0, 3.0])], [np.array([-2e-8, 1.0, 2.0, 3.0])])

    def compared(*got: float) -> Comparison:
        outputs = [("f32", np.array(got))], [("f32", right)], [right]
        return compare(tmp_path, *outputs, jittered=moved)

    assert compared(*right).ok
    # Within what 1 alone may be off by.
    assert compared(1e-7, 1.0, 2.0, 3.0).ok
    assert compared(1e-3, 1.0, 2.0, 3.0).verdict == "mismatch"
    assert compared(0.0, 1.1, 2.0, 3.0).verdict == "mismatch"


def test_a_row_that_hardly_varies_is_not_compared_and_another_still_accused(
    tmp_path: Path,
) -> None:
    chance = np.random.default_rng(0)
    right = np.concatenate([np.zeros((4, 64)), chance.standard_normal((2, 64))])
    noise_ = np.concatenate([np.ones((4, 64)), np.full((2, 64), 1e-7)])
    moved = tuple([right + noise_ * chance.standard_normal(right.shape)] for _ in range(3))
    other = right + noise_ * chance.standard_normal(right.shape)

    def compared(got: Array) -> Comparison:
        return compare(tmp_path, [("f32", got)], [("f32", right)], [right], jittered=moved)

    judged = compared(other)
    assert judged.verdict == "not-compared"
    assert "roundings before it explain it" in judged.why
    lost = np.where(np.arange(6)[:, None] == 5, 0.0, other)
    assert compared(lost).verdict == "mismatch"
