"""Signatures and parameters are read from printed MLIR as they were written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iree_pilot.pipeline.frontends import mlir_text
from iree_pilot.pipeline.program.program import ELEMENT_TYPES, Dim, Parameter, TensorType

SIZES = st.none() | st.integers(0, 2**40)
#: Element types that builtin tensors have, and torch's: those spell integers with a sign.
BUILTIN = sorted(n for n in ELEMENT_TYPES if not n.startswith("ui"))
TORCH = {
    "f64": "f64",
    "f32": "f32",
    "f16": "f16",
    "bf16": "bf16",
    "f8E4M3FN": "f8E4M3FN",
    "f8E5M2FNUZ": "f8E5M2FNUZ",
    "si64": "i64",
    "si8": "i8",
    "ui8": "ui8",
    "i1": "i1",
    "complex<f32>": "complex<f32>",
}


@st.composite
def tensors(draw: st.DrawFn) -> tuple[str, str, list[int | None]]:
    """(MLIR text, element type, sizes with None for dynamic ones)."""
    sizes = draw(st.lists(SIZES, max_size=5))
    dims = ["?" if size is None else str(size) for size in sizes]
    if draw(st.booleans()):
        element = draw(st.sampled_from(BUILTIN))
        encoding = draw(st.sampled_from(["", ", #some.encoding<a, b>", ", 3 : i32"]))
        return f"tensor<{''.join(d + 'x' for d in dims)}{element}{encoding}>", element, sizes
    spelled = draw(st.sampled_from(sorted(TORCH)))
    return f"!torch.vtensor<[{','.join(dims)}],{spelled}>", TORCH[spelled], sizes


def expected(name: str, element: str, sizes: list[int | None]) -> TensorType:
    shape = tuple(
        Dim(symbol=f"{name}_d{axis}") if size is None else size for axis, size in enumerate(sizes)
    )
    return TensorType(name=name, dtype=element, shape=shape)


class TestTypes:
    @given(tensors())
    def test_a_tensor_type_is_read_as_it_was_written(
        self, tensor: tuple[str, str, list[int | None]]
    ) -> None:
        text, element, sizes = tensor
        assert mlir_text.parse_type(text, "x") == expected("x", element, sizes)

    @pytest.mark.parametrize(
        "text",
        [
            "f32",
            "i64",
            "memref<2xf32>",
            "tensor<*xf32>",
            "tensor<2xindex>",
            "tensor<2x!torch.int>",
            "!torch.vtensor",
            "!hal.buffer_view",
            "vector<2xf32>",
            "tensor<2xi3>",
            "",
        ],
    )
    def test_what_is_no_tensor_that_can_be_passed_is_refused(self, text: str) -> None:
        with pytest.raises(ValueError, match="type"):
            mlir_text.parse_type(text, "x")


class TestParameters:
    def global_(self, scope: str, name: str, type: str, dialect: str = "flow") -> str:
        return (
            f'  "util.global"() <{{initial_value = #{dialect}.parameter.named<"{scope}"::'
            f'"{name}"> : {type}, sym_name = "g", type = {type}}}> : () -> ()\n'
        )

    def test_names_and_types_are_read(self) -> None:
        text = "".join(
            (
                self.global_("model", "layers.0.weight", "tensor<4x8xf8E4M3FNUZ>"),
                self.global_("model", "scale", "tensor<f32>", dialect="stream"),
                self.global_("model", "scale", "tensor<f32>"),
            )
        )
        read = mlir_text.parameters(text)
        assert read is not None
        assert (read.scope, read.archives) == ("model", ())
        assert read.tensors == (
            Parameter(name="layers.0.weight", dtype="f8E4M3FNUZ", shape=(4, 8)),
            Parameter(name="scale", dtype="f32", shape=()),
        )

    def test_a_program_without_them_has_none(self) -> None:
        assert mlir_text.parameters('"builtin.module"() ({}) : () -> ()') is None

    def test_each_knows_its_scope_where_there_are_several(self) -> None:
        text = self.global_("a", "x", "tensor<2xi4>") + self.global_("b", "x", "tensor<f32>")
        read = mlir_text.parameters(text)
        assert read is not None
        assert [(p.scope, p.name, p.dtype) for p in read.tensors] == [
            ("a", "x", "i4"),
            ("b", "x", "f32"),
        ]

    def test_a_type_that_is_not_known_keeps_its_words(self) -> None:
        read = mlir_text.parameters(self.global_("model", "x", "tensor<3xi3>"))
        assert read is not None
        assert read.tensors == (Parameter(name="x", dtype="tensor<3xi3>", shape=()),)

    def test_after_phase_stream_scopes_are_operands_of_loads(self) -> None:
        late = (
            '    %1 = "util.buffer.constant"() <{value = "model"}> : () -> !util.buffer\n'
            '    %2 = "util.buffer.constant"() <{value = "w"}> : () -> !util.buffer\n'
            '    %3 = "io_parameters.load"(%9, %8, %1, %2) <{x = array<i32: 1>}> : () -> ()\n'
        )
        vm = (
            '    "vm.rodata"() <{alignment = 1 : i64, sym_name = "_utf8", value = "b"}> : () -> ()'
            "\n"
            '    %5 = "vm.const.ref.rodata"() <{rodata = @_utf8}> : () -> !vm.buffer\n'
            '    "vm.call"(%4, %5) <{callee = @io_parameters.load}> : () -> ()\n'
        )
        assert mlir_text.loaded_scopes(late + vm) == ("model", "b")
