"""MLIR of the torch dialect written back as PyTorch: every kind of argument, and there and back."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from driver import pilot
from places import CASES

from iree_pilot.pipeline.processes import task
from iree_pilot.pipeline.torch_dialect import writer
from iree_pilot.pipeline.torch_dialect.writer import CannotWrite, write

#: What holds or moves values without computing any, and checks.
GLUE = ("torch.constant", "torch.prim.", "torch_c", "util.global", "torch.aten._assert")


def program(body: str, *, takes: str = "", gives: str = "", globals_: str = "") -> str:
    """A program in MLIR; `gives` is `%value : type, ...`."""
    values, types = zip(*(g.split(" : ") for g in gives.split("; ") if g), strict=True)
    returned = ", ".join(types)
    return f"""module @module {{
  {globals_}
  func.func @main({takes}) -> ({returned}) {{
    {body}
    return {", ".join(values)} : {returned}
  }}
}}
"""


def resource(name: str, content: str) -> str:
    """The end of a module's text, with one constant of these bytes."""
    blob = f'{name}: "0x04000000{content}"'
    return f"{{-#\n  dialect_resources: {{\n    builtin: {{\n      {blob}\n    }}\n  }}\n#-}}\n"


def statements(source: str) -> list[str]:
    """What forward() does, without the types in the comments."""
    inside = source.partition("def forward")[2].partition("\n\n\n")[0].splitlines()[1:]
    return [line.partition("  #")[0].strip() for line in inside if line.strip()]


def loaded(source: str) -> dict[str, Any]:
    space: dict[str, Any] = {"__name__": "repro"}
    exec(source, space)
    return space


def example(source: str) -> tuple[torch.Tensor, ...]:
    values: tuple[torch.Tensor, ...] = loaded(source)["inputs"]()
    return values


X = "!torch.vtensor<[2,3],f32>"
INT, NONE, BOOL, FLOAT = "!torch.int", "!torch.none", "!torch.bool", "!torch.float"


