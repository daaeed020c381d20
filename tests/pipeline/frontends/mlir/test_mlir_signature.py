"""Signatures of entry functions are read from the generic form, whatever the phase."""

from __future__ import annotations

import pytest
from fake.generic_form import func, module
from fake.tensor_types import expected, tensors
from hypothesis import given
from hypothesis import strategies as st

from iree_pilot.pipeline.frontends.mlir import mlir_signature
from iree_pilot.pipeline.frontends.mlir.mlir_signature import Signatures
from iree_pilot.pipeline.program.program import TensorType


def generic(
    name: str,
    inputs: list[str],
    outputs: list[str],
    op: str = "func.func",
    extra: str = "",
) -> str:
    result = outputs[0] if len(outputs) == 1 else f"({', '.join(outputs)})"
    return (
        f'  "{op}"() <{{arg_attrs = [{{iree.abi.affinity = #hal.device.affinity<@d, [0]>}}], '
        f'function_type = ({", ".join(inputs)}) -> {result}, sym_name = "{name}"{extra}}}> ({{\n'
        '  ^bb0(%arg0: tensor<9x9xf64>):\n    "func.return"() : () -> ()\n  }) : () -> ()\n'
    )


class TestFunctions:
    @given(
        st.lists(
            st.tuples(
                st.from_regex(r"[a-z_][a-zA-Z0-9_$.]{0,9}", fullmatch=True),
                st.lists(tensors(), max_size=4),
                st.lists(tensors(), max_size=3),
                st.sampled_from(["func.func", "util.func"]),
            ),
            max_size=4,
            unique_by=lambda function: function[0],
        )
    )
    def test_signatures_are_read_as_they_were_written(
        self, made: list[tuple[str, list[tuple], list[tuple], str]]
    ) -> None:
        text = module(
            *(generic(name, [t[0] for t in i], [t[0] for t in o], op) for name, i, o, op in made)
        )
        read = mlir_signature.read(text)
        found, other = read.functions, read.others
        assert other == {}
        assert [f.name for f in found] == [name for name, *_ in made]
        for function, (_, inputs, outputs, _) in zip(found, made, strict=True):
            for stem, types, read in (
                ("arg", inputs, function.inputs),
                ("result", outputs, function.outputs),
            ):
                wanted = [expected(f"{stem}{i}", t[1], t[2]) for i, t in enumerate(types)]
                assert list(read) == wanted

    def test_private_functions_are_not_entries(self) -> None:
        text = module(
            generic("main", ["tensor<f32>"], ["tensor<f32>"]),
            generic("helper", [], [], extra=', sym_visibility = "private"'),
            generic("shown", [], [], extra=', sym_visibility = "public"'),
        )
        read = mlir_signature.read(text)
        found, other = read.functions, read.others
        assert [f.name for f in found] == ["main", "shown"]
        assert other == {}

    @pytest.mark.parametrize(
        "type", ["!util.list<i32>", "memref<2xf32>", "tensor<2xi3>", "() -> (i32, i32)"]
    )
    def test_functions_that_cannot_be_called_are_told_apart(self, type: str) -> None:
        read = mlir_signature.read(
            module(
                generic("main", ["tensor<2xf32>"], ["tensor<2xf32>"]),
                generic("odd", ["tensor<2xf32>", type], ["tensor<2xf32>"]),
            )
        )
        assert [f.name for f in read.functions] == ["main"]
        assert read.others == {"odd": f"it takes {type}, which iree-run-module cannot pass"}

    def test_functions_inside_other_operations_are_not_entries(self) -> None:
        inner = "".join(f"  {line}\n" for line in generic("inner", [], []).splitlines())
        text = module('  "builtin.module"() ({\n' + inner + "  }) : () -> ()\n")
        assert mlir_signature.read(text) == Signatures()


VIEW, VM_VIEW = "!hal.buffer_view", "!vm.ref<!hal.buffer_view>"


