"""The verdict on numbers, type by type, and what it tells."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import msgspec
import numpy as np
import pytest
from comparing import Array, compare

from iree_pilot.pipeline.numerics import numerics
from iree_pilot.pipeline.numerics.numerics import Comparison
from iree_pilot.pipeline.program import tensors

# 8-bit floats.


@pytest.mark.parametrize("dtype", ["f8E4M3FN", "f8E4M3FNUZ"])
def test_values_below_the_smallest_normal_that_are_flushed_to_zero_are_found(
    tmp_path: Path, dtype: str
) -> None:
    narrow = tensors.numpy_dtype(dtype)
    normal = float(ml_dtypes.finfo(narrow).smallest_normal)
    values = np.concatenate([np.random.default_rng(0).normal(size=400), [normal * 0.99] * 3])
    got = values.astype(narrow).astype(np.float64)
    argument = (
        "%0 = torch.aten.to.dtype %arg0 : !torch.vtensor<[4],f32> -> !torch.vtensor<[4],f8E5M2>"
    )
    given_ = ([(dtype, values.astype(narrow).astype(float))], [values])
    assert compare(tmp_path, [(dtype, got)], *given_, mlir=argument).ok
    got[-3:] = 0
    flushed = compare(tmp_path, [(dtype, got)], *given_, mlir=argument)
    assert flushed.outputs[0].mismatched == 3


def test_saturation_where_pytorch_overflows_to_nan_is_found(tmp_path: Path) -> None:
    values = np.array([1.0, 2.0, 1000.0, -3.0, 500.0])
    torch = np.where(np.abs(values) > 464, np.nan, values)
    saturated = np.clip(values, -448, 448)
    same = compare(tmp_path, [("f8E4M3FN", torch)], [("f8E4M3FN", torch)], [torch])
    assert same.ok and (same.nan, same.outputs[0].reference_nan) == (2, 2)
    wrong = compare(tmp_path, [("f8E4M3FN", saturated)], [("f8E4M3FN", torch)], [torch])
    assert wrong.verdict == "mismatch" and wrong.outputs[0].mismatched == 2


def test_a_value_flipped_to_its_neighbour_by_another_last_bit_passes(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=64)
    narrow = values.astype(ml_dtypes.float8_e4m3fn)
    flipped = narrow.view(np.uint8).copy()
    flipped[[3, 40]] += 1
    got = flipped.view(ml_dtypes.float8_e4m3fn)
    assert compare(tmp_path, [("f8E4M3FN", got)], [("f8E4M3FN", narrow)], [values]).ok


# NaN and Inf.


def test_nan_and_inf_pass_where_the_reference_has_them_and_are_counted(tmp_path: Path) -> None:
    values = np.array([1.0, np.nan, np.inf, -np.inf, 5.0])
    comparison = compare(tmp_path, [("f32", values)], [("f32", values)], [values])
    assert comparison.ok and (comparison.nan, comparison.inf) == (1, 2)
    for index, wrong in ((0, np.nan), (1, 2.0), (2, -np.inf), (3, 1e30), (2, np.nan)):
        got = values.copy()
        got[index] = wrong
        spoilt = compare(tmp_path, [("f32", got)], [("f32", values)], [values])
        assert spoilt.verdict == "mismatch", index
        assert "NaN, Inf or finite where the reference is not" in spoilt.why
        assert spoilt.outputs[0].worst is not None
        assert spoilt.outputs[0].worst.index == (index,)


def test_a_finite_result_is_right_where_only_pytorchs_own_type_overflows(tmp_path: Path) -> None:
    precise = np.array([1.0, 2.0, 3.0])
    torch = np.array([1.0, np.nan, 3.0])
    assert compare(tmp_path, [("f16", precise)], [("f16", torch)], [precise]).ok
    assert compare(tmp_path, [("f16", torch)], [("f16", torch)], [precise]).ok
    assert not compare(tmp_path, [("f16", precise * 2)], [("f16", torch)], [precise]).ok


# Integers and booleans.


@pytest.mark.parametrize(
    ("dtype", "values"),
    [
        ("i64", [2**62, -1, 7]),
        ("ui8", [0, 255, 148]),
        ("i8", [-128, 127, 0]),
        ("i1", [True, False, True]),
    ],
)
def test_integers_and_booleans_are_exact(tmp_path: Path, dtype: str, values: list[int]) -> None:
    assert compare(tmp_path, [(dtype, values)], [(dtype, values)]).ok
    got = [*values[:2], values[2] ^ 1]
    comparison = compare(tmp_path, [(dtype, got)], [(dtype, values)])
    assert comparison.verdict == "mismatch"
    assert comparison.outputs[0].mismatched == 1 and comparison.tolerance == 0
    assert "1 of 3 elements differ, worst [2]:" in comparison.why


def test_integers_too_large_for_a_double_are_still_told_apart(tmp_path: Path) -> None:
    comparison = compare(tmp_path, [("i64", [2**62 + 1])], [("i64", [2**62])])
    assert comparison.verdict == "mismatch"


def test_an_index_that_pytorch_gets_otherwise_in_double_precision_may_be_either(
    tmp_path: Path,
) -> None:
    for got, ok in (([3, 5], True), ([3, 6], True), ([3, 7], False), ([4, 6], False)):
        comparison = compare(tmp_path, [("i64", got)], [("i64", [3, 5])], [np.array([3, 6])])
        assert comparison.ok is ok, got


# What is compared at all.


def test_another_shape_dtype_or_number_of_outputs_is_a_mismatch(tmp_path: Path) -> None:
    torch = [("f32", np.arange(6.0).reshape(2, 3))]
    turned = compare(tmp_path, [("f32", np.arange(6.0).reshape(3, 2))], torch)
    assert "it is 3x2xf32 where 2x3xf32 is expected" in turned.why
    halved = compare(tmp_path, [("f16", np.arange(6.0).reshape(2, 3))], torch)
    assert "it is 2x3xf16 where 2x3xf32 is expected" in halved.why
    assert not halved.outputs[0].compared
    twice = compare(tmp_path, torch * 2, torch)
    assert twice.verdict == "mismatch" and "2 outputs" in twice.why
    assert numerics.to_failure(twice).kind == "mismatch"


def test_the_worst_element_of_f64_has_all_its_digits(tmp_path: Path) -> None:
    values = np.array([1.0, 2.0, 1 / 3, 4.0])
    got = values + np.array([0, 0, 1e-10, 0])
    worst = compare(tmp_path, [("f64", got)], [("f64", values)], [values]).outputs[0].worst
    assert worst is not None
    assert (float(worst.got), float(worst.expected)) == (got[2], values[2])


def test_an_output_is_called_by_its_path(tmp_path: Path) -> None:
    values = np.arange(6.0)
    alone = compare(tmp_path, [("f32", values + 1)], [("f32", values)])
    assert alone.why.startswith("output 0 (y0, 6): ")
    named = compare(tmp_path, [("f32", values + 1)], [("f32", values)], path="logits")
    assert named.why.startswith("output 0 (logits, 6): ")
    assert (named.outputs[0].name, named.outputs[0].path) == ("y0", "logits")
    assert numerics.to_failure(named).signature == numerics.to_failure(alone).signature


def test_complex_numbers_are_compared_by_their_parts(tmp_path: Path) -> None:
    values = np.array([[1 + 2j, 3 - 1j, 0.5j], [4, 5, 6 + 1j]])
    assert compare(tmp_path, [("complex<f32>", values)], [("complex<f32>", values)]).ok
    wrong = compare(tmp_path, [("complex<f32>", values.conj())], [("complex<f32>", values)])
    assert wrong.outputs[0].worst is not None and wrong.outputs[0].worst.index == (0, 0)
    assert wrong.outputs[0].mismatched == 4


def test_without_a_precise_reference_half_of_the_digits_must_agree(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(40, 40))
    for dtype, near, far in (("f32", 1e-5, 1e-2), ("bf16", 1e-2, 0.3), ("f64", 1e-10, 1e-6)):
        torch = [(dtype, values)]
        mlir = f"tensor<4x{dtype}>"
        ok = compare(tmp_path, [(dtype, values * (1 + near))], torch, mlir=mlir)
        assert ok.ok and ok.outputs[0].reference_error is None
        assert f"half the digits of {dtype}" in ok.outputs[0].basis
        assert not compare(tmp_path, [(dtype, values * (1 + far))], torch, mlir=mlir).ok


def test_a_reference_no_wider_than_the_output_does_not_count_as_precise(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=40)
    comparison = compare(tmp_path, [("f64", values)], [("f64", values)], [values])
    assert comparison.outputs[0].reference_error is None


# What becomes of the verdict.


def test_the_figures_on_top_are_those_of_the_worst_output(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(3, 40))
    got = values.copy()
    got[1] *= 1.5
    outputs = [("f32", v) for v in values]
    comparison = compare(tmp_path, [("f32", g) for g in got], outputs, list(values))
    assert comparison.output == 1
    assert comparison.rel_l2 == pytest.approx(0.5) == comparison.outputs[1].rel_l2
    assert [o.ok for o in comparison.outputs] == [True, False, True]
    again = msgspec.json.decode(msgspec.json.encode(comparison), type=Comparison)
    assert again == comparison


def test_one_bug_has_one_signature_whatever_the_shapes(tmp_path: Path) -> None:
    def failure(size: int, got: Callable[[Array], Array]) -> str:
        values = np.random.default_rng(size).normal(size=size)
        comparison = compare(tmp_path, [("f32", got(values))], [("f32", values)], [values])
        failed = numerics.to_failure(comparison)
        assert failed.kind == "mismatch" and failed.message == comparison.why
        return failed.signature

    assert failure(7, lambda v: v * 2) == failure(90, lambda v: -v)
    assert failure(7, lambda v: v * np.nan) != failure(7, lambda v: v * 2)


# No limit is wider than what can be told from anything else.


def test_a_reference_that_is_far_off_itself_cannot_judge(tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    precise = chance.normal(size=200)
    torch = precise + 0.3 * chance.normal(size=200)

    def compared(error: float) -> Comparison:
        got = precise + error * chance.normal(size=200)
        return compare(tmp_path, [("f32", got)], [("f32", torch)], [precise])

    assert compared(0.01).ok
    for error in (0.15, 0.5, 1.0):
        comparison = compared(error)
        assert comparison.verdict == "not-compared", error
        assert "the reference cannot judge" in comparison.why
    assert compared(5.0).verdict == "mismatch"
    assert compared(0.5).tolerance == 0.1


def test_a_lost_value_does_not_pass_where_pytorch_loses_one(tmp_path: Path) -> None:
    precise = np.random.default_rng(0).normal(size=4000)
    torch, got = precise.copy(), precise.copy()
    torch[7] += 0.4
    got[100] = 0
    assert compare(tmp_path, [("f32", got)], [("f32", torch)], [precise]).verdict != "ok"


# An expectation beside what an evaluator computes.


def test_an_expectation_is_wrong_where_an_evaluator_computes_what_the_device_gives(
    tmp_path: Path,
) -> None:
    wanted, other = np.array([1.0, 2.0, 54.7]), np.array([1.0, 2.0, 54.598])

    def compared(got: Array, evaluated: Array) -> Comparison:
        return compare(
            tmp_path,
            [("f32", got), ("f32", got)],
            [("f32", wanted), ("f32", evaluated)],
            computed=evaluated,
        )

    refuted = compared(other, other)
    assert refuted.differs and refuted.refuted == "numpy"
    assert refuted.why.endswith("the device agrees with numpy: the expectation is wrong")
    assert numerics.to_failure(refuted).signature.startswith("mismatch/expectation/")
    wrong = compared(np.array([1.0, 2.5, 54.598]), other)
    assert wrong.differs and not wrong.refuted
    assert numerics.to_failure(wrong).signature.startswith("mismatch/values/")
    assert compared(wanted, wanted).ok
