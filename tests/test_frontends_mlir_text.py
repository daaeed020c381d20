"""Signatures and parameters are read from printed MLIR as they were written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.frontends import mlir_text
from pipeline.program import ELEMENT_TYPES, Dim, Parameter, TensorType

SIZES = st.none() | st.integers(0, 2**40)
#: Element types that builtin tensors have, and torch's: those spell integers with a sign.
BUILTIN = sorted(name for name in ELEMENT_TYPES if not name.startswith("ui"))
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
            "!torch.tensor<[2],f32>",
            "!torch.vtensor",
            "!hal.buffer_view",
            "vector<2xf32>",
            "tensor<2xi4>",
            "",
        ],
    )
    def test_what_is_no_tensor_that_can_be_passed_is_refused(self, text: str) -> None:
        with pytest.raises(ValueError, match="type"):
            mlir_text.parse_type(text, "x")


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


def module(*functions: str) -> str:
    return '"builtin.module"() ({\n' + "".join(functions) + "}) : () -> ()\n"


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
        found, other = mlir_text.functions(text)
        assert other == ()
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
        found, other = mlir_text.functions(text)
        assert [f.name for f in found] == ["main", "shown"]
        assert other == ()

    @pytest.mark.parametrize(
        "type", ["!hal.buffer_view", "i32", "!torch.list<vtensor<[2],f32>>", "() -> (i32, i32)"]
    )
    def test_functions_that_take_more_than_tensors_are_told_apart(self, type: str) -> None:
        found, other = mlir_text.functions(
            module(
                generic("main", ["tensor<2xf32>"], ["tensor<2xf32>"]),
                generic("odd", ["tensor<2xf32>", type], ["tensor<2xf32>"]),
            )
        )
        assert [f.name for f in found] == ["main"]
        assert other == ("odd",)

    def test_functions_inside_other_operations_are_not_entries(self) -> None:
        inner = "".join(f"  {line}\n" for line in generic("inner", [], []).splitlines())
        text = module('  "builtin.module"() ({\n' + inner + "  }) : () -> ()\n")
        assert mlir_text.functions(text) == ((), ())


class TestParameters:
    def global_(self, scope: str, name: str, type: str, dialect: str = "flow") -> str:
        return (
            f'  "util.global"() <{{initial_value = #{dialect}.parameter.named<"{scope}"::'
            f'"{name}"> : {type}, sym_name = "g", type = {type}}}> : () -> ()\n'
        )

    def test_names_and_types_are_read(self) -> None:
        text = module(
            self.global_("model", "layers.0.weight", "tensor<4x8xf8E4M3FNUZ>"),
            self.global_("model", "scale", "tensor<f32>", dialect="stream"),
            self.global_("model", "scale", "tensor<f32>"),
        )
        read = mlir_text.parameters(text)
        assert read is not None
        assert (read.scope, read.archives) == ("model", ())
        assert read.tensors == (
            Parameter(name="layers.0.weight", dtype="f8E4M3FNUZ", shape=(4, 8)),
            Parameter(name="scale", dtype="f32", shape=()),
        )

    def test_a_program_without_them_has_none(self) -> None:
        assert mlir_text.parameters(module(generic("main", [], []))) is None

    def test_several_scopes_are_refused(self) -> None:
        text = self.global_("a", "x", "tensor<f32>") + self.global_("b", "y", "tensor<f32>")
        with pytest.raises(ValueError, match="several scopes: a, b"):
            mlir_text.parameters(text)
