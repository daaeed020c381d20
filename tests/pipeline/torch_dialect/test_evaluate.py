"""Programs in the torch dialect evaluated by PyTorch: bit by bit what PyTorch itself computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from iree.compiler import ir

from iree_pilot.pipeline.frontends import source as sources
from iree_pilot.pipeline.frontends.job import Job
from iree_pilot.pipeline.frontends.reference.conversions import UNDEFINED
from iree_pilot.pipeline.processes.process import Limits
from iree_pilot.pipeline.program import archive, torch_tensors
from iree_pilot.pipeline.program.program import TORCH_ELEMENT_TYPES, Call, Tensor
from iree_pilot.pipeline.torch_dialect.evaluate import Evaluation, EvaluationWork, evaluate, work
from iree_pilot.pipeline.torch_dialect.torch_child import stages
from iree_pilot.repro.ir import edit

pytestmark = [
    pytest.mark.real,
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),  # torch's own
]

X = "!torch.vtensor<[2,3],f32>"
VALUE = torch.tensor([[1.5, -2.0, 3.25], [0.1, 1e-3, -7.0]])


def program(body: str, *, gives: str, takes: str = f"%x: {X}", before: str = "") -> str:
    """A program in MLIR; `gives` is `%value : type, ...`."""
    values, types = zip(*(g.split(" : ") for g in gives.split("; ")), strict=True)
    return f"""module @module {{
  {before}
  func.func @main({takes}) -> ({", ".join(types)}) {{
    {body}
    return {", ".join(values)} : {", ".join(types)}
  }}
}}
"""


def asked(mlir: str, place: Path, *inputs: torch.Tensor, **options: Any) -> EvaluationWork:
    """A work with these inputs, in files."""
    file = place / "program.mlir"
    file.write_text(mlir)
    saved = []
    for index, value in enumerate(inputs):
        tensor = torch_tensors.save(value, place, f"input{index}.bin")
        saved.append(Tensor(dtype=tensor.dtype, shape=tensor.shape, file=str(place / tensor.file)))
    return EvaluationWork(
        mlir=str(file), function="main", inputs=tuple(saved), place=str(place / "made"), **options
    )


def evaluated(wanted: EvaluationWork) -> Evaluation:
    """As the child does, in this process."""
    with ir.Context():
        *_, last = stages(wanted)
    return last


def outputs(found: Evaluation, place: Path) -> list[torch.Tensor]:
    assert found.reference is not None, found.why
    return [torch_tensors.load(t, place / "made") for t in found.reference.outputs]


def precise(found: Evaluation, place: Path) -> list[torch.Tensor]:
    assert found.reference is not None, found.why
    return [torch_tensors.load(t, place / "made") for t in found.reference.precise]


def bits(value: torch.Tensor) -> bytes:
    raw = value.contiguous().reshape(-1).view(torch.uint8)
    return bytes(raw.tolist())


def contents(tensors: tuple[Tensor, ...], directory: Path) -> list[tuple[str, Any, bytes]]:
    return [(t.dtype, t.shape, (directory / t.file).read_bytes()) for t in tensors]


class TestTracedModels:
    """What PyTorch computes with the model is computed with its MLIR again, bit by bit."""

    @pytest.mark.parametrize(
        ("model", "dtype"),
        [
            ("llama-fp8:tiny/prefill", None),
            ("llama:tiny/decode", "bf16"),
            ("attention", "f16"),
            ("mamba", None),
        ],
    )
    def test_outputs_are_those_of_the_model(
        self, model: str, dtype: str | None, tmp_path: Path
    ) -> None:
        from iree_pilot.pipeline.frontends.pytorch import torch_export

        source = sources.parse(model, {}, dtype)
        traced = torch_export.build(Job(source=source), tmp_path, lambda doing: None)
        assert traced.functions
        for function in traced.functions:
            call = Call(program=traced, directory=tmp_path, function=function)
            found = evaluated(work(call, tmp_path / "made")).reference
            assert found is not None and function.reference is not None
            for kind in ("outputs", "precise", "perturbed"):
                own = contents(getattr(found, kind), tmp_path / "made")
                assert own == contents(getattr(function.reference, kind), tmp_path)
            assert found.note == ""


class TestValues:
    def test_each_tensor_inside_is_found_by_its_place_in_the_graph(self, tmp_path: Path) -> None:
        mlir = program(
            f"""%i1 = torch.constant.int 1
            %s = torch.aten.mul.Tensor %x, %x : {X}, {X} -> {X}
            %v, %i = torch.aten.max.dim %s, %i1, %f : {X}, !torch.int, !torch.bool ->
                !torch.vtensor<[2],f32>, !torch.vtensor<[2],si64>""".replace(
                "%s = torch", "%f = torch.constant.bool false\n    %s = torch", 1
            ),
            gives="%v : !torch.vtensor<[2],f32>",
        )
        found = evaluated(asked(mlir, tmp_path, VALUE, values=None))
        graph = edit.describe(mlir.encode())
        held = {(v.op, v.result): v for v in found.values}
        wanted = {
            (op.index, number): graph.types[value]
            for op in graph.ops
            for number, value in enumerate(op.results)
            if "vtensor" in graph.types[value]
        }
        assert held.keys() == wanted.keys() and len(held) == 3
        squares, most, place = (
            torch_tensors.load(held[key].own, tmp_path / "made") for key in sorted(held)
        )
        assert torch.equal(squares, VALUE * VALUE)
        assert torch.equal(most, torch.tensor([3.25 * 3.25, 49.0]))
        assert torch.equal(place, torch.tensor([2, 2]))

    def test_they_are_precise_too(self, tmp_path: Path) -> None:
        mlir = program(
            f"%s = torch.aten.mul.Tensor %x, %x : {X}, {X} -> {X}\n"
            f"%t = torch.aten.exp %s : {X} -> {X}",
            gives=f"%t : {X}",
        )
        found = evaluated(asked(mlir, tmp_path, VALUE, values=((0, 0),)))
        (value,) = found.values
        assert (value.op, value.result) == (0, 0)
        assert value.precise is not None
        wide = torch_tensors.load(value.precise, tmp_path / "made")
        assert torch.equal(wide, VALUE.double() ** 2)

    def test_none_are_written_that_are_not_wanted(self, tmp_path: Path) -> None:
        mlir = program(f"%t = torch.aten.exp %x : {X} -> {X}", gives=f"%t : {X}")
        assert evaluated(asked(mlir, tmp_path, VALUE)).values == ()
        assert [p.name for p in (tmp_path / "made").iterdir()] == ["data"]


def literal(text: str, result: str) -> str:
    return program(f"%l = torch.vtensor.literal({text}) : {result}", gives=f"%l : {result}")


class TestLiterals:
    @pytest.mark.parametrize(
        ("text", "result", "expected"),
        [
            ("dense<[1.5, -0.0]> : tensor<2xf16>", "f16", torch.tensor([1.5, -0.0]).half()),
            ("dense<[0.1, 0x7FC1]> : tensor<2xbf16>", "bf16", (0xCD, 0x3D, 0xC1, 0x7F)),
            ("dense<[1.0, 0xFE]> : tensor<2xf8E5M2>", "f8E5M2", (0x3C, 0xFE)),
            ("dense<[448.0, 0xFF]> : tensor<2xf8E4M3FN>", "f8E4M3FN", (0x7E, 0xFF)),
            ("dense<2.0> : tensor<2xf8E4M3FNUZ>", "f8E4M3FNUZ", (0x48, 0x48)),
            ("dense<[1.0, 0x7FC00001]> : tensor<2xf32>", "f32", (0, 0, 128, 63, 1, 0, 192, 127)),
            ('dense<"0x0000803F00000040"> : tensor<2xf32>', "f32", torch.tensor([1.0, 2.0])),
            ("dense<[true, false]> : tensor<2xi1>", "i1", torch.tensor([True, False])),
            ("dense<[1, 255]> : tensor<2xui8>", "ui8", torch.tensor([1, 255], dtype=torch.uint8)),
            ("dense<[-1, 9]> : tensor<2xsi64>", "si64", torch.tensor([-1, 9])),
        ],
    )
    def test_they_have_the_bits_that_are_written(
        self, text: str, result: str, expected: Any, tmp_path: Path
    ) -> None:
        mlir = literal(text, f"!torch.vtensor<[2],{result}>")
        (found,) = outputs(evaluated(asked(mlir, tmp_path, VALUE)), tmp_path)
        wanted = bits(expected) if isinstance(expected, torch.Tensor) else bytes(expected)
        assert bits(found) == wanted

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float8_e4m3fn])
    def test_large_ones_are_read_from_the_resources(
        self, dtype: torch.dtype, tmp_path: Path
    ) -> None:
        values = torch.randn(5000, generator=torch.Generator().manual_seed(0)).to(dtype)
        element = TORCH_ELEMENT_TYPES[str(dtype).removeprefix("torch.")]
        mlir = literal(
            f"dense_resource<big> : tensor<5000x{element}>", f"!torch.vtensor<[5000],{element}>"
        )
        blob = f'big: "0x04000000{bits(values).hex()}"'
        mlir += (
            f"{{-#\n  dialect_resources: {{\n    builtin: {{\n      {blob}\n    }}\n  }}\n#-}}\n"
        )
        (found,) = outputs(evaluated(asked(mlir, tmp_path, VALUE)), tmp_path)
        assert bits(found) == bits(values)


class TestOperations:
    def test_a_view_needs_no_strides(self, tmp_path: Path) -> None:
        mlir = program(
            """%i0 = torch.constant.int 0
            %i1 = torch.constant.int 1
            %i6 = torch.constant.int 6
            %t = torch.aten.transpose.int %x, %i0, %i1 : !torch.vtensor<[2,3],f32>, !torch.int,
                !torch.int -> !torch.vtensor<[3,2],f32>
            %l = torch.prim.ListConstruct %i6 : (!torch.int) -> !torch.list<int>
            %v = torch.aten.view %t, %l : !torch.vtensor<[3,2],f32>, !torch.list<int> ->
                !torch.vtensor<[6],f32>""",
            gives="%v : !torch.vtensor<[6],f32>",
        )
        (found,) = outputs(evaluated(asked(mlir, tmp_path, VALUE)), tmp_path)
        assert torch.equal(found, VALUE.T.reshape(6))

    def test_sizes_and_numbers_are_computed(self, tmp_path: Path) -> None:
        rows = "!torch.vtensor<[?,3],f32>"
        mlir = program(
            f"""%i0 = torch.constant.int 0
            %i3 = torch.constant.int 3
            %n = torch.aten.size.int %x, %i0 : {rows}, !torch.int -> !torch.int
            %m = torch.aten.mul.int %n, %i3 : !torch.int, !torch.int -> !torch.int
            %t = torch.prim.NumToTensor.Scalar %m : !torch.int -> !torch.vtensor<[],si64>
            %y = torch.aten.mul.Tensor %x, %t : {rows}, !torch.vtensor<[],si64> -> {rows}""",
            takes=f"%x: {rows}",
            gives=f"%y : {rows}; %t : !torch.vtensor<[],si64>",
        )
        product, number = outputs(evaluated(asked(mlir, tmp_path, VALUE)), tmp_path)
        assert torch.equal(product, VALUE * 6)
        assert torch.equal(number, torch.tensor(6))

    def test_what_is_stored_is_loaded_afterwards(self, tmp_path: Path) -> None:
        mlir = program(
            f"""%b = torch_c.to_builtin_tensor %x : {X} -> tensor<2x3xf32>
            %old = util.global.load @state : tensor<2x3xf32>
            util.global.store %b, @state : tensor<2x3xf32>
            %new = util.global.load @state : tensor<2x3xf32>
            %o = torch_c.from_builtin_tensor %old : tensor<2x3xf32> -> {X}
            %n = torch_c.from_builtin_tensor %new : tensor<2x3xf32> -> {X}""",
            before="util.global private mutable @state = dense<4.0> : tensor<2x3xf32>",
            gives=f"%o : {X}; %n : {X}",
        )
        old, new = outputs(evaluated(asked(mlir, tmp_path, VALUE)), tmp_path)
        assert torch.equal(old, torch.full((2, 3), 4.0))
        assert torch.equal(new, VALUE)

    def test_a_tensor_that_is_overwritten_has_its_new_value(self, tmp_path: Path) -> None:
        own = "!torch.tensor<[2,3],f32>"
        mlir = program(
            f"""%a = torch.copy.to_vtensor %x : {X}
            %y = torch.aten.neg %a : {X} -> {X}
            torch.overwrite.tensor.contents %y overwrites %x : {X}, {own}
            %b = torch.copy.to_vtensor %x : {X}""",
            takes=f"%x: {own}",
            gives=f"%a : {X}; %b : {X}",
        )
        before, after = outputs(evaluated(asked(mlir, tmp_path, VALUE)), tmp_path)
        assert torch.equal(before, VALUE) and torch.equal(after, -VALUE)

    def test_bytes_without_a_sign_are_read_as_torch_has_them(self, tmp_path: Path) -> None:
        mlir = program(
            """%t = torch_c.from_builtin_tensor %x : tensor<3xi8> -> !torch.vtensor<[3],ui8>
            %i4 = torch.constant.int 4
            %y = torch.prims.convert_element_type %t, %i4 : !torch.vtensor<[3],ui8>, !torch.int ->
                !torch.vtensor<[3],si64>""",
            takes="%x: tensor<3xi8>",
            gives="%y : !torch.vtensor<[3],si64>",
        )
        given = torch.tensor([1, -1, -128], dtype=torch.int8)
        (found,) = outputs(evaluated(asked(mlir, tmp_path, given)), tmp_path)
        assert found.tolist() == [1, 255, 128]

    def test_bytecode_is_the_same_program(self, tmp_path: Path) -> None:
        mlir = literal("dense<[0.5, 0.25]> : tensor<2xbf16>", "!torch.vtensor<[2],bf16>")
        wanted = asked(mlir, tmp_path, VALUE)
        with ir.Context(), (tmp_path / "program.mlir").open("wb") as file:
            ir.Module.parse(mlir).operation.write_bytecode(file)
        (found,) = outputs(evaluated(wanted), tmp_path)
        assert found.tolist() == [0.5, 0.25]

    def test_casts_to_8_bits_round_and_others_do_not_in_double_precision(
        self, tmp_path: Path
    ) -> None:
        half, eighth = "!torch.vtensor<[2,3],f16>", "!torch.vtensor<[2,3],f8E4M3FN>"
        mlir = program(
            f"""%i5 = torch.constant.int 5
            %i24 = torch.constant.int 24
            %h = torch.prims.convert_element_type %x, %i5 : {X}, !torch.int -> {half}
            %e = torch.prims.convert_element_type %h, %i24 : {half}, !torch.int -> {eighth}""",
            gives=f"%h : {half}; %e : {eighth}",
        )
        found = evaluated(asked(mlir, tmp_path, VALUE))
        half_value, eighth_value = precise(found, tmp_path)
        assert torch.equal(half_value, VALUE.double())
        assert torch.equal(eighth_value, VALUE.double().to(torch.float8_e4m3fn).double())
        assert found.reference is not None and len(found.reference.perturbed) == 2


class TestParameters:
    MLIR = program(
        f"""%w = util.global.load @w : tensor<3xf32>
        %t = torch_c.from_builtin_tensor %w : tensor<3xf32> -> !torch.vtensor<[3],f32>
        %y = torch.aten.mul.Tensor %x, %t : {X}, !torch.vtensor<[3],f32> -> {X}""",
        before='util.global private @w = #flow.parameter.named<"model"::"layer.w"> : tensor<3xf32>',
        gives=f"%y : {X}",
    )

    def test_they_come_from_the_archives(self, tmp_path: Path) -> None:
        weights = torch.tensor([1.0, 2.0, -3.0])
        entry = archive.ArchiveEntry(dtype="f32", shape=(3,))
        other = archive.ArchiveEntry(dtype="ui8", shape=(1,))
        file = tmp_path / "w.safetensors"
        archive.write(file, {"a": (other, lambda: b"x"), "layer.w": (entry, lambda: bits(weights))})
        found = evaluated(asked(self.MLIR, tmp_path, VALUE, archives=(str(file),)))
        assert torch.equal(outputs(found, tmp_path)[0], VALUE * weights)

    def test_without_their_values_nothing_is_evaluated(self, tmp_path: Path) -> None:
        found = evaluated(asked(self.MLIR, tmp_path, VALUE))
        assert found.why == "the values of its parameter layer.w are not at hand"
        assert found.reference is None


def call(name: str, operands: str, types: str, result: str = X) -> str:
    return program(
        f"%n = torch.constant.none\n%f = torch.constant.float 5.000000e-01\n"
        f"%true = torch.constant.bool true\n%y = {name} {operands} : {types} -> {result}",
        gives=f"%y : {result}",
    )


@pytest.mark.parametrize(
    ("mlir", "why"),
    [
        (
            call('torch.operator "onnx.Relu"', "(%x)", f"({X})"),
            "onnx.Relu: it is not an operation of PyTorch",
        ),
        (
            call("torch.aten.exp", "%x", X, "!torch.vtensor<[2,3],f64>"),
            "torch.aten.exp: PyTorch gives [2, 3] of torch.float32 where the program has "
            "!torch.vtensor<[2,3],f64>",
        ),
        (
            call("torch.aten.mm", "%x, %x", f"{X}, {X}"),
            "torch.aten.mm: PyTorch says mat1 and mat2 shapes cannot be multiplied (2x3 and 2x3)",
        ),
        (
            "func.func @main(%x: tensor<2x3xf32>) -> tensor<2x3xf32> {\n"
            "  %y = arith.addf %x, %x : tensor<2x3xf32>\n  return %y : tensor<2x3xf32>\n}",
            "arith.addf: it is not an operation of PyTorch",
        ),
        ("util.func public @main(%x: i32) { util.return }", "other dialects are not evaluated"),
        ("func.func @main(", "it cannot be parsed here"),
    ],
)
def test_what_cannot_be_evaluated_says_why(mlir: str, why: str, tmp_path: Path) -> None:
    found = evaluated(asked(mlir, tmp_path, VALUE))
    assert why in found.why
    assert found.reference is None


def test_what_does_not_depend_on_what_cannot_be_evaluated_is_known(tmp_path: Path) -> None:
    mlir = program(
        f"""%f = torch.constant.float 5.000000e-01
        %true = torch.constant.bool true
        %d = torch.operator "onnx.Relu"(%x) : ({X}) -> {X}
        %e = torch.aten.exp %d : {X} -> {X}
        %n = torch.aten.neg %x : {X} -> {X}
        %m = torch.aten.mul.Tensor %n, %n : {X}, {X} -> {X}""",
        gives=f"%e : {X}; %m : {X}",
    )
    found = evaluated(asked(mlir, tmp_path, VALUE, values=None))
    assert found.reference is None and found.why.endswith("it is not an operation of PyTorch")
    assert found.skipped == (2,)
    inside = {
        value.op: torch_tensors.mapped(
            tmp_path / "made" / value.own.file, value.own.dtype, value.own.shape
        )
        for value in found.values
    }
    assert inside.keys() == {4, 5} and torch.equal(inside[5], VALUE * VALUE)
    only = evaluated(asked(mlir.replace("return %e, %m", "return %n, %m"), tmp_path, VALUE))
    assert only.reference is None, "as long as all of it is asked for"


def test_what_draws_no_number_is_not_random(tmp_path: Path) -> None:
    mlir = call("torch.aten.dropout", "%x, %f, %no", f"{X}, !torch.float, !torch.bool")
    mlir = mlir.replace("%true = torch.constant.bool true", "%no = torch.constant.bool false")
    found = evaluated(asked(mlir, tmp_path, VALUE))
    assert torch.equal(outputs(found, tmp_path)[0], VALUE)
    assert found.reference is not None and found.reference.incomparable == ()


def test_what_depends_on_random_numbers_is_named_and_the_rest_is_not(tmp_path: Path) -> None:
    mlir = program(
        f"""%n = torch.constant.none
        %one = torch.constant.int 1
        %f = torch.constant.float 5.000000e-01
        %true = torch.constant.bool true
        %drop = torch.aten.dropout %x, %f, %true : {X}, !torch.float, !torch.bool -> {X}
        %noise = torch.aten.rand_like %x, %n, %n, %n, %n, %n : {X}, !torch.none, !torch.none,
            !torch.none, !torch.none, !torch.none -> {X}
        %both = torch.aten.add.Tensor %drop, %noise, %one : {X}, {X}, !torch.int -> {X}
        %shape = torch.aten.zeros_like %drop, %n, %n, %n, %n, %n : {X}, !torch.none, !torch.none,
            !torch.none, !torch.none, !torch.none -> {X}
        %twice = torch.aten.add.Tensor %x, %x, %one : {X}, {X}, !torch.int -> {X}""",
        gives=f"%both : {X}; %twice : {X}; %shape : {X}",
    )
    found = evaluated(asked(mlir, tmp_path, VALUE, values=None))
    assert found.reference is not None
    why, *others = found.reference.incomparable
    assert why == "it draws random numbers: aten.dropout, aten.rand_like"
    assert others == ["", ""]
    assert torch.equal(outputs(found, tmp_path)[1], VALUE * 2)
    assert len(found.values) >= 5


def test_what_depends_on_a_float_that_an_integer_cannot_hold_is_undefined(tmp_path: Path) -> None:
    whole, small = "!torch.vtensor<[2,3],si64>", "!torch.vtensor<[2,3],si8>"
    mlir = program(
        f"""%i1 = torch.constant.int 1
        %i4 = torch.constant.int 4
        %many = torch.constant.float 1.0e+02
        %x100 = torch.aten.mul.Scalar %x, %many : {X}, !torch.float -> {X}
        %fits = torch.prims.convert_element_type %x100, %i4 : {X}, !torch.int -> {whole}
        %not = torch.prims.convert_element_type %x100, %i1 : {X}, !torch.int -> {small}
        %sum = torch.aten.add.Tensor %not, %not, %i1 : {small}, {small}, !torch.int -> {small}""",
        gives=f"%fits : {whole}; %sum : {small}",
    )
    found = evaluated(asked(mlir, tmp_path, VALUE))
    assert found.reference is not None
    assert found.reference.incomparable == ("", UNDEFINED)
    assert torch.equal(outputs(found, tmp_path)[0], (VALUE * 100).to(torch.int64))


def test_what_operations_point_to_is_found(tmp_path: Path) -> None:
    mlir = program(
        f"""%two = torch.constant.int 2
        %last = torch.constant.int -1
        %true = torch.constant.bool true
        %y = torch.aten.relu %x : {X} -> {X}
        %v, %i = torch.aten.topk %y, %two, %last, %true, %true : {X}, !torch.int, !torch.int,
            !torch.bool, !torch.bool -> !torch.vtensor<[2,2],f32>, !torch.vtensor<[2,2],si64>
        %small = torch.prims.convert_element_type %i, %three
            : !torch.vtensor<[2,2],si64>, !torch.int -> !torch.vtensor<[2,2],si32>""".replace(
            "%y = ", "%three = torch.constant.int 3\n        %y = "
        ),
        gives="%small : !torch.vtensor<[2,2],si32>; %v : !torch.vtensor<[2,2],f32>",
    )
    value = torch.tensor([[-1.0, -2, -3], [4, 5, -6]])
    reference = evaluated(asked(mlir, tmp_path, value)).reference
    assert reference is not None and reference.ties == ("aten.topk",)
    (indexed,) = reference.indexed
    assert (indexed.output, indexed.operation, indexed.exact) == (0, "aten.topk", False)
    held = torch_tensors.load(indexed.values, tmp_path / "made")
    assert torch.equal(held, torch.relu(value))
    rows = torch_tensors.load(indexed.rows, tmp_path / "made")
    assert rows.tolist() == [[0, 0], [3, 3]]
    first, last, _ = (torch_tensors.load(once[0], tmp_path / "made") for once in reference.retied)
    assert (first[0].tolist(), last[0].tolist()) == ([0, 1], [2, 1])


def test_what_roundings_move_is_found_where_it_is_asked_for(tmp_path: Path) -> None:
    mlir = program(
        f"""%one = torch.constant.int 1
        %e = torch.aten.exp %x : {X} -> {X}
        %l = torch.aten.log %e : {X} -> {X}
        %rest = torch.aten.sub.Tensor %l, %x, %one : {X}, {X}, !torch.int -> {X}""",
        gives=f"%rest : {X}",
    )
    found = evaluated(asked(mlir, tmp_path, VALUE, jitter="values")).reference
    assert found is not None and len(found.jittered) == 3
    for (once,) in found.jittered:
        assert 0 < torch_tensors.load(once, tmp_path / "made").abs().max() < 1e-5
    for other in ("sums", "none"):
        plain = evaluated(asked(mlir, tmp_path, VALUE, jitter=other)).reference
        assert plain is not None and plain.jittered == ()


def test_the_steps_of_a_norm_in_f16_are_rounded(tmp_path: Path) -> None:
    h = "!torch.vtensor<[2,3],f16>"
    mlir = program(
        f"""%three = torch.constant.int 3
        %shape = torch.prim.ListConstruct %three : (!torch.int) -> !torch.list<int>
        %none = torch.constant.none
        %eps = torch.constant.float 1.000000e-05
        %false = torch.constant.bool false
        %y = torch.aten.layer_norm %x, %shape, %none, %none, %eps, %false : {h},
            !torch.list<int>, !torch.none, !torch.none, !torch.float, !torch.bool -> {h}""",
        gives=f"%y : {h}",
        takes=f"%x: {h}",
    )
    given = asked(mlir, tmp_path, (VALUE - 50).half(), jitter="sums")
    found = evaluated(given).reference
    assert found is not None and len(found.jittered) == 3
    own = torch_tensors.load(found.precise[0], tmp_path / "made")
    for (once,) in found.jittered:
        moved = (torch_tensors.load(once, tmp_path / "made") - own).abs().max()
        assert 2**-11 < moved < 0.1


class TestChild:
    """One child for many; the death of one is not that of the others."""

    def test_what_uses_too_much_memory_does_not_take_the_others_along(self, tmp_path: Path) -> None:
        large = "!torch.vtensor<[500000000],f32>"
        hungry = program(
            f"""%n = torch.constant.none
            %s = torch.constant.int 500000000
            %l = torch.prim.ListConstruct %s : (!torch.int) -> !torch.list<int>
            %o = torch.aten.ones %l, %n, %n, %n, %n : !torch.list<int>, !torch.none, !torch.none,
                !torch.none, !torch.none -> {large}
            %e = torch.aten.exp %o : {large} -> {large}
            %y = torch.aten.exp %e : {large} -> {large}""",
            gives=f"%y : {large}",
        )
        small = program(f"%t = torch.aten.exp %x : {X} -> {X}", gives=f"%t : {X}")
        works = []
        for name, mlir in (("a", small), ("b", hungry), ("c", small)):
            (tmp_path / name).mkdir()
            works.append(asked(mlir, tmp_path / name, VALUE))
        first, second, third = evaluate(works, limits=Limits(memory_bytes=10**9, seconds=60))
        for found, name in ((first, "a"), (third, "c")):
            assert torch.equal(outputs(found, tmp_path / name)[0], VALUE.exp())
            assert torch.equal(precise(found, tmp_path / name)[0], VALUE.double().exp())
        assert second.reference is None
        assert second.why.startswith("evaluating it failed: ") and "memory" in second.why

    def test_importing_it_loads_nothing_heavy(self) -> None:
        import subprocess
        import sys

        code = "import sys, iree_pilot.pipeline.torch_dialect.evaluate\nprint(*sys.modules)"
        loaded = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
        ).stdout.split()
        assert not {"torch", "numpy", "iree.compiler"} & set(loaded)


def test_what_is_given_is_flushed_too(tmp_path: Path) -> None:
    mlir = program(
        """%zero = torch.constant.int 0
    %0 = torch.aten.gt.Scalar %x, %zero : !torch.vtensor<[2,3],f32>, !torch.int
        -> !torch.vtensor<[2,3],i1>""",
        gives="%0 : !torch.vtensor<[2,3],i1>",
    )
    x = torch.tensor([[1e-40, 5.6e-45, 1.0], [-1e-40, 0.0, 2.0]])
    found = evaluated(asked(mlir, tmp_path, x)).reference
    assert found is not None
    precise, flushed = (
        torch_tensors.load(outputs[0], tmp_path / "made").tolist()
        for outputs in (found.precise, found.flushed)
    )
    assert precise == [[True, True, True], [False, False, True]]
    assert flushed == [[False, False, True], [False, False, True]]
