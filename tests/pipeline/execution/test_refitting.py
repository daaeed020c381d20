"""A failure of inputs that were made up is told apart from the program's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from driver import pilot
from fake.generic_form import CONSTANTS, F, check, compare, dim, func, module

from iree_pilot.pipeline.execution import refitting
from iree_pilot.pipeline.failures.diagnostics import Failure
from iree_pilot.pipeline.frontends.inputs import fitting_inputs
from iree_pilot.pipeline.program.program import Function, MadeUp, Tensor, TensorType

MADE = msgspec.structs.replace(
    F, inputs=F.inputs[:2], example=(), made_up=MadeUp(sizes={"arg0_d1": 4})
)
NEVER = [compare("%0", 0, "%c1", "%c2"), check("%0", "never true")]
WIDTH = [dim("%0", "%arg1", 1), compare("%1", 0, "%0", "%c24"), check("%1", "the width is 24")]


def failed(message: str, kind: str = "runtime-error") -> Failure:
    return Failure(kind=kind, message=message, signature="s", phase="run")  # type: ignore[arg-type]


def judged(
    message: str, lines: list[str], function: Function = MADE, runs: bool = False
) -> tuple[bool, MadeUp | None]:
    types = "(tensor<?x?xf32>, tensor<?x?xf32>) -> ()"
    arguments = "%arg0: tensor<?x?xf32>, %arg1: tensor<?x?xf32>"
    text = module(func("f", types, arguments, [*CONSTANTS, *lines]))

    def texts() -> Iterator[str]:
        yield text

    return refitting.judge(failed(message), function, texts, lambda _: runs)


def example(*shapes: tuple[int, ...]) -> Function:
    given = tuple(Tensor(dtype="f32", shape=shape, file="") for shape in shapes)
    return msgspec.structs.replace(MADE, example=given)


class TestTheInputsDoing:
    def test_an_assertion_about_them_is_solved(self) -> None:
        misfit, better = judged("FAILED_PRECONDITION; the width is 24", WIDTH)
        assert misfit
        assert better is not None
        assert better.sizes["arg1_d1"] == 24

    def test_the_shape_that_a_compiled_function_checks_is_adopted(self) -> None:
        said = (
            "INVALID_ARGUMENT; input1 shape dimension 0 mismatch; expected 1 but have 4; expected "
            "shape `1x24`, actual shape `4x4` (in hal.buffer_view.assert)"
        )
        misfit, better = judged(said, [], example((4, 4), (4, 4)))
        assert misfit
        assert better is not None
        assert better.sizes == {"arg0_d1": 4, "arg1_d0": 1, "arg1_d1": 24}

    def test_an_assertion_about_what_is_in_them_gets_smaller_integers(self) -> None:
        lines = [
            '%0 = "tensor.extract"(%arg0, %c0, %c0) : (tensor<?x?xi64>, index, index) -> i64',
            '%1 = "arith.index_cast"(%0) : (i64) -> index',
            compare("%2", 2, "%1", "%c2"),
            check("%2", "index out of range"),
        ]
        ids = TensorType(name="arg0", dtype="i64", shape=F.inputs[0].shape)
        function = msgspec.structs.replace(MADE, inputs=(ids, F.inputs[1]))
        misfit, better = judged("FAILED_PRECONDITION; index out of range", lines, function)
        assert misfit
        assert better is not None
        assert better.integers == 2

    def test_a_range_that_other_inputs_keep(self) -> None:
        misfit, better = judged("OUT_OF_RANGE; 8 bytes at 4 (in hal.buffer.subspan)", [], runs=True)
        assert misfit
        assert better is not None


class TestTheProgramsOwn:
    @pytest.mark.parametrize(
        ("message", "lines"),
        [
            ("FAILED_PRECONDITION; never true", NEVER),
            ("FAILED_PRECONDITION; of the runtime's own", WIDTH),
            ("OUT_OF_RANGE; 8 bytes at 4 (in hal.buffer.subspan)", []),
            ("INVALID_ARGUMENT; input0 element type mismatch; expected f32 but have f64", []),
            ("NOT_FOUND; required module 'x' not registered", []),
            ("UNKNOWN; device lost", WIDTH),
        ],
    )
    def test_what_no_input_changes_is_a_failure(self, message: str, lines: list[str]) -> None:
        assert judged(message, lines) == (False, None)

    def test_a_static_dimension_that_is_refused_is_a_failure(self) -> None:
        static = TensorType(name="arg0", dtype="f32", shape=(4, 4))
        function = msgspec.structs.replace(example((4, 4), (4, 4)), inputs=(static, F.inputs[1]))
        said = (
            "INVALID_ARGUMENT; input0 shape dimension 0 mismatch; expected 1 but have 4; expected "
            "shape `1x4`, actual shape `4x4` (in hal.buffer_view.assert)"
        )
        assert judged(said, [], function) == (False, None)

    def test_so_is_whatever_fails_with_the_users_inputs(self) -> None:
        own = msgspec.structs.replace(MADE, made_up=None)
        assert judged("FAILED_PRECONDITION; the width is 24", WIDTH, own) == (False, None)

    def test_a_crash_is_one(self) -> None:
        failure = failed("the width is 24", kind="crash")
        assert refitting.judge(failure, MADE, lambda: iter(())) == (False, None)


class TestWhatEvaluatorsSay:
    def test_sizes_of_the_signature_are_tried(self) -> None:
        wide = TensorType(name="w", dtype="f32", shape=(24,))
        function = msgspec.structs.replace(MADE, inputs=(F.inputs[0], wide), made_up=MadeUp())
        tried = [one.sizes for one in fitting_inputs.alternatives(function, MadeUp())]
        assert {"arg0_d1": 24} in tried

    def test_numbers_that_the_program_is_off_by_are_tried(self) -> None:
        number = TensorType(name="i", dtype="i64", shape=(), passed="scalar")
        function = msgspec.structs.replace(MADE, inputs=(number,), made_up=MadeUp())
        shifts = fitting_inputs.constants(['"arith.constant"() <{value = -10 : index}>'])
        assert shifts == (1, 10)
        tried = [
            one.numbers["i"] for one in fitting_inputs.alternatives(function, MadeUp(), shifts)
        ]
        assert tried[:5] == [0, 1, -1, 10, -10]

    def test_only_what_nobody_gave_is_complained_about(self) -> None:
        said = msgspec.structs.replace(
            MADE, unevaluated="PyTorch says The size of tensor a (4) must match the size of b (24)"
        )
        assert fitting_inputs.complains(said)
        assert not fitting_inputs.complains(msgspec.structs.replace(said, made_up=None))
        assert not fitting_inputs.complains(
            msgspec.structs.replace(said, unevaluated="torch.foo: PyTorch does not know it")
        )
        with pytest.raises(refitting.Misfit, match="do not fit: PyTorch says") as caught:
            refitting.refuse("a.mlir", said)
        assert "--input" in caught.value.advice


#: The width of the second argument is stated; that it has one row is known once it is compiled.
DYNAMIC = """
#rows = affine_map<(d0, d1) -> (d0, d1)>
#row = affine_map<(d0, d1) -> (0, d1)>
func.func @main(%a: tensor<1x24xf32>, %b: tensor<?x?xf32>) -> tensor<1x24xf32> {
  %c1 = arith.constant 1 : index
  %c24 = arith.constant WIDTH : index
  %dim = tensor.dim %b, %c1 : tensor<?x?xf32>
  %fits = arith.cmpi eq, %dim, %c24 : index
  cf.assert %fits, "mismatched size for broadcast"
  %e = tensor.empty() : tensor<1x24xf32>
  %r = linalg.generic {indexing_maps = [#rows, #row, #rows],
      iterator_types = ["parallel", "parallel"]}
      ins(%b, %a : tensor<?x?xf32>, tensor<1x24xf32>) outs(%e : tensor<1x24xf32>) {
  ^bb0(%x: f32, %y: f32, %o: f32):
    %m = arith.mulf %x, %y : f32
    linalg.yield %m : f32
  } -> tensor<1x24xf32>
  return %r : tensor<1x24xf32>
}
"""


#: Numbers that nobody gave lead out of the tensor, if they are not what the program takes away.
INDEXED = """
func.func @main(%a: tensor<4xf32>, %i: index) -> f32 {
  %c10 = arith.constant 10 : index
  %y = arith.subi %i, %c10 : index
  %v = tensor.extract %a[%y] : tensor<4xf32>
  return %v : f32
}
"""
SELECTED = """
func.func @main(%a: !torch.vtensor<[4,2],f32>, %i: !torch.vtensor<[3],si64>)
    -> !torch.vtensor<[3,2],f32> {
  %0 = torch.constant.int 0
  %r = torch.aten.index_select %a, %0, %i : !torch.vtensor<[4,2],f32>, !torch.int,
      !torch.vtensor<[3],si64> -> !torch.vtensor<[3,2],f32>
  return %r : !torch.vtensor<[3,2],f32>
}
"""


#: What they are reshaped to, or what an assertion beside says, is all that is known of their sizes.
RESHAPED = """
func.func @main(%a: tensor<?x?xf32>, %b: tensor<3x5xf32>) -> tensor<15xf32> {
  %r = stablehlo.reshape %a : (tensor<?x?xf32>) -> tensor<15xf32>
  %c = stablehlo.reshape %b : (tensor<3x5xf32>) -> tensor<15xf32>
  %d = stablehlo.add %r, %c : tensor<15xf32>
  return %d : tensor<15xf32>
}
"""
EXPANDED = """
func.func @main(%x: tensor<?x?xf32>) -> tensor<?x3x?xf32> {
  %c1 = arith.constant 1 : index
  %c0 = arith.constant 0 : index
  %c3 = arith.constant 3 : index
  %n = tensor.dim %x, %c0 : tensor<?x?xf32>
  %d = tensor.dim %x, %c1 : tensor<?x?xf32>
  %h = arith.divui %d, %c3 : index
  %y = tensor.expand_shape %x [[0], [1, 2]] output_shape [%n, 3, %h]
    : tensor<?x?xf32> into tensor<?x3x?xf32>
  %z = math.exp %y : tensor<?x3x?xf32>
  return %z : tensor<?x3x?xf32>
}
"""
ASSERTED = """
func.func @main(%a: !torch.vtensor<[?,?],f32>, %b: !torch.vtensor<[?,?],f32>)
    -> !torch.vtensor<[?,?],f32> attributes {torch.assume_strict_symbolic_shapes} {
  %int1 = torch.constant.int 1
  %int12 = torch.constant.int 12
  %k = torch.aten.size.int %a, %int1 : !torch.vtensor<[?,?],f32>, !torch.int -> !torch.int
  %e = torch.aten.eq.int %k, %int12 : !torch.int, !torch.int -> !torch.bool
  torch.runtime.assert %e, "k is 12"
  %c = torch.aten.mm %a, %b : !torch.vtensor<[?,?],f32>, !torch.vtensor<[?,?],f32>
    -> !torch.vtensor<[?,?],f32>
  return %c : !torch.vtensor<[?,?],f32>
}
"""


@pytest.mark.real
class TestSizesThatNobodyGave:
    @pytest.mark.parametrize(
        "text", [RESHAPED, EXPANDED, ASSERTED], ids=["reshaped", "expanded", "asserted"]
    )
    def test_they_are_made_up_until_they_fit(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "p.mlir").write_text(text)
        done = pilot("run", tmp_path / "p.mlir", "-t", "llvm-cpu:generic", "--json")
        assert (done.code, done.document["cases"][0]["status"]) == (0, "ok"), done.err
        (note,) = (n for n in done.document["program"]["notes"] if "made up again" in n)
        assert "integers" not in note, "it takes none"


#: No size fits: 7 is prime, and both dimensions are even.
DOUBTED = """
func.func @main(%a: tensor<?x2xf32>) -> tensor<7xf32> {
  %r = stablehlo.reshape %a : (tensor<?x2xf32>) -> tensor<7xf32>
  return %r : tensor<7xf32>
}
"""


@pytest.mark.real
def test_what_may_be_the_evaluators_own_limit_refuses_no_program(tmp_path: Path) -> None:
    (tmp_path / "p.mlir").write_text(DOUBTED)
    done = pilot("run", tmp_path / "p.mlir", "-t", "llvm-cpu:generic", "--json")
    assert done.code in (0, 1), done.err
    assert done.document["cases"][0]["status"] in ("ran", "failed")


@pytest.mark.real
class TestIndicesThatNobodyGave:
    @pytest.mark.parametrize("text", [INDEXED, SELECTED], ids=["a number", "a tensor"])
    def test_they_are_made_up_until_they_fit(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "p.mlir").write_text(text)
        done = pilot("run", tmp_path / "p.mlir", "-t", "llvm-cpu:generic", "--json")
        assert (done.code, done.document["cases"][0]["status"]) == (0, "ok"), done.err
        assert any("made up again" in note for note in done.document["program"]["notes"])

    def test_what_the_users_lead_to_is_not_compared(self, tmp_path: Path) -> None:
        (tmp_path / "p.mlir").write_text(SELECTED)
        given = ("--input", "4x2xf32=1", "--input", "3xi64=1 2 4")
        done = pilot("run", tmp_path / "p.mlir", "-t", "llvm-cpu:generic", *given, "--json")
        (found,) = done.document["cases"]
        assert (done.code, found["status"]) == (0, "ran"), done.err
        assert "index out of range" in found["why"]


@pytest.mark.real
class TestBisect:
    def test_inputs_that_fit_are_found_and_the_program_is_right(self, tmp_path: Path) -> None:
        (tmp_path / "p.mlir").write_text(DYNAMIC.replace("WIDTH", "24"))
        done = pilot("bisect", tmp_path / "p.mlir", "-t", "llvm-cpu:generic", "--json")
        assert (done.code, done.document["status"]) == (1, "passes"), done.err
        assert "agrees with its reference" in done.document["why"]

    def test_what_nothing_fits_is_the_users_to_say_and_not_isolated(self, tmp_path: Path) -> None:
        (tmp_path / "p.mlir").write_text(DYNAMIC.replace("WIDTH", "23"))
        done = pilot("bisect", tmp_path / "p.mlir", "-t", "llvm-cpu:generic", cwd=tmp_path)
        assert done.code == 2, done.out
        assert "the inputs that were made up for main do not fit" in done.err
        assert "--input" in done.err
        assert not list(tmp_path.glob("repro-*"))