@pytest.mark.parametrize(
    ("body", "result", "expected"),
    [
        pytest.param(
            f"%a = torch.constant.float 2.5\n%1 = torch.aten.clamp %x, %a, %none : {X}, {FLOAT},"
            f" {NONE} -> {X}",
            X,
            "torch.ops.aten.clamp.default(x, 2.5)",
            id="a number of any type, and a default left out",
        ),
        pytest.param(
            f"%a = torch.constant.float 0xFFF0000000000000\n%1 = torch.aten.clamp %x, %none, %a :"
            f" {X}, {NONE}, {FLOAT} -> {X}",
            X,
            'torch.ops.aten.clamp.default(x, None, float("-inf"))',
            id="None before what must be given, and infinity",
        ),
        pytest.param(
            f"%1 = torch.aten.softmax.int %x, %i1, %none : {X}, {INT}, {NONE} -> {X}",
            X,
            "torch.ops.aten.softmax.int(x, 1)",
            id="an optional dtype that is not given",
        ),
        pytest.param(
            f"%1 = torch.aten.softmax.int %x, %i1, %i7 : {X}, {INT}, {INT} ->"
            " !torch.vtensor<[2,3],f64>",
            "!torch.vtensor<[2,3],f64>",
            "torch.ops.aten.softmax.int(x, 1, torch.float64)",
            id="an optional dtype",
        ),
        pytest.param(
            "%i26 = torch.constant.int 26\n%1 = torch.prims.convert_element_type %x, %i26 :"
            f" {X}, {INT} -> !torch.vtensor<[2,3],f8E4M3FNUZ>",
            "!torch.vtensor<[2,3],f8E4M3FNUZ>",
            "torch.ops.prims.convert_element_type.default(x, torch.float8_e4m3fnuz)",
            id="an 8-bit float as dtype",
        ),
        pytest.param(
            f"%l = torch.prim.ListConstruct %i1, %i0 : ({INT}, {INT}) -> !torch.list<int>\n"
            f"%1 = torch.aten.permute %x, %l : {X}, !torch.list<int> -> !torch.vtensor<[3,2],f32>",
            "!torch.vtensor<[3,2],f32>",
            "torch.ops.aten.permute.default(x, [1, 0])",
            id="a list of integers",
        ),
        pytest.param(
            f"%l = torch.prim.ListConstruct %x, %x : ({X}, {X}) -> !torch.list<vtensor>\n"
            "%1 = torch.aten.cat %l, %i1 : !torch.list<vtensor>, !torch.int ->"
            " !torch.vtensor<[2,6],f32>",
            "!torch.vtensor<[2,6],f32>",
            "torch.ops.aten.cat.default([x, x], 1)",
            id="a list of tensors",
        ),
        pytest.param(
            f"%l = torch.prim.ListConstruct %none, %p : ({NONE}, !torch.vtensor<[2],si64>) ->"
            " !torch.list<optional<vtensor>>\n%1 = torch.aten.index.Tensor %x, %l :"
            f" {X}, !torch.list<optional<vtensor>> -> !torch.vtensor<[2,2],f32>",
            "!torch.vtensor<[2,2],f32>",
            "torch.ops.aten.index.Tensor(x, [None, p])",
            id="a list of optional tensors",
        ),
        pytest.param(
            f"%1 = torch.aten.clone %x, %i0 : {X}, {INT} -> {X}",
            X,
            "torch.ops.aten.clone.default(x, memory_format=torch.contiguous_format)",
            id="a memory format",
        ),
        pytest.param(
            '%d = torch.constant.device "cpu"\n%1 = torch.aten.zeros_like %x, %i6, %i0, %d,'
            f" %false, %none : {X}, {INT}, {INT}, !torch.Device, {BOOL}, {NONE} -> {X}",
            X,
            "torch.ops.aten.zeros_like.default(x, dtype=torch.float32, layout=torch.strided,"
            ' device=torch.device("cpu"), pin_memory=False)',
            id="a layout, a device and a bool",
        ),
        pytest.param(
            f'%s = torch.constant.str "tanh"\n%1 = torch.aten.gelu %x, %s : {X}, !torch.str -> {X}',
            X,
            "torch.ops.aten.gelu.default(x, approximate='tanh')",
            id="text",
        ),
        pytest.param(
            f"%1 = torch.aten.add.Tensor %x, %x, %i2 : {X}, {X}, {INT} -> {X}",
            X,
            "torch.ops.aten.add.Tensor(x, x, alpha=2)",
            id="an argument by name only",
        ),
        pytest.param(
            f"%n = torch.prim.NumToTensor.Scalar %i2 : {INT} -> !torch.vtensor<[],si64>\n%1 ="
            f" torch.aten.maximum %x, %n : {X}, !torch.vtensor<[],si64> -> {X}",
            X,
            "torch.ops.aten.maximum.default(x, self.constant)",
            id="a number for a tensor, where the operator takes none",
        ),
        pytest.param(
            f'%1 = torch.operator "torch.aten.special_ndtr"(%x) : ({X}) -> {X}',
            X,
            "torch.ops.aten.special_ndtr.default(x)",
            id="an operation that the dialect does not know",
        ),
        pytest.param(
            "%l = torch.prim.ListConstruct %i1 : (!torch.int) -> !torch.list<int>\n"
            "%1 = torch.prims.squeeze %q, %l : !torch.vtensor<[2,1],f32>, !torch.list<int> ->"
            " !torch.vtensor<[2],f32>",
            "!torch.vtensor<[2],f32>",
            "torch.ops.aten.squeeze.dims(q, [1])",
            id="an operation that only the tracer makes",
        ),
    ],
)
def test_an_argument_is_written_as_its_schema_says(body: str, result: str, expected: str) -> None:
    numbers = "\n".join(f"%i{n} = torch.constant.int {n}" for n in (0, 1, 2, 6, 7))
    source = write(
        program(
            f"{numbers}\n%none = torch.constant.none\n%false = torch.constant.bool false\n{body}",
            takes=f"%x: {X}, %p: !torch.vtensor<[2],si64>, %q: !torch.vtensor<[2,1],f32>",
            gives=f"%1 : {result}",
        )
    )
    written = statements(source)[0]
    for name, number in (("x", 0), ("p", 1), ("q", 2)):
        expected = re.sub(rf"\b{name}\b", f"arg{number}", expected)
    assert written.partition(" = ")[2] == expected
    loaded(source)["model"]()(*example(source))


