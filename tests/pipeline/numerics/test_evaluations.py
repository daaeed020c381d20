"""Right results pass in whatever order and precision they are computed; planted errors do not."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
from comparing import Array, compare, text
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from profiles import examples

from iree_pilot.pipeline.numerics.noise import Noise
from iree_pilot.pipeline.numerics.numerics import Comparison
from iree_pilot.pipeline.program import tensors


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


@pytest.mark.slow
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


@pytest.mark.slow
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
