"""Signatures and parameters are read from printed MLIR as they were written."""

from __future__ import annotations

import pytest
from fake.tensor_types import expected, tensors
from hypothesis import given

from iree_pilot.pipeline.frontends.mlir import mlir_text
from iree_pilot.pipeline.program.program import Parameter


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
