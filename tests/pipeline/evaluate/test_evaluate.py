"""IR on tensors is interpreted as its operations are defined, by nothing of IREE's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iree_pilot.pipeline.evaluate import evaluator_child
from iree_pilot.pipeline.evaluate.arrays import scalars
from iree_pilot.pipeline.evaluate.machine import elements
from iree_pilot.pipeline.frontends.load import Loaded
from iree_pilot.pipeline.processes import process
from iree_pilot.pipeline.program import tensors
from iree_pilot.pipeline.program.program import Function, Program, Reference, TensorType
from iree_pilot.pipeline.toolchain import toolchain
from iree_pilot.pipeline.toolchain.context import Context
from iree_pilot.pipeline.torch_dialect.evaluate import Evaluation, EvaluationWork
from iree_pilot.repro.attribution.variant_trial import AttributionTrial
from iree_pilot.repro.failing_pass import phases
from iree_pilot.repro.failing_pass.bench import INTERPRETED, RealBench

I8 = st.integers(-128, 127)
I4 = st.integers(-8, 7)


def computed(name: str, *operands: int, kind: str = "i8") -> int:
    """What an operation of integers gives; fails where that is undefined."""
    element = elements.of(kind)
    given = [np.array([value], element.dtype) for value in operands]
    return int(scalars.compute(name, given, element, element, pytest.fail)[0])


@given(I8, I8.filter(bool))
def test_integers_are_divided_as_their_operations_say(a: int, b: int) -> None:
    truncated = abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
    if truncated != 128:  # the one quotient that does not fit
        assert computed("arith.divsi", a, b) == truncated
        assert computed("arith.remsi", a, b) == a - truncated * b
        assert computed("arith.floordivsi", a, b) == a // b
        assert computed("arith.ceildivsi", a, b) == -(-a // b)
    assert computed("arith.divui", a, b) % 256 == (a % 256) // (b % 256)
    assert computed("arith.remui", a, b) % 256 == (a % 256) % (b % 256)


@pytest.mark.parametrize(("kind", "size"), [("i8", 256), ("i4", 16), ("i1", 2)])
@given(a=I4, b=I4, by=st.integers(0, 3))
def test_integers_have_the_bits_that_their_operations_say(
    a: int, b: int, by: int, kind: str, size: int
) -> None:
    a, b, by = (x if size > 2 else x % 2 for x in (a, b, by))
    signed = [-x if size == 2 else x for x in (a, b)]
    assert computed("arith.addi", a, b, kind=kind) % size == (a + b) % size
    assert computed("arith.subi", a, b, kind=kind) % size == (a - b) % size
    assert computed("arith.muli", a, b, kind=kind) % size == (a * b) % size
    assert computed("arith.maxui", a, b, kind=kind) % size == max(a % size, b % size)
    assert computed("arith.minsi", a, b, kind=kind) % size == min(signed) % size
    if size > 2:
        assert computed("arith.shli", a, by, kind=kind) % size == (a << by) % size
        assert computed("arith.shrsi", a, by, kind=kind) == a >> by
        assert computed("arith.shrui", a, by, kind=kind) % size == (a % size) >> by
    if b % size:
        assert computed("arith.divui", a, b, kind=kind) % size == (a % size) // (b % size)


@given(I8, I8)
def test_integers_compare_signed_and_unsigned(a: int, b: int) -> None:
    names = ["eq", "ne", "slt", "sle", "sgt", "sge", "ult", "ule", "ugt", "uge"]
    one, two = np.array([a], np.int8), np.array([b], np.int8)
    found = {n: bool(scalars.compare_integers(i, one, two)[0]) for i, n in enumerate(names)}
    assert found["slt"] == (a < b) and found["sge"] == (a >= b) and found["eq"] == (a == b)
    assert found["ult"] == (a % 256 < b % 256) and found["uge"] == (a % 256 >= b % 256)


@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16", "f8E4M3FN"])
def test_comparisons_with_nan_hold_as_ordered_or_not(dtype: str) -> None:
    one, nan = (np.array([x], np.float32).astype(tensors.numpy_dtype(dtype)) for x in (1, np.nan))
    names = "false oeq ogt oge olt ole one ord ueq ugt uge ult ule une uno true".split()  # noqa: SIM905
    with_nan = {n: bool(scalars.compare_floats(i, one, nan)[0]) for i, n in enumerate(names)}
    assert {n for n, held in with_nan.items() if held} == {n for n in names if n[0] == "u"} | {
        "true"
    }
    alike = {n for i, n in enumerate(names) if scalars.compare_floats(i, one, one)[0]}
    assert alike == {"oeq", "oge", "ole", "ord", "ueq", "uge", "ule", "true"}


def cast(name: str, value: Any, source: str, result: str) -> Any:
    own, to = elements.of(source), elements.of(result)
    return scalars.cast(name, np.array([value], own.dtype), own, to, to.dtype, pytest.fail)[0]


def test_casts_keep_signs_only_where_they_should() -> None:
    assert cast("arith.extsi", -1, "i8", "i32") == -1
    assert cast("arith.extui", -1, "i8", "i32") == 255
    assert cast("arith.extui", -1, "i4", "i32") == 15
    assert cast("arith.extui", -1, "i4", "i8") == 15
    assert cast("arith.trunci", 9, "i8", "i4") == -7
    assert cast("arith.uitofp", -1, "i8", "f32") == 255.0
    assert cast("arith.fptoui", 200.7, "f32", "i8") == -56
    assert cast("arith.fptosi", -7.9, "f32", "i4") == -7
    assert cast("arith.extui", True, "i1", "i64") == 1
    assert cast("arith.extsi", True, "i1", "i64") == -1
    assert not cast("arith.trunci", 2, "i8", "i1")


@pytest.mark.parametrize(
    ("name", "values", "result"),
    [
        ("arith.fptosi", (np.nan,), "i32"),
        ("arith.fptoui", (-1.0,), "i8"),
        ("arith.divsi", (1, 0), "i8"),
        ("arith.shli", (1, 8), "i8"),
    ],
)
def test_what_is_undefined_is_reported(name: str, values: tuple[Any, ...], result: str) -> None:
    heard: list[str] = []

    def undefined(why: str) -> int:
        heard.append(why)
        return 5

    to = elements.of(result)
    source = elements.of("f32" if name.startswith("arith.fp") else "i8")
    given = [np.array([value], source.dtype) for value in values]
    if name in scalars.CASTS:
        made = scalars.cast(name, given[0], source, to, to.dtype, undefined)
    else:
        made = scalars.compute(name, given, source, to, undefined)
    assert made[0] == 5 and len(heard) == 1


# -- whole functions ------------------------------------------------------------------------------

PROGRAM = """
#row = affine_map<(i, j) -> (i, j)>
#sum = affine_map<(i, j) -> (i)>
#shifted = affine_map<(i, j) -> (i + j)>
#two = affine_map<(i, j) -> (j)>
module {
  util.func public @main(%x: tensor<3x4xf32>, %b: tensor<2x4xi8>) -> (tensor<3xf32>, tensor<2x4xi8>, tensor<4x5xf32>, tensor<2xf32>) {
    %zero = arith.constant 0.0 : f32
    %e = tensor.empty() : tensor<3xf32>
    %init = linalg.generic {indexing_maps = [affine_map<(i) -> (i)>], iterator_types = ["parallel"]} outs(%e : tensor<3xf32>) {
    ^bb0(%o: f32):
      linalg.yield %zero : f32
    } -> tensor<3xf32>
    %s = linalg.generic {indexing_maps = [#row, #sum], iterator_types = ["parallel", "reduction"]} ins(%x : tensor<3x4xf32>) outs(%init : tensor<3xf32>) {
    ^bb0(%a: f32, %o: f32):
      %q = arith.mulf %a, %a : f32
      %r = arith.addf %o, %q : f32
      linalg.yield %r : f32
    } -> tensor<3xf32>
    %sorted = iree_linalg_ext.sort dimension(1) outs(%b : tensor<2x4xi8>) {
    ^bb0(%l: i8, %r: i8):
      %c = arith.cmpi ult, %l, %r : i8
      iree_linalg_ext.yield %c : i1
    } -> tensor<2x4xi8>
    %p = tensor.pad %x low[0, 1] high[1, 0] {
    ^bb0(%i: index, %j: index):
      tensor.yield %zero : f32
    } : tensor<3x4xf32> to tensor<4x5xf32>
    %cut = tensor.extract_slice %x[0, 0] [1, 4] [1, 1] : tensor<3x4xf32> to tensor<4xf32>
    %k = arith.constant dense<[1.0, 10.0, 100.0]> : tensor<3xf32>
    %ce = arith.constant dense<0.0> : tensor<2xf32>
    %conv = linalg.generic {indexing_maps = [#shifted, #two, #sum], iterator_types = ["parallel", "reduction"]} ins(%cut, %k : tensor<4xf32>, tensor<3xf32>) outs(%ce : tensor<2xf32>) {
    ^bb0(%a: f32, %w: f32, %o: f32):
      %q = arith.mulf %a, %w : f32
      %r = arith.addf %o, %q : f32
      linalg.yield %r : f32
    } -> tensor<2xf32>
    util.return %s, %sorted, %p, %conv : tensor<3xf32>, tensor<2x4xi8>, tensor<4x5xf32>, tensor<2xf32>
  }
}
"""  # noqa: E501


def evaluated(text: str, directory: Path, *given: Any, **more: Any) -> Evaluation:
    """What comes of the function `main` of a program."""
    (directory / "p.mlir").write_text(text)
    kept = [tensors.save(values, directory, f"{i}.bin") for i, values in enumerate(given)]
    work = EvaluationWork(
        mlir=str(directory / "p.mlir"),
        function="main",
        inputs=tuple(msgspec.structs.replace(t, file=str(directory / t.file)) for t in kept),
        place=str(directory),
        **more,
    )
    *_, found = evaluator_child.stages(work)
    return found


def test_a_function_is_interpreted(tmp_path: Path) -> None:
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    b = np.array([[3, 200, 1, 255], [9, 8, 7, 128]], np.uint8)
    found = evaluated(PROGRAM, tmp_path, x, b, outputs=("f32", "ui8", "f32", "f32"), values=None)
    assert found.why == "" and found.reference is not None
    total, ordered, padded, convolved = (tensors.load(tmp_path, t) for t in found.reference.outputs)
    assert np.array_equal(total, (x * x).sum(1))
    assert np.array_equal(ordered, np.sort(b, 1))
    assert np.array_equal(padded, np.pad(x, ((0, 1), (1, 0))))
    assert np.array_equal(convolved, np.convolve(x[0], [100, 10, 1], "valid"))
    (wide, *_) = (tensors.load(tmp_path, t) for t in found.reference.precise)
    assert wide.dtype == np.float64 and np.array_equal(wide, (x * x).sum(1))
    inside = {value.op: value for value in found.values}
    assert np.array_equal(tensors.load(tmp_path, inside[3].own), total)
    assert inside[3].precise is not None and inside[3].precise.dtype == "f64"


def test_what_is_not_known_is_said(tmp_path: Path) -> None:
    text = PROGRAM.replace("arith.mulf %a, %a : f32", '"unheard.square"(%a) : (f32) -> f32')
    found = evaluated(text, tmp_path, np.zeros((3, 4), np.float32), np.zeros((2, 4), np.int8))
    assert found.reference is None and "unheard.square is not evaluated" in found.why


OUTSIDE = """
func.func @main(%a: tensor<4xf32>, %i: tensor<2xi32>) -> (tensor<2xf32>, tensor<4xf32>) {
  %c1 = arith.constant 1 : i32
  %e = tensor.empty() : tensor<2xf32>
  %r = linalg.generic {indexing_maps = [affine_map<(d) -> (d)>, affine_map<(d) -> (d)>],
      iterator_types = ["parallel"]} ins(%i : tensor<2xi32>) outs(%e : tensor<2xf32>) {
  ^bb0(%x: i32, %o: f32):
    %y = arith.subi %x, %c1 : i32
    %at = arith.index_cast %y : i32 to index
    %v = tensor.extract %a[%at] : tensor<4xf32>
    linalg.yield %v : f32
  } -> tensor<2xf32>
  %c0 = arith.constant 0 : index
  %first = tensor.extract %i[%c0] : tensor<2xi32>
  %to = arith.index_cast %first : i32 to index
  %zero = arith.constant 0.0 : f32
  %w = tensor.insert %zero into %a[%to] : tensor<4xf32>
  return %r, %w : tensor<2xf32>, tensor<4xf32>
}
"""


@pytest.mark.parametrize(
    ("indices", "what"),
    [([0, 2], "tensor.extract outside of a tensor"), ([4, 1], "writing outside of a tensor")],
)
def test_what_lies_outside_of_a_tensor_is_no_reference(
    tmp_path: Path, indices: list[int], what: str
) -> None:
    x = np.arange(1, 5, dtype=np.float32)
    given = (x, np.array([1, 4], np.int32))
    right = evaluated(OUTSIDE, tmp_path, *given, outputs=("f32", "f32"))
    assert right.reference is not None
    read, written = (tensors.load(tmp_path, t) for t in right.reference.outputs)
    assert read.tolist() == [1, 4] and written.tolist() == [1, 0, 3, 4]
    wrong = evaluated(OUTSIDE, tmp_path, x, np.array(indices, np.int32), outputs=("f32", "f32"))
    assert wrong.reference is None
    assert f"depend on what MLIR leaves undefined: {what}" in wrong.why


HALF = """
func.func @main(%x: tensor<4xf32>) -> (tensor<4xf32>, tensor<4xf32>) {
  %0 = "test.draws"(%x) : (tensor<4xf32>) -> tensor<4xf32>
  %1 = arith.negf %0 : tensor<4xf32>
  %2 = arith.addf %x, %x : tensor<4xf32>
  return %1, %2 : tensor<4xf32>, tensor<4xf32>
}
"""


def test_what_does_not_depend_on_what_is_not_known_is_evaluated(tmp_path: Path) -> None:
    x = np.arange(4, dtype=np.float32)
    found = evaluated(HALF, tmp_path, x, outputs=("f32", "f32"), values=None)
    assert found.reference is None and found.skipped == (0,)
    assert "test.draws" in found.why
    (sum_,) = found.values
    assert sum_.op == 2 and np.array_equal(tensors.load(tmp_path, sum_.own), 2 * x)
    rest = HALF.replace("return %1", "return %2")
    found = evaluated(rest, tmp_path, x, outputs=("f32", "f32"), values=None)
    assert found.reference is not None and found.skipped == (0,)
    assert found.reference.precise_dtype == "f64"
    assert evaluated(rest, tmp_path, x, outputs=("f32", "f32")).reference is None


ARGMAX = """
#row = affine_map<(i, j) -> (i, j)>
#one = affine_map<(i, j) -> (i)>
func.func @main(%x: tensor<2x4xf32>) -> (tensor<2xf32>, tensor<2xi32>, tensor<2x4xf32>) {
  %low = arith.constant dense<0xFF800000> : tensor<2xf32>
  %zero = arith.constant dense<0> : tensor<2xi32>
  %m:2 = linalg.generic {indexing_maps = [#row, #one, #one],
      iterator_types = ["parallel", "reduction"]}
      ins(%x : tensor<2x4xf32>) outs(%low, %zero : tensor<2xf32>, tensor<2xi32>) {
  ^bb0(%a: f32, %v: f32, %p: i32):
    %j = linalg.index 1 : index
    %k = arith.index_cast %j : index to i32
    %c = arith.cmpf ogt, %a, %v : f32
    %w = arith.select %c, %a, %v : f32
    %q = arith.select %c, %k, %p : i32
    linalg.yield %w, %q : f32, i32
  } -> (tensor<2xf32>, tensor<2xi32>)
  %tiny = arith.constant dense<1.0e-30> : tensor<2x4xf32>
  %s = arith.mulf %tiny, %tiny : tensor<2x4xf32>
  %t = arith.divf %s, %tiny : tensor<2x4xf32>
  return %m#0, %m#1, %t : tensor<2xf32>, tensor<2xi32>, tensor<2x4xf32>
}
"""


def test_what_is_as_right_is_told_of_ties_and_of_what_devices_flush(tmp_path: Path) -> None:
    x = np.array([[1, 3, 3, 2], [0, 1, 2, 3]], np.float32)
    found = evaluated(ARGMAX, tmp_path, x).reference
    assert found is not None
    (backwards,), ties = found.retied, found.ties
    assert ties == ("linalg.generic",)
    assert tensors.load(tmp_path, found.outputs[1]).tolist() == [1, 3]
    assert tensors.load(tmp_path, backwards[1]).tolist() == [2, 3]
    assert tensors.load(tmp_path, backwards[0]).tolist() == [3, 3]
    assert np.allclose(tensors.load(tmp_path, found.precise[2]), 1e-30)
    assert not tensors.load(tmp_path, found.flushed[2]).any()


POSITIVE = """
func.func @main(%x: tensor<3x{type}>) -> tensor<3xi1> {{
  %zero = arith.constant dense<0.0> : tensor<3x{type}>
  %0 = arith.cmpf ogt, %x, %zero : tensor<3x{type}>
  return %0 : tensor<3xi1>
}}
"""


def test_what_is_given_is_flushed_but_for_f64(tmp_path: Path) -> None:
    x = np.array([1e-40, 1.0, -1e-40], np.float32)
    found = evaluated(POSITIVE.format(type="f32"), tmp_path, x).reference
    assert found is not None
    assert tensors.load(tmp_path, found.precise[0]).tolist() == [True, True, False]
    assert tensors.load(tmp_path, found.flushed[0]).tolist() == [False, True, False]
    wide = evaluated(POSITIVE.format(type="f64"), tmp_path, x.astype(np.float64)).reference
    assert wide is not None and wide.flushed == ()


#: NaN goes through PyTorch's clamp; IREE's conversion from torch makes it the lower bound.
CLAMP = """
func.func @main(%x: !torch.vtensor<[4],f32>) -> !torch.vtensor<[4],f32> {
  %low = torch.constant.float -1.0
  %high = torch.constant.float 1.0
  %0 = torch.aten.clamp %x, %low, %high
      : !torch.vtensor<[4],f32>, !torch.float, !torch.float -> !torch.vtensor<[4],f32>
  return %0 : !torch.vtensor<[4],f32>
}
"""


@pytest.mark.real
def test_a_conversion_that_every_backend_shares_is_found_by_interpreting(tmp_path: Path) -> None:
    (tmp_path / "program.mlir").write_text(CLAMP)
    x = np.array([-3, np.nan, 0.5, 2], np.float32)
    kind = TensorType(name="x", dtype="f32", shape=(4,))
    own = (tensors.save(np.clip(x, -1, 1), tmp_path, "out.bin"),)
    function = Function(
        name="main",
        inputs=(kind,),
        outputs=(kind,),
        example=(tensors.save(x, tmp_path, "in.bin"),),
        reference=Reference(outputs=own),
    )
    program = Program(
        source="clamp", digest="0" * 64, functions=(function,), parameters=None, origin={}
    )
    loaded = Loaded(program=program, directory=str(tmp_path), seconds=0, cached=False)
    release, limits = toolchain.installed(), process.Limits(seconds=60)
    trial = AttributionTrial(
        loaded, Context(toolchain=release, limits=limits, directory=tmp_path / "trial")
    )
    flags = (
        "--iree-hal-target-device=local",
        "--iree-hal-local-target-device-backends=llvm-cpu",
        "--iree-llvmcpu-target-cpu=generic",
    )
    bench = RealBench(
        trial,
        flags,
        "local-sync",
        Context(toolchain=release, limits=limits, directory=tmp_path / "bench"),
    )
    found = phases.find(bench)
    assert (found.state, found.phase, found.path) == ("earliest", "input", INTERPRETED)
    assert found.pass_name == "convert-torch-to-linalg"
    assert "torch.aten.clamp" in found.changed and "arith.cmpf ult" in found.changed
