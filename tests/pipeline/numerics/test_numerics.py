"""The verdict on numbers: right results pass whatever their rounding, wrong ones do not."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from profiles import examples

from iree_pilot.pipeline.numerics import blind, noise, numerics
from iree_pilot.pipeline.numerics.noise import Noise
from iree_pilot.pipeline.numerics.numerics import Comparison
from iree_pilot.pipeline.program import tensors
from iree_pilot.pipeline.program.program import (
    Call,
    Function,
    Indexed,
    Program,
    Reference,
    Tensor,
    TensorType,
)

Array = Any


# Programs, evaluated as PyTorch, a compiler and a careful person would.


class Evaluation:
    """One way to compute: in which precision, rounded when, summed in which order.

    how: "precise" computes in float64. "torch" rounds to `dtype` after each operation. "order"
    sums in another order and approximates exp, tanh and rsqrt; "fused" also rounds at the end only.
    quantized: matrix products take their operands in this 8-bit float.
    """

    def __init__(self, how: str, dtype: str, quantized: str | None, seed: int) -> None:
        self.how, self.dtype, self.quantized = how, dtype, quantized
        self.wide = np.float64 if how == "precise" else np.float32
        self.chance = np.random.default_rng(seed)

    def round(self, x: Array) -> Array:
        if self.how == "precise":
            return x
        if self.dtype == "f32" or self.how == "fused":
            return x.astype(np.float32)
        return x.astype(tensors.numpy_dtype(self.dtype)).astype(np.float32)

    def quantize(self, x: Array, scale: float) -> Array:
        if self.quantized is None:
            return x
        narrow = np.clip(x / self.wide(scale), -448, 448).astype(
            tensors.numpy_dtype(self.quantized)
        )
        return self.round(narrow.astype(self.wide) * self.wide(scale))

    def sum(self, x: Array) -> Array:
        if self.how in ("precise", "torch"):
            return self.round(x.sum(-1, keepdims=True))
        return self.round(np.cumsum(x, axis=-1, dtype=np.float32)[..., -1:])

    def product(self, a: Array, b: Array) -> Array:
        a, b = self.quantize(a, 0.02), self.quantize(b, 0.005)
        if self.how in ("precise", "torch"):
            return self.round(a @ b)
        order = self.chance.permutation(a.shape[-1])
        result = np.zeros((a.shape[0], b.shape[1]), np.float32)
        for part in np.array_split(order, max(1, len(order) // 8)):
            result += a[:, part] @ b[part]
        return self.round(result)

    def approximate(self, y: Array) -> Array:
        if self.how in ("order", "fused"):
            y = y * (1 + self.chance.uniform(-3e-7, 3e-7, y.shape).astype(np.float32))
        return self.round(y.astype(self.wide))

    def softmax(self, x: Array) -> Array:
        powers = self.approximate(np.exp(self.round(x - x.max(-1, keepdims=True))))
        return self.round(powers / self.sum(powers))

    def norm(self, x: Array) -> Array:
        mean = self.round(self.sum(self.round(x * x)) / self.wide(x.shape[-1]))
        return self.round(x * self.approximate(1 / np.sqrt(mean + self.wide(1e-6))))

    def gelu(self, x: Array) -> Array:
        inner = self.round(
            self.wide(0.7978845608) * self.round(x + self.wide(0.044715) * x * x * x)
        )
        return self.round(self.wide(0.5) * x * (1 + self.approximate(np.tanh(inner))))


def layers(e: Evaluation, x: Array, *weights: Array) -> Array:
    for w in weights:
        x = e.gelu(e.product(x, w))
    return x


def transformer(e: Evaluation, x: Array, *weights: Array) -> Array:
    for w in weights:
        h = e.norm(x)
        scores = e.round(e.product(e.product(h, w), h.T) / e.wide(math.sqrt(x.shape[1])))
        x = e.round(x + e.product(e.softmax(scores), e.product(h, w)))
        x = e.round(x + e.gelu(e.product(e.norm(x), w)))
    return e.norm(x)


def loss(e: Evaluation, x: Array, *weights: Array) -> Array:
    return e.sum(e.round(np.log(e.softmax(e.product(x, weights[0])) + e.wide(1e-9)))).mean(0)


PROGRAMS: dict[str, Callable[..., Array]] = {
    "layers": layers,
    "transformer": transformer,
    "loss": loss,
    "norm": lambda e, x, *_: e.norm(x),
    "softmax": lambda e, x, *_: e.softmax(x),
    "sum": lambda e, x, *_: e.sum(x),
    "product": lambda e, x, *w: e.product(x, w[0]),
}


class Results(msgspec.Struct, frozen=True):
    dtype: str
    noise: Noise
    precise: Array
    torch: Array
    others: tuple[Array, ...]


def evaluate(
    name: str, rows: int, width: int, depth: int, dtype: str, quantized: str | None, seed: int
) -> Results:
    chance = np.random.default_rng(seed)
    narrow = tensors.numpy_dtype(dtype)
    x = chance.normal(size=(rows, width)).astype(narrow)
    weights = [
        (chance.normal(size=(width, width)) / math.sqrt(width)).astype(narrow) for _ in range(depth)
    ]

    def run(how: str) -> Array:
        e = Evaluation(how, dtype, quantized, seed)
        return PROGRAMS[name](e, x.astype(e.wide), *(w.astype(e.wide) for w in weights))

    with np.errstate(all="ignore"):
        return Results(
            dtype,
            Noise(computes=dtype, quantizes=quantized),
            run("precise"),
            run("torch"),
            (run("order"), run("fused")),
        )


# Comparing arrays.


def compare(
    directory: Path,
    got: list[tuple[str, Array]],
    torch: list[tuple[str, Array]],
    precise: list[Array] | None = None,
    *,
    mlir: str = "",
    inputs: tuple[int, ...] = (4,),
    incomparable: tuple[str, ...] = (),
    flushed: list[Array] | None = None,
    retied: tuple[list[Array], ...] = (),
    indexed: tuple[Indexed, ...] = (),
    jittered: tuple[list[Array], ...] = (),
    stated: bool = False,
    computed: Array | None = None,
    path: str = "",
) -> Comparison:
    """Compares outputs as (dtype, values); precise values are float64, or as they are."""

    def store(name: str, dtype: str, values: Array) -> Tensor:
        values = np.asarray(values)
        dense = values.astype(tensors.numpy_dtype(dtype))
        (directory / name).write_bytes(dense.tobytes())
        return Tensor(dtype=dtype, shape=values.shape, file=name)

    def wide(dtype: str) -> str:
        return "f64" if dtype in noise.UNIT else dtype

    def again(name: str, values: list[Array] | None) -> tuple[Tensor, ...]:
        pairs = zip(torch, values or [], strict=values is not None)
        return tuple(store(f"{name}{i}", wide(d), v) for i, ((d, _), v) in enumerate(pairs))

    reference = Reference(
        outputs=tuple(store(f"t{i}", d, v) for i, (d, v) in enumerate(torch)),
        precise=again("p", precise),
        flushed=again("f", flushed),
        retied=tuple(again(f"r{n}-", values) for n, values in enumerate(retied)),
        jittered=tuple(again(f"j{n}-", values) for n, values in enumerate(jittered)),
        ties=("aten.topk",) if retied else (),
        indexed=indexed,
        precise_dtype="f64" if precise is not None else None,
        incomparable=incomparable,
        stated=stated,
        computed=None
        if computed is None
        else Reference(
            outputs=tuple(store(f"c{i}", d, computed) for i, (d, _) in enumerate(torch)),
            evaluator="numpy",
        ),
    )
    function = Function(
        name="main",
        inputs=(TensorType(name="x", dtype="f32", shape=inputs),),
        outputs=tuple(
            TensorType(name=f"y{i}", dtype=d, shape=(), path=path) for i, (d, _) in enumerate(torch)
        ),
        example=(Tensor(dtype="f32", shape=inputs, file="x"),),
        reference=reference,
    )
    (directory / "program.mlir").write_text(mlir)
    program = Program(source="net.py", digest="", functions=(function,), parameters=None, origin={})
    outputs = tuple(store(f"g{i}", d, v) for i, (d, v) in enumerate(got))
    call = Call(program=program, directory=directory, function=function)
    return numerics.compare(outputs, call, outputs_directory=directory)


QUANTIZING = (
    "%1 = torch.prims.convert_element_type %0, %int24 : !torch.vtensor<[4,4],f32>, !torch.int"
    " -> !torch.vtensor<[4,4],f8E4M3FN>\n"
)


def text(noise_: Noise) -> str:
    """A program's text that shows this noise."""
    return (QUANTIZING if noise_.quantizes else "") + f"tensor<4x{noise_.computes}>"