def test_results_are_named_by_the_schema_and_a_list_is_unpacked() -> None:
    source = write(
        program(
            f"""%i1 = torch.constant.int 1
            %t = torch.constant.bool true
            %v, %i = torch.aten.sort %x, %i1, %t : {X}, {INT}, {BOOL} -> {X},
              !torch.vtensor<[2,3],si64>
            %s = torch.aten.split.Tensor %v, %i1, %i1 : {X}, {INT}, {INT} -> !torch.list<vtensor>
            %p:3 = torch.prim.ListUnpack %s : !torch.list<vtensor> -> !torch.vtensor<[2,1],f32>,
              !torch.vtensor<[2,1],f32>, !torch.vtensor<[2,1],f32>""",
            takes=f"%x: {X}",
            gives="%p#1 : !torch.vtensor<[2,1],f32>; %i : !torch.vtensor<[2,3],si64>",
        )
    )
    assert statements(source) == [
        "values, indices = torch.ops.aten.sort.default(arg0, 1, True)",
        "split = torch.ops.aten.split.Tensor(values, 1, 1)",
        "split_1, split_2, split_3 = split",
        "return (split_2, indices)",
    ]


def test_checks_of_the_tracer_are_left_out() -> None:
    check = "torch.aten._assert_tensor_metadata"
    source = write(
        program(
            f"""%n = torch.constant.none
            {check} %x, %n, %n, %n, %n, %n : {X}, {", ".join([NONE] * 5)}""",
            takes=f"%x: {X}",
            gives=f"%x : {X}",
        )
    )
    assert statements(source) == ["return arg0"]


@pytest.mark.parametrize(
    ("type_", "dtype"),
    [
        ("f32", torch.float32),
        ("f64", torch.float64),
        ("bf16", torch.bfloat16),
        ("f8E4M3FN", torch.float8_e4m3fn),
        ("f8E4M3FNUZ", torch.float8_e4m3fnuz),
        ("f8E5M2", torch.float8_e5m2),
        ("si64", torch.int64),
        ("si8", torch.int8),
        ("ui8", torch.uint8),
        ("ui32", torch.uint32),
        ("i1", torch.bool),
        ("complex<f32>", torch.complex64),
    ],
)
def test_inputs_and_parameters_have_the_types_of_the_program(
    type_: str, dtype: torch.dtype
) -> None:
    """And are the same each time, and neither all zero nor negative where they are integers."""
    tensor = f"!torch.vtensor<[4,5],{type_}>"
    builtin = f"tensor<4x5x{type_.removeprefix('u').removeprefix('s') if 'i' in type_ else type_}>"
    source = write(
        program(
            f"""%g = util.global.load @w : {builtin}
            %w = torch_c.from_builtin_tensor %g : {builtin} -> {tensor}""",
            takes=f"%x: {tensor}",
            gives=f"%w : {tensor}; %x : {tensor}",
            globals_=f'util.global private @w = #flow.parameter.named<"m"::"w"> : {builtin}',
        )
    )
    weight, value = loaded(source)["model"]()(*example(source))
    again = loaded(source)["model"]()(*example(source))
    for tensor_, repeated in zip((weight, value), again, strict=True):
        assert tensor_.dtype == dtype and tensor_.shape == (4, 5)
        assert torch.equal(tensor_.view(torch.uint8), repeated.view(torch.uint8))
        wide = tensor_.to(torch.complex128)
        assert wide.abs().max() > 0
        assert dtype.is_floating_point or dtype.is_complex or wide.real.min() >= 0


