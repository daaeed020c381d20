"""Types that the compiler changes at a function's border are those of its callers."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from driver import pilot

from iree_pilot.pipeline.errors import UsageError
from iree_pilot.pipeline.execution import border
from iree_pilot.pipeline.failures.diagnostics import Failure
from iree_pilot.pipeline.frontends.inputs import fitting
from iree_pilot.pipeline.numerics import numerics
from iree_pilot.pipeline.numerics.noise import Noise
from iree_pilot.pipeline.program.program import (
    Call,
    Function,
    Program,
    Reference,
    Tensor,
    TensorType,
)


def function(taken: str, returned: str, shape: tuple[int, ...] = (4,)) -> Function:
    return Function(
        name="f",
        inputs=(TensorType(name="arg0", dtype=taken, shape=shape),),
        outputs=(TensorType(name="result0", dtype=returned, shape=shape),),
    )


def failure(message: str) -> Failure:
    return Failure(kind="runtime-error", message=message, signature="")


def module(directory: Path, declaration: str) -> Path:
    file = directory / "module.vmfb"
    file.write_bytes(b"\1\0\0\0" + declaration.encode() + b"\0rest")
    return file


def stored(directory: Path, name: str, values: object, kind: str, dtype: str) -> Tensor:
    array = np.asarray(values, kind)
    array.tofile(directory / name)
    return Tensor(dtype=dtype, shape=array.shape, file=name)


@pytest.mark.real
@pytest.mark.parametrize(
    ("stated", "own", "expected"),
    [
        ("sync func @f(%input0: tensor<4xf32>) -> (%output0: tensor<4xf32>)", "f64", "f32"),
        ("async func @f(%input0: tensor<4xf32>) -> (%output0: tensor<4xf32>)", "f64", "f32"),
        ("sync func @f$async(%input0: tensor<4xf32>) -> (%output0: tensor<4xf32>)", "f64", "f32"),
        ("sync func @f(%input0: tensor<4xf16>) -> (%output0: tensor<4xf16>)", "f32", "f16"),
        ("sync func @f(%input0: tensor<4xi32>) -> (%output0: tensor<4xi32>)", "i64", "i32"),
        ("sync func @f(%input0: tensor<4xf32>) -> (%output0: tensor<4xf32>)", "bf16", "f32"),
        # Another function, another shape, another kind of number: nothing of the border's.
        ("sync func @g(%input0: tensor<4xf32>) -> (%output0: tensor<4xf32>)", "f64", "f64"),
        ("sync func @f(%input0: tensor<4x1xf32>) -> (%output0: tensor<4x1xf32>)", "f64", "f64"),
        ("sync func @f(%input0: tensor<4xi32>) -> (%output0: tensor<4xi32>)", "f64", "f64"),
        ("sync func @f(%input0: tensor<4xi8>) -> (%output0: tensor<4xi8>)", "ui8", "ui8"),
        ("sync func @f(%input0: tensor<", "f64", "f64"),
        ("", "f64", "f64"),
    ],
)
def test_the_modules_reflection_says_what_it_takes(
    tmp_path: Path, stated: str, own: str, expected: str
) -> None:
    program = function(own, own)
    found = border.of_module(module(tmp_path, stated), program)
    assert (found.inputs[0].dtype, found.outputs[0].dtype) == (expected, expected)
    assert (found is program) == (own == expected)


def test_a_number_on_its_own_is_changed_as_well(tmp_path: Path) -> None:
    number = TensorType(name="arg0", dtype="f64", shape=(), passed="scalar")
    program = Function(name="f", inputs=(number,), outputs=(number,))
    found = border.of_module(module(tmp_path, "sync func @f(%input0: f32) -> (%o: f32)"), program)
    assert found.inputs == found.outputs == (msgspec.structs.replace(number, dtype="f32"),)


def test_inputs_are_given_in_the_modules_type_or_refused(tmp_path: Path) -> None:
    for own, kind, other, values in (
        ("f64", "<f8", "f32", [0.1, 1, 2, 1e300]),
        ("i64", "<i8", "i32", [1, 2, -3, 2**31 - 1]),
    ):
        tensor = stored(tmp_path, f"{own}.bin", values, kind, own)
        program = msgspec.structs.replace(function(own, own), example=(tensor,))
        given = border.given(program, function(other, other), tmp_path, tmp_path).example
        assert given is not None and given[0].dtype == other
        with np.errstate(over="ignore"):
            expected = np.asarray(values).astype(f"<{other}".replace("32", "4"))
        assert Path(given[0].file).read_bytes() == expected.tobytes()
    tensor = stored(tmp_path, "large.bin", [1, 2, 3, 2**31], "<i8", "i64")
    program = msgspec.structs.replace(function("i64", "i64"), example=(tensor,))
    with pytest.raises(UsageError, match="arg0 of f has a number that does not fit into i32"):
        border.given(program, function("i32", "i32"), tmp_path, tmp_path)


@pytest.mark.parametrize(
    ("want", "kind", "dtype", "values", "kept"),
    [
        ("f64", "<f4", "f32", [0.5, -0.0, np.nan, np.inf], "f64"),
        ("i64", "<i4", "i32", [1, -2, 3, 4], "i64"),
        ("f16", "<f4", "f32", [0.5, 1, 2, 3], "f16"),
        ("f16", "<f4", "f32", [0.1, 1, 2, 3], "f32"),  # f16 cannot hold 0.1
        ("f64", "<i4", "i32", [1, 2, 3, 4], "i32"),
        ("i32", "<i8", "i64", [1, 2, 3, 4], "i64"),
    ],
)
def test_users_may_give_the_type_that_the_compiler_makes_of_the_programs(
    tmp_path: Path, want: str, kind: str, dtype: str, values: list[float], kept: str
) -> None:
    (tmp_path / "data").mkdir()
    got = stored(tmp_path, "given.bin", values, kind, dtype)
    taken = TensorType(name="x", dtype=want, shape=(4,))
    passed = fitting.passed(taken, got, "x", tmp_path)
    assert passed.dtype == kept
    if kept == want:
        held = np.fromfile(passed.file, f"<{want[0]}{int(want[1:]) // 8}")
        np.testing.assert_array_equal(held, np.asarray(values))


def compared(directory: Path, got: Tensor, own: Tensor, precise: Tensor | None) -> bool:
    """Whether an output agrees with its reference."""
    (directory / "program.mlir").write_text("// f64\n")
    program = Program(source="p", digest="", functions=(), parameters=None, origin={})
    reference = Reference(outputs=(own,), precise=(precise,) if precise else ())
    one = msgspec.structs.replace(function(own.dtype, own.dtype), reference=reference)
    found = numerics.compare(
        (got,),
        Call(program=program, directory=directory, function=one),
        outputs_directory=directory,
        program_noise=Noise(computes="f64"),
    )
    return found.ok


def test_outputs_are_compared_in_the_modules_type(tmp_path: Path) -> None:
    values = [0.1, 1 / 3, 1e300, 4e-3]
    own = stored(tmp_path, "own.bin", values, "<f8", "f64")
    with np.errstate(over="ignore"):
        right = stored(tmp_path, "right.bin", values, "<f4", "f32")
    wrong = stored(tmp_path, "wrong.bin", [0.1, 0.334, np.inf, 4e-3], "<f4", "f32")
    for got, agrees in ((right, True), (wrong, False)):
        stated = msgspec.structs.replace(got, stated="f64")
        assert compared(tmp_path, stated, own, own) is agrees
        assert compared(tmp_path, stated, own, None) is (got is right)
    # A type that nobody changed is a mismatch.
    assert not compared(tmp_path, right, own, own)
    large = stored(tmp_path, "i64.bin", [1, 2, 3, 2**32 + 5], "<i8", "i64")
    low = stored(tmp_path, "i32.bin", [1, 2, 3, 5], "<i4", "i32")
    assert compared(tmp_path, msgspec.structs.replace(low, stated="i64"), large, large)


F64 = """func.func @f(%x: tensor<4xf64>) -> (tensor<4xf64>, tensor<4xi1>, f64) {
  %k = arith.constant dense<0.100000000001> : tensor<4xf64>
  %b = arith.cmpf olt, %x, %k : tensor<4xf64>
  %y = math.absf %x : tensor<4xf64>
  %n = arith.constant 0.1 : f64
  %l = util.optimization_barrier %n : f64
  return %y, %b, %l : tensor<4xf64>, tensor<4xi1>, f64
}
"""
SORT = """
func.func @f(%k: tensor<3x8xi32>, %v: tensor<3x8xf64>) -> (tensor<3x8xi32>, tensor<3x8xf64>) {
  %0:2 = "stablehlo.sort"(%k, %v) ({
  ^bb0(%a: tensor<i32>, %b: tensor<i32>, %c: tensor<f64>, %d: tensor<f64>):
    %s = stablehlo.compare LT, %a, %b, SIGNED : (tensor<i32>, tensor<i32>) -> tensor<i1>
    stablehlo.return %s : tensor<i1>
  }) {dimension = 1 : i64, is_stable = true}
    : (tensor<3x8xi32>, tensor<3x8xf64>) -> (tensor<3x8xi32>, tensor<3x8xf64>)
  return %0#0, %0#1 : tensor<3x8xi32>, tensor<3x8xf64>
}
"""
WHOLE = """func.func @f(%x: tensor<4xi64>) -> tensor<4xi64> {
  %y = arith.addi %x, %x : tensor<4xi64>
  return %y : tensor<4xi64>
}
"""


def verdict(*words: str | Path, flags: tuple[str, ...] = ()) -> tuple[str, str, str]:
    """(status, why, what is said of the types) of one function on llvm-cpu."""
    done = pilot("run", *words, "-t", "llvm-cpu", "--json", *(("--", *flags) if flags else ()))
    (case,) = done.document["cases"]
    assert done.code == (case["status"] == "failed"), done.err
    return case["status"], case["why"], case["functions"][0]["border"]


@pytest.mark.real
def test_a_program_in_f64_is_judged_as_it_is_compiled(tmp_path: Path) -> None:
    file = tmp_path / "f64.mlir"
    file.write_text(F64)
    for given in (("--input", "4xf32=-1 2 3 4"), ("--input", "4xf64=-1 2 3 4"), ()):
        status, why, said = verdict(file, *given)
        assert (status, why) == ("ok", "")
        assert "arg0 f32 where the program has f64, result0 f32 where" in said
    # 0.1 is less than the program's constant, and in f32 it is equal: nobody's failure.
    status, why, _ = verdict(file, "--input", "4xf64=0.1 2 3 4")
    assert (
        status == "ran"
        and "(result1, 4): agrees with the program in the types of the module" in why
    )
    keeps = ("--iree-input-demote-f64-to-f32=false",)
    assert verdict(file, "--input", "4xf64=0.1 2 3 4", flags=keeps) == ("ok", "", "")


@pytest.mark.real
def test_what_is_wrong_in_either_type_is_a_failure(tmp_path: Path) -> None:
    """IREE's sort is not stable, whatever it is asked."""
    file = tmp_path / "sort.mlir"
    file.write_text(SORT)
    status, _, said = verdict(file)
    assert status == "failed" and "result1 f32 where the program has f64" in said