def judge(directory: Path, results: Results, got: Array) -> Comparison:
    return compare(
        directory,
        [(results.dtype, got)],
        [(results.dtype, results.torch)],
        [results.precise],
        mlir=text(results.noise),
    )


dtypes = st.sampled_from(["f32", "f16", "bf16"])
fixed = settings(
    max_examples=examples(1.5),
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@fixed
@given(
    name=st.sampled_from(list(PROGRAMS)),
    rows=st.integers(1, 40),
    width=st.integers(16, 200),
    depth=st.integers(1, 3),
    dtype=dtypes,
    quantized=st.sampled_from([None, None, "f8E4M3FN"]),
    seed=st.integers(0, 2**16),
)
def test_right_results_pass_in_whatever_order_and_precision_they_are_computed(
    tmp_path: Path,
    name: str,
    rows: int,
    width: int,
    depth: int,
    dtype: str,
    quantized: str | None,
    seed: int,
) -> None:
    results = evaluate(name, rows, width, depth, dtype, quantized, seed)
    for got in (*results.others, results.torch):
        comparison = judge(tmp_path, results, got)
        assert comparison.ok, comparison.why


def one_element(values: Array, at: int) -> Array:
    values.flat[at % values.size] += 2 * values.std()
    return values


def one_row(values: Array, at: int) -> Array:
    values[at % len(values)] = values[(at + 1) % len(values)]
    return values


def swapped_tiles(values: Array, _at: int) -> Array:
    values[:, :8], values[:, 8:16] = values[:, 8:16].copy(), values[:, :8].copy()
    return values


def shifted(values: Array, _at: int) -> Array:
    return np.roll(values, 1, axis=1)


def dropped_tile(values: Array, at: int) -> Array:
    values[at % len(values), -8:] = 0
    return values


def not_a_number(values: Array, at: int) -> Array:
    values.flat[at % values.size] = math.nan
    return values


def infinite(values: Array, at: int) -> Array:
    values.flat[at % values.size] = math.inf
    return values


@pytest.mark.parametrize(
    "spoil",
    [one_element, one_row, swapped_tiles, shifted, dropped_tile, not_a_number, infinite],
)
@settings(fixed, max_examples=examples(0.25))
@given(
    name=st.sampled_from(["layers", "transformer", "norm", "product"]),
    rows=st.integers(2, 40),
    width=st.integers(16, 120),
    dtype=dtypes,
    quantized=st.sampled_from([None, "f8E4M3FN"]),
    at=st.integers(0, 2**12),
    seed=st.integers(0, 2**16),
)
def test_planted_errors_are_found_in_results_that_are_otherwise_right(
    tmp_path: Path,
    spoil: Callable[[Array, int], Array],
    name: str,
    rows: int,
    width: int,
    dtype: str,
    quantized: str | None,
    at: int,
    seed: int,
) -> None:
    if spoil is dropped_tile:
        quantized = None  # zeros for small numbers drown in the noise of 8-bit floats
    results = evaluate(name, rows, width, 1, dtype, quantized, seed)
    comparison = judge(tmp_path, results, spoil(results.others[0].copy(), at))
    assert comparison.verdict == "mismatch"
    assert comparison.outputs[0].worst is not None


@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16"])
def test_a_mask_that_is_off_by_one_is_found(tmp_path: Path, dtype: str) -> None:
    def attend(how: str, seen: int) -> Array:
        e = Evaluation(how, dtype, None, 0)
        chance = np.random.default_rng(1)
        q, k, v = (
            chance.normal(size=(48, 32)).astype(tensors.numpy_dtype(dtype)).astype(e.wide)
            for _ in range(3)
        )
        mask = np.triu(np.full((48, 48), -1e4), seen).astype(e.wide)
        return e.product(e.softmax(e.round(e.product(q, k.T) / e.wide(6) + mask)), v)

    precise, torch, right, wrong = (
        attend(how, seen)
        for how, seen in (("precise", 1), ("torch", 1), ("order", 1), ("order", 2))
    )
    results = Results(dtype, Noise(computes=dtype), precise, torch, (right,))
    assert judge(tmp_path, results, right).ok
    assert judge(tmp_path, results, wrong).verdict == "mismatch"


# One wrong element among many.


def test_one_wrong_element_among_a_million_is_found_and_placed(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(1024, 1024))
    got = values.astype(np.float32)
    got[700, 31] += 0.01
    comparison = compare(tmp_path, [("f32", got)], [("f32", values)], [values], mlir=text(Noise()))
    output = comparison.outputs[0]
    assert output.rel_l2 < 2e-5 and output.mismatched == 1
    assert output.worst is not None and output.worst.index == (700, 31)
    assert f"output 0 (y0, 1024x1024): 1 of {1024 * 1024} elements are wrong" in comparison.why


def test_the_verdict_does_not_depend_on_the_pieces_that_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = evaluate("layers", 9, 30, 2, "bf16", None, 5)
    wrong = one_element(results.others[0].copy(), 100)
    whole = [judge(tmp_path, results, got) for got in (results.others[0], wrong)]
    monkeypatch.setattr(tensors, "PIECE", 37)
    pieces = [judge(tmp_path, results, got) for got in (results.others[0], wrong)]
    for a, b in zip(whole, pieces, strict=True):
        assert (a.verdict, a.why, a.max_rel) == (b.verdict, b.why, b.max_rel)
        assert a.rel_l2 == pytest.approx(b.rel_l2)


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


# References that tell nothing.


def test_a_reference_that_is_the_same_everywhere_proves_nothing(tmp_path: Path) -> None:
    for constant in (np.zeros(8), np.ones((2, 3)), np.full(5, np.nan)):
        comparison = compare(tmp_path, [("f32", constant)], [("f32", constant)], [constant])
        assert comparison.verdict == "not-compared" and not comparison.differs
        assert comparison.why.startswith("agrees exactly, but the reference ")
        assert "initialise the model's weights, or give other inputs" in comparison.why
    wrong = compare(tmp_path, [("f32", np.full(8, 0.1))], [("f32", np.zeros(8))], [np.zeros(8)])
    assert wrong.verdict == "mismatch"


def test_weights_of_the_users_files_are_not_told_to_be_initialised(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(np.full(4, np.nan, "f").tobytes())
    outputs = [Tensor(dtype="f32", shape=(4,), file="a.bin")]
    (own,) = blind.reasons(outputs, tmp_path)
    (files,) = blind.reasons(outputs, tmp_path, loaded=True)
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


# What a program's text shows.


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


# What depends on random numbers.


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


# Below the smallest normal number.

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


# What is left of values that cancel.


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


# Choices among equal values.


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