def test_a_parameter_may_be_called_like_something_that_a_module_has() -> None:
    value, builtin = "!torch.vtensor<[2],f32>", "tensor<2xf32>"
    source = write(
        program(
            f"""%g = util.global.load @__auto.half : {builtin}
            %w = torch_c.from_builtin_tensor %g : {builtin} -> {value}""",
            gives=f"%w : {value}",
            globals_='util.global private @__auto.half = #flow.parameter.named<"m"::"half"> :'
            f" {builtin}",
        )
    )
    assert loaded(source)["model"]()().shape == (2,)


def test_positions_lie_within_the_smallest_table() -> None:
    tensor, ids = "!torch.vtensor<[3,8],f32>", "!torch.vtensor<[40],si64>"
    source = write(
        program(
            f"""%i = torch.constant.int -1
            %f = torch.constant.bool false
            %1 = torch.aten.embedding %w, %x, %i, %f, %f : {tensor}, {ids}, {INT}, {BOOL}, {BOOL}
              -> !torch.vtensor<[40,8],f32>""",
            takes=f"%w: {tensor}, %x: {ids}",
            gives="%1 : !torch.vtensor<[40,8],f32>",
        )
    )
    assert set(example(source)[1].tolist()) == {0, 1, 2}


@pytest.mark.parametrize(
    ("literal", "type_", "expected"),
    [
        ("dense<[[1, -2], [3, 4]]>", "[2,2],si64", [[1, -2], [3, 4]]),
        ("dense<7>", "[2,2],si32", [[7, 7], [7, 7]]),
        ("dense<[true, false]>", "[2],i1", [True, False]),
        ("dense<2.5>", "[],f32", 2.5),
        ("dense<[1.5, 0x7F800000]>", "[2],f32", [1.5, float("inf")]),
        ("dense<[1.5, 0xFF80]>", "[2],bf16", [1.5, -float("inf")]),
        ("dense<0.25>", "[2],bf16", [0.25, 0.25]),
        ("dense<[1.5, -0.25]>", "[2],f8E4M3FN", [1.5, -0.25]),
        ("dense<0.5>", "[2],f8E4M3FNUZ", [0.5, 0.5]),
        ("dense_resource<blob>", "[2],f32", [1.0, 2.0]),
        ("dense<>", "[0],f32", []),
    ],
)
def test_a_constant_keeps_its_numbers(literal: str, type_: str, expected: Any) -> None:
    sizes, element = type_.removeprefix("[").split("],")
    builtin = f"tensor<{''.join(s + 'x' for s in sizes.split(',') if s)}{element}>"
    mlir = program(
        f"%1 = torch.vtensor.literal({literal} : {builtin}) : !torch.vtensor<{type_}>",
        gives=f"%1 : !torch.vtensor<{type_}>",
    )
    if "resource" in literal:
        mlir += resource("blob", "0000803F00000040")
    found = loaded(write(mlir))["model"]()()
    assert found.shape == torch.tensor(expected).shape
    assert (found.float() if found.is_floating_point() else found).tolist() == expected


def test_a_large_constant_is_random_and_not_in_the_file() -> None:
    mlir = program(
        "%1 = torch.vtensor.literal(dense_resource<b> : tensor<64x64xf32>) :"
        " !torch.vtensor<[64,64],f32>",
        gives="%1 : !torch.vtensor<[64,64],f32>",
    )
    mlir += resource("b", "0000803F" * 4096)
    source = write(mlir)
    assert len(source) < 2000
    assert loaded(source)["model"]()().shape == (64, 64)