@pytest.mark.real
def test_outputs_may_be_expected_in_either_type(tmp_path: Path) -> None:
    file = tmp_path / "f64.mlir"
    file.write_text(F64)
    for dtype in ("f32", "f64"):
        for first, expected in ((1, "ran"), (2, "failed")):
            outputs = (f"4x{dtype}={first} 2 3 4", "(ignored)", "(ignored)")
            words = [word for output in outputs for word in ("--expected-output", output)]
            status, why, _ = verdict(file, "--input", "4xf64=-1 2 3 4", *words)
            assert status == expected, why


@pytest.mark.real
@pytest.mark.parametrize(
    ("text", "flag", "said"),
    [
        (WHOLE, "--iree-input-demote-i64-to-i32", "arg0 i32 where the program has i64"),
        (
            WHOLE.replace("i64", "f32").replace("addi", "addf"),
            "--iree-input-demote-f32-to-f16",
            "arg0 f16 where the program has f32",
        ),
        (
            WHOLE.replace("i64", "bf16").replace("addi", "addf"),
            "--iree-input-promote-bf16-to-f32",
            "arg0 f32 where the program has bf16",
        ),
    ],
)
def test_flags_that_change_types_are_no_failure(
    tmp_path: Path, text: str, flag: str, said: str
) -> None:
    file = tmp_path / "flag.mlir"
    file.write_text(text)
    status, why, border = verdict(file, flags=(flag,))
    assert (status, why) == ("ok", "") and said in border


@pytest.mark.real
@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("--iree-flow-export-benchmark-funcs", "no function `f` exported"),
        ("--iree-native-bindings-support=false", "expected 2 arguments but passed 1"),
    ],
)
def test_a_flag_that_changes_how_functions_are_called_is_no_failure(
    tmp_path: Path, flag: str, said: str
) -> None:
    file = tmp_path / "flag.mlir"
    file.write_text(WHOLE)
    done = pilot("run", file, "-t", "llvm-cpu", "--json", "--", flag)
    (case,) = done.document["cases"]
    assert (done.code, case["status"], case["failure"]) == (0, "compiled", None)
    assert f"with {flag} the module cannot be called as the program states" in case["why"]
    assert said in case["why"]
    done = pilot("bisect", file, "-t", "llvm-cpu", "--json", "--", flag)
    assert (done.code, done.document["status"]) == (1, "passes")


def test_only_a_users_flag_explains_how_a_module_is_called() -> None:
    missing = failure("NOT_FOUND; no function `f` exported by module")
    assert "with --a --b the module cannot" in border.uncallable(missing, ("--a", "--b"))
    assert not border.uncallable(missing, ())
    assert not border.uncallable(failure("OUT_OF_RANGE; element 3"), ("--a",))
