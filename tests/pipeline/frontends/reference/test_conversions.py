"""Floats that become integers or answers: what a rounding tips, what PyTorch leaves undefined."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from traced_functions import Function  # noqa: E402

from iree_pilot.pipeline.frontends.reference import reference  # noqa: E402
from iree_pilot.pipeline.frontends.reference.choices import Choices  # noqa: E402
from iree_pilot.pipeline.frontends.reference.conversions import UNDEFINED  # noqa: E402
from iree_pilot.pipeline.numerics import judging  # noqa: E402
from iree_pilot.pipeline.numerics.noise import Noise  # noqa: E402
from iree_pilot.pipeline.numerics.pairs import Pair  # noqa: E402
from iree_pilot.pipeline.program import torch_tensors  # noqa: E402
from iree_pilot.pipeline.program.program import Reference, TensorType  # noqa: E402

pytestmark = [
    pytest.mark.real,
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),  # torch's own
]
INF = torch.inf


def graph(function: Callable[..., Any], *args: Any) -> tuple[Any, reference.Evaluate]:
    program = torch.export.export(Function(function), args).run_decompositions({})
    return program, reference.graph(program, args, {})


def undefined(function: Callable[..., Any], *args: Any) -> list[str]:
    return reference.undefined(*graph(function, *args))


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        (INF, torch.int64),
        (-INF, torch.int32),
        (torch.nan, torch.int32),
        (1e20, torch.int64),
        (2.0**63, torch.int64),
        (2.0**31, torch.int32),
        (128.0, torch.int8),
        (-1.0, torch.uint8),
        (256.5, torch.uint8),
    ],
)
def test_a_float_that_the_type_cannot_hold_is_undefined(value: float, dtype: Any) -> None:
    x = torch.tensor([0.5, value])
    assert undefined(lambda x: (x.to(dtype), x + 1), x) == [UNDEFINED, ""]


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        (-(2.0**63), torch.int64),
        (127.9, torch.int8),
        (-128.9, torch.int8),
        (255.9, torch.uint8),
        (-0.9, torch.uint8),
        (INF, torch.bool),
    ],
)
def test_one_that_it_holds_truncated_is_not(value: float, dtype: Any) -> None:
    assert undefined(lambda x: x.to(dtype), torch.tensor([0.5, value])) == []


def test_only_what_depends_on_it_is_undefined() -> None:
    def buckets(x: Any) -> Any:  # as T5 has it: the logarithm of 0 is not taken
        large = torch.log(x).to(torch.int64)
        return torch.where(x < 1, x.to(torch.int64), large), large.clamp(0, 3)

    x = torch.tensor([0.0, 1.0, 20.0])
    assert undefined(buckets, x) == ["", UNDEFINED]


def test_an_index_that_may_lead_out_of_a_tensor_makes_all_undefined() -> None:
    def function(x: Any) -> Any:
        return torch.arange(4)[(x / 0).to(torch.int64).clamp(min=0)], x * 2

    assert undefined(function, torch.tensor([-1.0, -2.0])) == [UNDEFINED, UNDEFINED]


def judged(directory: Path, function: Callable[..., Any], off: Callable[[Any], Any], x: Any) -> str:
    """The verdict on a result that is `off` from PyTorch's own."""
    _, evaluate = graph(function, x)
    choices = Choices()
    own = evaluate(None, choices)
    files = torch_tensors.TensorFiles(directory, "")
    made = Reference(outputs=files.save(own.outputs, "out"))
    made = reference.with_precise(made, evaluate, files, own.points, choices)
    got = torch_tensors.save(off(own.outputs[0]), directory, "got.bin")
    pair = Pair(directory, got, directory, made, 0)
    kind = TensorType(name="result0", dtype=got.dtype, shape=got.shape)
    return judging.judge(pair, kind, Noise(), made).verdict


#: Of 1.1 times these the first is 3 but for a rounding.
X = torch.tensor([3.0, 3.5, 4.25, -7.3]) / 1.1
TIPPED: list[Callable[[Any], Any]] = [
    lambda x: (x * 1.1).to(torch.int32),
    lambda x: torch.floor(x * 1.1).to(torch.int64),
    lambda x: torch.round(x * 1.1 + 0.1).to(torch.int8),
    lambda x: (x * 1.1).ceil().to(torch.int32),
]


FIRST = torch.tensor([0])