def test_what_is_loaded_before_a_store_keeps_its_value() -> None:
    value, builtin = "!torch.vtensor<[2],f32>", "tensor<2xf32>"
    source = write(
        program(
            f"""%g = util.global.load @w : {builtin}
            %w = torch_c.from_builtin_tensor %g : {builtin} -> {value}
            %n = torch.aten.neg %w : {value} -> {value}
            %b = torch_c.to_builtin_tensor %n : {value} -> {builtin}
            util.global.store %b, @w : {builtin}""",
            gives=f"%w : {value}",
            globals_='util.global private mutable @w = #flow.parameter.named<"m"::"w"> :'
            f" {builtin}",
        )
    )
    model = loaded(source)["model"]()
    before = model.w.clone()
    assert torch.equal(model(), before)
    assert torch.equal(model.w, -before)


def test_an_argument_can_be_stored_and_nothing_returned() -> None:
    """As in what a search leaves of a batch normalisation."""
    source = write(
        """
        util.global private mutable @w = #flow.parameter.named<"m"::"w"> : tensor<i64>
        func.func @main(%x: tensor<i64>) {
          util.global.store %x, @w : tensor<i64>
          return
        }"""
    )
    (given,) = example(source)
    model = loaded(source)["model"]()
    assert model(given) == () and model.w is given and given.dtype == torch.int64


def test_a_view_that_pytorch_has_not_is_one_of_a_copy() -> None:
    """In MLIR values have no strides, so what a search leaves may view what is transposed."""
    wide, high, flat = (f"!torch.vtensor<[{s}],f32>" for s in ("4,6", "6,4", "24"))
    source = write(
        program(
            f"""%i0 = torch.constant.int 0
            %i1 = torch.constant.int 1
            %n = torch.constant.int 24
            %s = torch.prim.ListConstruct %n : ({INT}) -> !torch.list<int>
            %a = torch.aten.view %x, %s : {wide}, !torch.list<int> -> {flat}
            %t = torch.aten.transpose.int %x, %i0, %i1 : {wide}, {INT}, {INT} -> {high}
            %b = torch.aten.view %t, %s : {high}, !torch.list<int> -> {flat}
            %c = torch.aten._unsafe_view %t, %s : {high}, !torch.list<int> -> {flat}""",
            takes=f"%x: {wide}",
            gives=f"%a : {flat}; %b : {flat}; %c : {flat}",
        )
    )
    views = [line for line in statements(source) if "view" in line.partition("=")[2]]
    assert views == [
        "view = torch.ops.aten.view.default(arg0, [24])",
        "view_1 = torch.ops.aten.view.default(transpose.contiguous(), [24])",
        "unsafe_view = torch.ops.aten._unsafe_view.default(transpose.contiguous(), [24])",
    ]
    x = torch.arange(24.0).reshape(4, 6)
    first, *others = loaded(source)["model"]()(x)
    assert torch.equal(first, x.flatten())
    assert all(torch.equal(other, x.T.flatten()) for other in others)


def test_what_nothing_takes_is_returned_lest_the_tracer_drops_it() -> None:
    line, square = "!torch.vtensor<[3],f32>", "!torch.vtensor<[3,3],f32>"
    both, mesh = f"({line}, {line})", "!torch.list<vtensor>"
    source = write(
        f"""func.func @main(%x: {line}, %y: {line}) {{
          %l = torch.prim.ListConstruct %x, %y : {both} -> {mesh}
          %s = torch.constant.str "ij"
          %m = torch.aten.meshgrid.indexing %l, %s : {mesh}, !torch.str -> {mesh}
          %u:2 = torch.prim.ListUnpack %m : {mesh} -> {square}, {square}
          return
        }}"""
    )
    found = loaded(source)["model"]()(*example(source))
    assert [value.shape for value in found] == [(1, 3, 3)] * 2


DYNAMIC = "!torch.vtensor<[?,4],f32>"


