"""The user's inputs choose the function that they fit, and come in the form that it takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from iree_pilot.pipeline.errors import UsageError
from iree_pilot.pipeline.frontends.inputs import examples, fitting
from iree_pilot.pipeline.program import tensors
from iree_pilot.pipeline.program.program import Dim, Function, TensorType


def function(name: str, *inputs: TensorType) -> Function:
    return Function(name=name, inputs=inputs, outputs=())


X = TensorType(name="x", dtype="i64", shape=(1, Dim(symbol="n")))
CACHE = TensorType(name="cache", dtype="f32", shape=(Dim(symbol="m"), 8))
STEP = TensorType(name="step", dtype="i32", shape=(), passed="scalar")
SCALE = TensorType(name="scale", dtype="f16", shape=(), passed="scalar")
PREFILL = function("prefill", X)
DECODE = function("decode", X, CACHE)


def fed(functions: tuple[Function, ...], place: Path, *words: str) -> Function:
    return fitting.fed(functions, examples.from_files(words, place), "a.mlir", place)


class TestWhichFunction:
    def test_the_only_one_that_the_inputs_fit(self, tmp_path: Path) -> None:
        chosen = fed((PREFILL, DECODE), tmp_path, "1x3xi64=1", "2x8xf32=1")
        assert chosen.name == "decode"
        assert chosen.example is not None
        assert [t.shape for t in chosen.example] == [(1, 3), (2, 8)]

    def test_none_names_all_signatures(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match=r"fit no function: prefill.*; decode") as caught:
            fed((PREFILL, DECODE), tmp_path, "1x3xf32=1")
        assert "--function" in caught.value.advice

    def test_one_of_their_very_types_goes_first(self, tmp_path: Path) -> None:
        narrow = function("narrow", TensorType(name="x", dtype="i32", shape=(1, 3)))
        assert fed((PREFILL, narrow), tmp_path, "1x3xi32=1").name == "narrow"
        assert fed((PREFILL, DECODE), tmp_path, "1x3xi32=1").name == "prefill"

    def test_several_are_asked_about(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match=r"fit several functions: prefill.*; again"):
            fed((PREFILL, function("again", X)), tmp_path, "1x3xi64=1")

    def test_the_only_function_says_what_does_not_fit(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="decode takes 2 inputs, got 1"):
            fed((DECODE,), tmp_path, "1x3xi64=1")

    def test_a_name_chooses_and_one_that_there_is_not_lists_them(self) -> None:
        others = {"odd": "it takes memref<2xf32>"}
        both = (PREFILL, DECODE)
        assert fitting.chosen(both, others, "decode", "a") == ((DECODE,), {})
        assert fitting.chosen(both, others, "odd", "a") == ((), others)
        assert fitting.chosen(both, others, "", "a") == (both, others)
        with pytest.raises(UsageError, match="no function 'decod'") as caught:
            fitting.chosen(both, others, "decod", "a")
        assert caught.value.advice == "Its functions: prefill, decode, odd."


class TestForms:
    def test_numbers_become_what_the_function_takes(self, tmp_path: Path) -> None:
        chosen = fed((function("f", STEP, SCALE),), tmp_path, "5", "1.5")
        assert chosen.example is not None
        assert [(t.dtype, t.passed) for t in chosen.example] == [
            ("i32", "scalar"),
            ("f16", "scalar"),
        ]
        assert [tensors.load(tmp_path, t).item() for t in chosen.example] == [5, 1.5]

    @pytest.mark.parametrize("word", ["5.5", "4294967296", "nan"])
    def test_a_number_that_the_type_cannot_hold_is_refused(self, tmp_path: Path, word: str) -> None:
        with pytest.raises(UsageError, match="which i32 cannot hold"):
            fed((function("f", STEP),), tmp_path, word)

    def test_a_tensor_without_dimensions_and_a_number_stand_for_each_other(
        self, tmp_path: Path
    ) -> None:
        tensor = TensorType(name="t", dtype="f32", shape=())
        chosen = fed((function("f", STEP, tensor),), tmp_path, "i32=3", "2")
        assert chosen.example is not None
        assert [(str(t), t.passed) for t in chosen.example] == [("i32", "scalar"), ("f32", "view")]

    def test_fences_need_not_be_given(self, tmp_path: Path) -> None:
        fence = TensorType(name="fence", dtype="i1", shape=(), passed="null")
        chosen = fed((function("f", X, fence, fence),), tmp_path, "1x1xi64=1")
        assert chosen.example is not None
        assert [t.passed for t in chosen.example] == ["view", "null", "null"]

    def test_a_buffer_view_of_no_stated_type_takes_any(self, tmp_path: Path) -> None:
        unknown = TensorType(name="v", dtype="ui8", shape=(Dim(symbol="v"),), passed="opaque")
        chosen = fed((function("f", unknown),), tmp_path, "2x2xf16=1")
        assert chosen.example is not None
        assert (str(chosen.example[0]), chosen.example[0].passed) == ("2x2xf16", "view")