def shown(text: str, name: str = "main") -> str:
    """`4xf32, i32 -> 4xf32`, each with the way that it is passed where that is no buffer view."""
    (function,) = (f for f in mlir_signature.read(text).functions if f.name == name)

    def words(types: tuple[TensorType, ...]) -> str:
        return ", ".join(
            "x".join([*("?" if not isinstance(d, int) else str(d) for d in t.shape), t.dtype])
            + ("" if t.passed == "view" else f" {t.passed}")
            for t in types
        )

    return f"{words(function.inputs)} -> {words(function.outputs)}"


class TestNumbers:
    @pytest.mark.parametrize(
        ("type", "dtype"),
        [
            ("i1", "i1"),
            ("i32", "i32"),
            ("index", "i64"),
            ("bf16", "bf16"),
            ("f64", "f64"),
            ("!torch.int", "i64"),
            ("!torch.float", "f32"),
            ("!torch.bool", "i1"),
        ],
    )
    def test_they_are_passed_on_their_own(self, type: str, dtype: str) -> None:
        text = module(generic("main", [type, "tensor<i32>"], [type]))
        assert shown(text) == f"{dtype} scalar, i32 -> {dtype} scalar"


class TestBufferViews:
    """What they hold is said by the declaration, else by what is done with them."""

    def test_the_declaration(self) -> None:
        declared = (
            ' {iree.abi.stub, iree.reflection = {iree.abi.declaration = "sync func @main('
            '%input0: tensor<?x4xf32>, %input1: i1) -> (%output0: tensor<2xi4>)"}}'
        )
        body = ['"util.return"(%arg0) : (!hal.buffer_view) -> ()']
        text = func(
            "main", f"({VIEW}, i32) -> {VIEW}", f"%arg0: {VIEW}, %arg1: i32", body, declared
        )
        assert shown(module(text)) == "?x4xf32, i1 scalar -> 2xi4"

    @pytest.mark.parametrize("phase", ["hal", "stream"])
    def test_imports_and_exports(self, phase: str) -> None:
        encoding = "target_encoding" if phase == "hal" else "result_encoding"
        body = [
            '%0 = "hal.buffer_view.dim"(%arg0) <{index = 0 : index}> : (!hal.buffer_view) -> index',
            f'%1 = "{phase}.tensor.import"(%arg0, %0) <{{{encoding} = tensor<?x4xf32>}}> : '
            f"({VIEW}, index) -> tensor<?x4xf32>",
            f'%2 = "{phase}.tensor.export"(%1, %0) <{{source_encoding = tensor<?x4xf16>}}> : '
            f"(tensor<?x4xf32>, index) -> {VIEW}",
            f'"util.return"(%2, %arg0) : ({VIEW}, {VIEW}) -> ()',
        ]
        text = func("main", f"({VIEW}) -> ({VIEW}, {VIEW})", f"%arg0: {VIEW}", body)
        assert shown(module(text)) == "?x4xf32 -> ?x4xf16, ?x4xf32"

    def test_a_bare_buffer(self) -> None:
        body = [
            '%1 = "hal.tensor.import"(%arg0) <{target_encoding = tensor<4xf32>}> : '
            "(!hal.buffer) -> tensor<4xf32>",
            '"util.return"(%arg0) : (!hal.buffer) -> ()',
        ]
        text = func("main", "(!hal.buffer) -> !hal.buffer", "%arg0: !hal.buffer", body)
        assert shown(module(text)) == "4xf32 buffer -> 4xf32 buffer"

    def test_what_nothing_says_is_opaque(self) -> None:
        body = [f'"util.return"(%arg0) : ({VIEW}) -> ()']
        text = func("main", f"({VIEW}) -> {VIEW}", f"%arg0: {VIEW}", body)
        assert shown(module(text)) == "?xui8 opaque -> ?xui8 opaque"

    def test_checks_and_creations_in_phase_hal(self) -> None:
        body = [
            '%c4 = "arith.constant"() <{value = 4 : index}> : () -> index',
            '%0 = "hal.buffer_view.dim"(%arg0) <{index = 0 : index}> : (!hal.buffer_view) -> index',
            '%1 = "hal.element_type"() <{type = bf16}> : () -> i32',
            '%2 = "hal.encoding_type"() <{}> : () -> i32',
            '"hal.buffer_view.assert"(%arg0, %1, %2, %0, %c4) <{message = "x"}> : '
            f"({VIEW}, i32, i32, index, index) -> ()",
            '%3 = "hal.buffer_view.create"(%b, %c4, %c4, %1, %2, %c4) : '
            f"(!hal.buffer, index, index, i32, i32, index) -> {VIEW}",
            f'"util.return"(%3) : ({VIEW}) -> ()',
        ]
        text = func("main", f"({VIEW}) -> {VIEW}", f"%arg0: {VIEW}", body)
        assert shown(module(text)) == "?x4xbf16 -> 4xbf16"

    def test_the_same_calls_in_the_vm_and_the_name_that_is_exported(self) -> None:
        body = [
            '%0 = "vm.const.i32"() <{value = 553648160 : i32}> : () -> i32',
            '%1 = "vm.const.i32.zero"() : () -> i32',
            '%2 = "vm.const.i64"() <{value = 4 : i64}> : () -> i64',
            '%3 = "vm.const.i64.zero"() : () -> i64',
            '"vm.call.variadic"(%arg0, %9, %0, %1, %2, %3) <{callee = @hal.buffer_view.assert}> : '
            f"({VM_VIEW}, !vm.buffer, i32, i32, i64, i64) -> ()",
            '%4 = "vm.call.variadic"(%8, %3, %2, %0, %1, %2) <{callee = @hal.buffer_view.create}> '
            f": (!vm.ref<!hal.buffer>, i64, i64, i32, i32, i64) -> {VM_VIEW}",
            f'"vm.return"(%4) : ({VM_VIEW}) -> ()',
        ]
        inner = func("f", f"({VM_VIEW}) -> {VM_VIEW}", f"%arg0: {VM_VIEW}", body, op="vm.func")
        inner += '  "vm.export"() <{export_name = "main", function_ref = @f}> : () -> ()\n'
        inner += '  "vm.export"() <{export_name = "__init", function_ref = @g}> : () -> ()\n'
        inner += func("g", "() -> ()", "", [], op="vm.func")
        text = '  "vm.module"() ({\n' + "".join(f"  {x}\n" for x in inner.splitlines()) + "  })\n"
        assert shown(module(text)) == "4x0xf32 -> 4xf32"
        assert len(mlir_signature.read(module(text)).functions) == 1