def test_dynamic_dimensions_get_sizes_that_fit_each_other() -> None:
    source = write(
        program(
            f"""%i0 = torch.constant.int 0
            %i1 = torch.constant.int 1
            %l = torch.prim.ListConstruct %x, %x : ({DYNAMIC}, {DYNAMIC}) -> !torch.list<vtensor>
            %c = torch.aten.cat %l, %i0 : !torch.list<vtensor>, {INT} -> {DYNAMIC}
            %s = torch.aten.add.Tensor %c, %y, %i1 : {DYNAMIC}, {DYNAMIC}, {INT} -> {DYNAMIC}""",
            takes=f"%x: {DYNAMIC}, %y: {DYNAMIC}",
            gives=f"%s : {DYNAMIC}",
        )
    )
    first, second = example(source)
    assert 2 * len(first) == len(second)
    assert loaded(source)["dynamic_shapes"] == ({0: torch.export.Dim.DYNAMIC},) * 2


def test_named_dimensions_keep_their_names_and_bounds() -> None:
    source = write(
        program(
            f"""%s = torch.symbolic_int "rows" {{min_val = 9, max_val = 20}} : {INT}
            torch.bind_symbolic_shape %x, [%s], affine_map<()[s0] -> (s0, 4)> : {DYNAMIC}
            torch.bind_symbolic_shape %y, [%s], affine_map<()[s0] -> (s0, 4)> : {DYNAMIC}""",
            takes=f"%x: {DYNAMIC}, %y: {DYNAMIC}",
            gives=f"%x : {DYNAMIC}; %y : {DYNAMIC}",
        )
    )
    assert [len(v) for v in example(source)] == [9, 9]
    (rows, *_), (same, *_) = (d.values() for d in loaded(source)["dynamic_shapes"])
    assert rows is same and (rows.__name__, rows.min, rows.max) == ("rows", 9, 20)


def test_sizes_are_computed_with_pythons_operators() -> None:
    source = write(
        program(
            f"""%i0 = torch.constant.int 0
            %i4 = torch.constant.int 4
            %n = torch.aten.size.int %x, %i0 : {DYNAMIC}, {INT} -> {INT}
            %a = torch.aten.add.int %n, %n : {INT}, {INT} -> {INT}
            %m = torch.aten.mul.int %a, %i4 : {INT}, {INT} -> {INT}
            %k = torch.aten.floordiv.int %m, %i4 : {INT}, {INT} -> {INT}
            %i2 = torch.constant.int 2
            %l = torch.prim.ListConstruct %k, %i2 : ({INT}, {INT}) -> !torch.list<int>
            %v = torch.aten.view %x, %l : {DYNAMIC}, !torch.list<int> ->
              !torch.vtensor<[?,2],f32>""",
            takes=f"%x: {DYNAMIC}",
            gives="%v : !torch.vtensor<[?,2],f32>",
        )
    )
    assert statements(source)[:4] == [
        "size = torch.ops.aten.sym_size.int(arg0, 0)",
        "add = size + size",
        "mul = add * 4",
        "floordiv = mul // 4",
    ]