def tip(at: int, by: int) -> Callable[[Any], Any]:
    def off(values: Any) -> Any:
        changed = values.clone()
        changed[at] += by
        return changed

    return off


@pytest.mark.parametrize("function", TIPPED[:2])
@pytest.mark.parametrize("value", [2, 3])
def test_what_a_rounding_tips_is_right_either_way(
    tmp_path: Path, function: Any, value: int
) -> None:
    assert judged(tmp_path, function, lambda own: own.index_fill(0, FIRST, value), X) == "ok"


@pytest.mark.parametrize("function", TIPPED)
@pytest.mark.parametrize("at", [1, 2])
def test_what_no_rounding_tips_is_wrong(tmp_path: Path, function: Any, at: int) -> None:
    assert judged(tmp_path, function, tip(at, 1), X) == "mismatch"
    assert judged(tmp_path, function, tip(at, -1), X) == "mismatch"


@pytest.mark.parametrize("function", TIPPED)
def test_a_tip_is_by_one(tmp_path: Path, function: Any) -> None:
    assert judged(tmp_path, function, tip(0, 2), X) == "mismatch"


def test_whole_numbers_are_not_tipped(tmp_path: Path) -> None:
    x = torch.arange(8.0)
    for by in (-1, 1):
        off = tip(3, by)
        assert judged(tmp_path, lambda x: (x * 2).to(torch.int32), off, x) == "mismatch"
        assert judged(tmp_path, lambda x: x.floor().to(torch.int32), off, x) == "mismatch"


def test_answers_are_tipped_where_two_numbers_are_nearly_equal(tmp_path: Path) -> None:
    x = torch.tensor([0.5, 0.30000001, 0.1])
    for at, verdict in ((0, "mismatch"), (1, "ok"), (2, "mismatch")):

        def off(values: Any, at: int = at) -> Any:
            changed = values.clone()
            changed[at] = ~changed[at]
            return changed

        assert judged(tmp_path, lambda x: x * 1.0 > 0.3, off, x) == verdict


def test_numbers_beyond_the_digits_of_their_type_may_be_off_by_its_rounding(tmp_path: Path) -> None:
    x = torch.tensor([0.0525, 0.11])
    step = int(np.spacing(np.float32(5.25e17)))
    assert judged(tmp_path, lambda x: (x * 1e19).to(torch.int64), tip(0, step), x) == "ok"
    assert judged(tmp_path, lambda x: (x * 1e19).to(torch.int64), tip(0, 999 * step), x) == (
        "mismatch"
    )


@pytest.mark.parametrize("by", [-1, 1])
def test_what_is_given_is_not_moved(tmp_path: Path, by: int) -> None:
    """However large it is: no device rounds it."""
    x = torch.tensor([16777216.0, 16777218.0, 1.0e9, 1.5])
    assert judged(tmp_path, lambda x: x.to(torch.int64), tip(0, by), x) == "mismatch"
    assert judged(tmp_path, lambda x: x.to(torch.int64) * 3 + 1, tip(1, by), x) == "mismatch"


def test_a_large_element_does_not_move_the_others(tmp_path: Path) -> None:
    x = torch.tensor([1.0e9, 1.5, 2.5, 3.5])
    for at in (1, 2, 3):
        assert judged(tmp_path, lambda x: (x * 1.1).to(torch.int64), tip(at, 1), x) == "mismatch"


def test_another_type_elsewhere_does_not_move_it(tmp_path: Path) -> None:
    half = torch.tensor([1.0, 2.0]).bfloat16()

    def function(x: Any) -> Any:
        return (torch.sin(x) * 1e6).to(torch.int32), half + x[:2]

    x = torch.tensor([0.3, 0.7, 1.1, 1.3])
    assert judged(tmp_path, function, tip(2, 20), x) == "mismatch"


def test_whole_numbers_as_floats_are_tipped_too(tmp_path: Path) -> None:
    def function(x: Any) -> Any:
        return torch.floor(torch.exp(torch.log(x)) * 7.0)

    x = torch.tensor([2.9999998, 3.5, 4.25])
    for value in (20.0, 21.0):
        assert (
            judged(tmp_path, function, lambda own, v=value: own.index_fill(0, FIRST, v), x) == "ok"
        )
    assert judged(tmp_path, function, tip(1, 1), x) == "mismatch"