class TestFences:
    FENCED = f"({VIEW}, !hal.fence, !hal.fence) -> {VIEW}"
    ARGUMENTS = f"%arg0: {VIEW}, %arg1: !hal.fence, %arg2: !hal.fence"
    BODY = (
        '%0 = "hal.tensor.import"(%arg0, %arg1) <{target_encoding = tensor<4xf32>}> : '
        f"({VIEW}, !hal.fence) -> tensor<4xf32>",
        '%1 = "hal.tensor.export"(%0) <{source_encoding = tensor<4xf32>}> : '
        f"(tensor<4xf32>) -> {VIEW}",
        f'"util.return"(%1) : ({VIEW}) -> ()',
    )

    def test_a_function_beside_its_asynchronous_form_stands_for_both(self) -> None:
        calling = [
            '%2 = "util.call"(%arg0, %8, %9) <{callee = @main$async}> : '
            f"({VIEW}, !hal.fence, !hal.fence) -> {VIEW}",
            f'"util.return"(%2) : ({VIEW}) -> ()',
        ]
        text = module(
            func("main$async", self.FENCED, self.ARGUMENTS, list(self.BODY)),
            func("main", f"({VIEW}) -> {VIEW}", f"%arg0: {VIEW}", calling),
        )
        assert [f.name for f in mlir_signature.read(text).functions] == ["main"]
        assert shown(text) == "4xf32 -> 4xf32"

    def test_the_runtime_brings_them_where_the_reflection_says_so(self) -> None:
        tail = ' {iree.reflection = {iree.abi.model = "coarse-fences"}}'
        text = func("main", self.FENCED, self.ARGUMENTS, list(self.BODY), tail)
        assert shown(module(text)) == "4xf32 -> 4xf32"

    def test_elsewhere_they_are_null(self) -> None:
        text = func("main", self.FENCED, self.ARGUMENTS, list(self.BODY))
        assert shown(module(text)) == "4xf32, i1 null, i1 null -> 4xf32"