@pytest.mark.parametrize(
    ("mlir", "reason"),
    [
        (
            program(
                f"%1 = torch.prims.no_such_thing %x : {X} -> {X}",
                takes=f"%x: {X}",
                gives=f"%1 : {X}",
            ),
            "does not parse",
        ),
        (
            program(
                f'%1 = torch.operator "torch.prims.no_such"(%x) : ({X}) -> {X}',
                takes=f"%x: {X}",
                gives=f"%1 : {X}",
            ),
            r"^torch.prims.no_such cannot be written as PyTorch: .* no such operator",
        ),
        (
            program(
                f'%1 = torch.operator "torch.prims.collapse_view"(%x) : ({X}) -> {X}',
                takes=f"%x: {X}",
                gives=f"%1 : {X}",
            ),
            "views from outside aten",
        ),
        (
            program(
                f'%1 = torch.operator "torch.aten.neg"(%x, %x) : ({X}, {X}) -> {X}',
                takes=f"%x: {X}",
                gives=f"%1 : {X}",
            ),
            "this release of torch has it as aten::neg",
        ),
        (
            program(
                "%1 = tensor.empty() : tensor<2xf32>",
                gives="%1 : tensor<2xf32>",
            ),
            "^tensor.empty .* not an operation of PyTorch",
        ),
        (
            program("", takes=f"%x: {INT}", gives=f"%x : {INT}"),
            "a value of type !torch.int",
        ),
        (
            program(
                f"%1 = torch.aten.add.Tensor %x, %y, %i : {DYNAMIC}, !torch.vtensor<[3,4],f32>,"
                f" {INT} -> {DYNAMIC}".replace("%1", "%i = torch.constant.int 1\n%1", 1),
                takes=f"%x: {DYNAMIC}, %y: !torch.vtensor<[3,4],f32>",
                gives=f"%1 : {DYNAMIC}",
            ),
            "no sizes of its dynamic dimensions",
        ),
        (
            program(
                "%1 = torch.vtensor.literal(dense_resource<gone> : tensor<2xf32>) :"
                " !torch.vtensor<[2],f32>",
                gives="%1 : !torch.vtensor<[2],f32>",
            ),
            "its values are not in the file",
        ),
        (f"{'func.func @a() {return}'}\n{'func.func @b() {return}'}", "2 functions"),
    ],
)
def test_what_cannot_be_written_is_named_with_the_reason(mlir: str, reason: str) -> None:
    with pytest.raises(CannotWrite, match=reason):
        write(mlir)


def child(source: Path, target: Path, *flags: str) -> task.Done[None]:
    writing = writer.Writing(str(source), flags, str(target))
    return task.call(f"{writer.__name__}:written", writing, type(None), source.parent / "child")


def test_the_child_writes_the_file_with_its_flags_or_says_why_not(tmp_path: Path) -> None:
    source, target = tmp_path / "in.mlir", tmp_path / "repro.py"
    source.write_text(program("", takes=f"%x: {X}", gives=f"%x : {X}"))
    assert child(source, target, "--iree-opt-level=O2").why == ""
    assert "-o traced.vmfb --iree-opt-level=O2\n" in target.read_text()
    target.unlink()
    source.write_text("module {")
    assert "the program cannot be written as PyTorch" in child(source, target).why
    assert not target.exists()


def test_importing_the_writer_loads_neither_torch_nor_the_compiler() -> None:
    code = "import sys, iree_pilot.pipeline.torch_dialect.writer\n"
    code += "sys.exit(bool({'torch', 'iree.compiler'} & {*sys.modules}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# There and back


def operations(mlir: str) -> Counter[str]:
    found = re.findall(r"^\s*(?:%.* = )?\"?((?:torch|torch_c|util|tensor)\.[\w.]+)", mlir, re.M)
    return Counter(name for name in found if not name.startswith(GLUE))


def traced(source: str | Path, directory: Path) -> str:
    done = pilot("trace", source, "-o", directory, "--no-decompose")
    assert done.code == 0, done.out + done.err
    return (directory / "program.mlir").read_text()


def rewritten(source: str | Path, directory: Path) -> tuple[Path, str, str]:
    """The file written from a source, and the programs of both."""
    before = traced(source, directory / "before")
    file = directory / "repro.py"
    file.write_text(write(before))
    return file, before, traced(file, directory / "after")


DYNAMIC_SOURCE = """
import torch

class Model(torch.nn.Module):
    def forward(self, x, y):
        values, _ = (x + y).sort(1)
        first, second = values.split(2, 1)
        mask = torch.where(first > 0.5, second, 0.25)
        return mask.reshape(x.shape[0] * 2), torch.arange(x.shape[0]), values.topk(2)[1]

def model():
    return Model()

def inputs():
    return torch.randn(5, 4), torch.randn(5, 1)

dynamic_shapes = ({0: torch.export.Dim("rows", min=2)},) * 2
"""


