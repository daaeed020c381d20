"""A program's record says what fits it; everything that does not is refused in words."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iree_pilot.pipeline.errors import UsageError
from iree_pilot.pipeline.program import program as programs
from iree_pilot.pipeline.program.program import (
    ELEMENT_TYPES,
    Dim,
    Function,
    Parameter,
    Parameters,
    Program,
    Reference,
    Tensor,
    TensorType,
    check_inputs,
)

DTYPES = st.sampled_from(sorted(ELEMENT_TYPES))
SIZES = st.integers(0, 9)


@st.composite
def functions_with_inputs(draw: st.DrawFn) -> tuple[Function, tuple[Tensor, ...]]:
    """A function and inputs that fit it: symbols shared between inputs have one value each."""
    symbols = {
        name: (draw(SIZES), draw(st.integers(0, 3)), draw(st.none() | st.integers(0, 3)))
        for name in "abc"
    }
    inputs, tensors = [], []
    for index in range(draw(st.integers(1, 4))):
        dims: list[int | Dim] = []
        sizes = []
        for name in draw(st.lists(st.none() | st.sampled_from("abc"), max_size=4)):
            if name is None:
                sizes.append(draw(SIZES))
                dims.append(sizes[-1])
            else:
                value, below, above = symbols[name]
                sizes.append(value)
                upper = None if above is None else value + above
                dims.append(Dim(symbol=name, min=max(0, value - below), max=upper))
        dtype = draw(DTYPES)
        inputs.append(TensorType(name=f"x{index}", dtype=dtype, shape=tuple(dims)))
        tensors.append(Tensor(dtype=dtype, shape=tuple(sizes), file=f"{index}.bin"))
    return Function(name="main", inputs=tuple(inputs), outputs=()), tuple(tensors)


class TestInputs:
    @given(functions_with_inputs())
    def test_what_fits_is_accepted(self, case: tuple[Function, tuple[Tensor, ...]]) -> None:
        check_inputs(case[0], case[1], "model.py")

    @given(functions_with_inputs(), st.data())
    def test_another_dtype_is_refused(
        self, case: tuple[Function, tuple[Tensor, ...]], data: st.DataObject
    ) -> None:
        function, inputs = case
        position = data.draw(st.integers(0, len(inputs) - 1))
        wrong = data.draw(DTYPES.filter(lambda d: d != inputs[position].dtype))
        given_inputs = list(inputs)
        given_inputs[position] = msgspec.structs.replace(inputs[position], dtype=wrong)
        with pytest.raises(UsageError) as caught:
            check_inputs(function, tuple(given_inputs), "model.py")
        assert f"input {position} (x{position}) of main does not fit" in caught.value.message
        assert f"dtype {wrong} where {inputs[position].dtype} is expected" in caught.value.message

    @given(functions_with_inputs(), st.data())
    def test_another_size_is_refused_or_is_another_value_of_a_free_symbol(
        self, case: tuple[Function, tuple[Tensor, ...]], data: st.DataObject
    ) -> None:
        function, inputs = case
        axes = [(i, axis) for i, t in enumerate(inputs) for axis in range(len(t.shape))]
        if not axes:
            return
        position, axis = data.draw(st.sampled_from(axes))
        size = data.draw(SIZES.filter(lambda s: s != inputs[position].shape[axis]))
        shape = list(inputs[position].shape)
        shape[axis] = size
        given_inputs = list(inputs)
        given_inputs[position] = msgspec.structs.replace(inputs[position], shape=tuple(shape))
        want = function.inputs[position].shape[axis]
        same = [d for t in function.inputs for d in t.shape if isinstance(d, Dim)]
        free = (
            isinstance(want, Dim)
            and want.min <= size <= (size if want.max is None else want.max)
            and sum(d.symbol == want.symbol for d in same) == 1
        )
        if free:
            check_inputs(function, tuple(given_inputs), "model.py")
        else:
            with pytest.raises(UsageError, match="does not fit: dimension"):
                check_inputs(function, tuple(given_inputs), "model.py")

    @given(functions_with_inputs(), st.integers(0, 6))
    def test_the_number_of_inputs_must_be_right(
        self, case: tuple[Function, tuple[Tensor, ...]], count: int
    ) -> None:
        function, inputs = case
        wrong = (inputs * 7)[:count]
        if len(wrong) == len(inputs):
            return
        with pytest.raises(UsageError) as caught:
            check_inputs(function, wrong, "model.py")
        inputs_taken = "1 input" if len(inputs) == 1 else f"{len(inputs)} inputs"
        assert f"main takes {inputs_taken}, got {count}" in caught.value.message

    FUNCTION = Function(
        name="decode",
        inputs=(
            TensorType(name="tokens", dtype="i64", shape=(1, Dim(symbol="n", min=2, max=8))),
            TensorType(name="mask", dtype="f32", shape=(Dim(symbol="n", min=2, max=8),)),
        ),
        outputs=(),
    )

    @pytest.mark.parametrize(
        ("tokens", "mask", "why"),
        [
            ((1, 9), (9,), r"dimension 1 is 9, outside the bounds of n\[2..8\]"),
            ((1, 1), (1,), r"dimension 1 is 1, outside the bounds of n\[2..8\]"),
            ((1, 4), (5,), "dimension 0 is 5, but n is already 4 in an earlier dimension"),
            ((2, 4), (4,), "dimension 0 is 2 where 1 is expected"),
            ((1, 4), (4, 1), "2 dimensions where 1 are expected"),
        ],
    )
    def test_the_message_names_the_input_and_the_dimension(
        self, tokens: tuple[int, ...], mask: tuple[int, ...], why: str
    ) -> None:
        inputs = (
            Tensor(dtype="i64", shape=tokens, file="a"),
            Tensor(dtype="f32", shape=mask, file="b"),
        )
        with pytest.raises(UsageError, match=why) as caught:
            check_inputs(self.FUNCTION, inputs, "model.py")
        signature = "decode(tokens: 1xn[2..8]xi64, mask: n[2..8]xf32)"
        assert signature in caught.value.advice


def test_a_record_survives_the_disk(tmp_path: Path) -> None:
    tensor = Tensor(dtype="bf16", shape=(2, 3), file="data/main.in0.bin")
    made = Program(
        source="model.py",
        digest="0" * 64,
        functions=(
            Function(
                name="main",
                inputs=(
                    TensorType(name="x", dtype="bf16", shape=(2, Dim(symbol="s", min=1, max=9))),
                ),
                outputs=(TensorType(name="y", dtype="f8E4M3FNUZ", shape=(Dim(symbol="u"),)),),
                example=(tensor,),
                reference=Reference(outputs=(tensor,), precise=(tensor,), precise_dtype="f64"),
            ),
        ),
        parameters=Parameters(
            scope="model",
            tensors=(Parameter(name="a.b", dtype="f16", shape=()),),
            archives=("parameters.irpa",),
        ),
        origin={"torch": "2.13.0"},
        notes=("a note",),
    )
    programs.save(made, tmp_path)
    assert programs.load(tmp_path) == made


def test_a_function_is_found_by_name() -> None:
    made = Program(
        source="model.py",
        digest="",
        functions=(TestInputs.FUNCTION,),
        parameters=None,
        origin={},
    )
    assert made.function() is made.function("decode")
    with pytest.raises(UsageError, match=r"model\.py has no function 'prefill'") as caught:
        made.function("prefill")
    assert "decode" in caught.value.advice


@pytest.mark.parametrize("name", sorted(ELEMENT_TYPES))
def test_an_element_type_is_as_large_as_numpy_and_torch_say(name: str) -> None:
    import ml_dtypes
    import numpy

    element = ELEMENT_TYPES[name]
    dtype = numpy.dtype(getattr(ml_dtypes, element.numpy, None) or element.numpy)
    assert dtype.itemsize == element.size
    wanted = -(-15 * element.bits // 8) if element.bits else 15 * element.size
    assert Tensor(dtype=name, shape=(3, 5), file="").bytes == wanted