@pytest.mark.real
@pytest.mark.parametrize("source", ["batchnorm", "dynamic", "llama:tiny/decode"])
def test_what_is_written_is_traced_to_the_same_operations(source: str, tmp_path: Path) -> None:
    dynamic = tmp_path / "dynamic.py"
    dynamic.write_text(DYNAMIC_SOURCE)
    files = {"batchnorm": CASES / "batchnorm.py", "dynamic": dynamic}
    _, before, after = rewritten(files.get(source, source), tmp_path)
    assert operations(before) == operations(after)
    stores = r"util\.global\.store|torch\.prim\.ListUnpack"
    assert re.findall(stores, before) == re.findall(stores, after)


@pytest.mark.real
def test_what_is_written_fails_in_the_same_way(tmp_path: Path) -> None:
    source = CASES / "prelu.py"
    file, _, _ = rewritten(source, tmp_path)
    words = ("-t", "llvm-cpu", "--no-decompose", "--json")
    first, second = (pilot("compile", one, *words) for one in (source, file))
    assert first.code == second.code == 1
    failures = [d.document["cases"][0]["failure"]["signature"] for d in (first, second)]
    assert failures[0] == failures[1]


@pytest.mark.real
@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")
@pytest.mark.parametrize("source", ["llama:tiny/prefill", "resnet"])
def test_what_is_written_computes_what_the_model_does(source: str, tmp_path: Path) -> None:
    """With the model's own weights and inputs in place of the random ones."""
    from iree.turbine.aot import ParameterArchive

    file, before, after = rewritten(source, tmp_path)
    assert operations(before) == operations(after)
    record = json.loads((tmp_path / "before" / "program.json").read_text())

    def read(tensor: dict[str, Any]) -> torch.Tensor:
        dtype = {"f32": torch.float32, "i64": torch.int64}[tensor["dtype"]]
        raw = bytearray((tmp_path / "before" / tensor["file"]).read_bytes())
        return torch.frombuffer(raw, dtype=dtype).reshape(tensor["shape"])

    archive = ParameterArchive(tmp_path / "before" / "parameters.irpa")
    model = loaded(file.read_text())["model"]()
    with torch.no_grad():
        own = dict(model.named_buffers())
        for name, entry in archive.items():
            buffer = own.pop(re.sub(r"\W", "_", name), None)
            if buffer is not None:  # else only eager PyTorch has a use for it
                buffer.copy_(entry.as_tensor())
        assert all(name.startswith("constant") for name in own)
        function = record["functions"][0]
        found = model(*map(read, function["example"]))
    for value, expected in zip(
        found if isinstance(found, tuple) else (found,),
        map(read, function["reference"]["outputs"]),
        strict=True,
    ):
        torch.testing.assert_close(value, expected)


@pytest.mark.parametrize(("words", "code"), [((), 2), (("-h",), 0)])
def test_the_file_says_how_it_is_used(words: tuple[str, ...], code: int, tmp_path: Path) -> None:
    file = tmp_path / "repro.py"
    file.write_text(write(program("", takes=f"%x: {X}", gives=f"%x : {X}")))
    done = subprocess.run(
        [sys.executable, file, *words], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == code
    assert "usage: repro.py [-h] FILE.mlir" in (done.stderr if code else done.stdout)
    assert "repro.mlir" not in file.read_text(), "that is a file of the folder"


@pytest.mark.real
def test_the_file_needs_nothing_but_iree_turbine(tmp_path: Path) -> None:
    before = traced(CASES / "fp8_attention.py", tmp_path / "before")
    file, target = tmp_path / "repro.py", tmp_path / "stock.mlir"
    file.write_text(write(before))
    subprocess.run(
        [sys.executable, "-I", file, target], capture_output=True, check=True, timeout=120
    )
    assert operations(target.read_text()) == operations(before)
