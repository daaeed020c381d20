"""What the user expects is the reference: of every output, in every form, or refused in words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from driver import pilot

from iree_pilot.pipeline.errors import UsageError
from iree_pilot.pipeline.frontends.load import Loaded
from iree_pilot.pipeline.numerics.expected import with_outputs
from iree_pilot.pipeline.program.program import Dim, Function, Program, TensorType
from iree_pilot.pipeline.store.store import Store

TWICE = """func.func @main(%x: tensor<4xf32>) -> (tensor<4xf32>, tensor<4xi32>) {
  %y = arith.addf %x, %x : tensor<4xf32>
  %i = arith.fptosi %y : tensor<4xf32> to tensor<4xi32>
  return %y, %i : tensor<4xf32>, tensor<4xi32>
}
"""


def loaded(*outputs: tuple[str, tuple[int | Dim, ...]], functions: int = 1) -> Loaded:
    types = tuple(
        TensorType(name=f"y{n}", dtype=dtype, shape=shape)
        for n, (dtype, shape) in enumerate(outputs)
    )
    program = Program(
        source="a.mlir",
        digest="",
        functions=tuple(
            Function(name=f"f{n}", inputs=(), outputs=types, example=()) for n in range(functions)
        ),
        parameters=None,
        origin={},
    )
    return Loaded(program=program, directory="", seconds=0.0, cached=False)


PAIR = (("f32", (2, 3)), ("i64", (4,)))


def test_files_numbers_and_what_is_ignored_become_the_reference(tmp_path: Path) -> None:
    np.save(tmp_path / "y.npy", np.arange(6, dtype=np.float32).reshape(2, 3))
    for first in (f"@{tmp_path}/y.npy", f"{tmp_path}/y.npy"):
        found = with_outputs(loaded(*PAIR), (first, "4xi64=7"), Store(tmp_path / "store"))
        reference = found.program.functions[0].reference
        assert reference is not None and reference.incomparable == ("", "")
        values = [Path(o.file).read_bytes() for o in reference.outputs]
        assert np.frombuffer(values[0], np.float32).tolist() == [0, 1, 2, 3, 4, 5]
        assert np.frombuffer(values[1], np.int64).tolist() == [7] * 4
    found = with_outputs(loaded(*PAIR), ("2x3xf32=[1 2 3] [4 5 6]", "(ignored)"), Store(tmp_path))
    reference = found.program.functions[0].reference
    assert reference is not None
    numbers = np.fromfile(reference.outputs[0].file, np.float32)
    assert numbers.tolist() == [1, 2, 3, 4, 5, 6]
    found = with_outputs(loaded(*PAIR), ("(ignored)", "4xi64=7"), Store(tmp_path / "store"))
    reference = found.program.functions[0].reference
    assert reference is not None
    assert reference.incomparable == ("it is (ignored) by the user", "")


def test_a_dynamic_dimension_may_have_any_size(tmp_path: Path) -> None:
    found = with_outputs(
        loaded(("f32", (Dim(symbol="n"), 3))), ("2x3xf32=1",), Store(tmp_path / "store")
    )
    reference = found.program.functions[0].reference
    assert reference is not None and reference.outputs[0].shape == (2, 3)


@pytest.mark.parametrize(
    ("specs", "said"),
    [
        (("2x3xf32=1",), "has 2 outputs, --expected-output is given 1 times"),
        (("2x3xi32=1", "(ignored)"), "dtype i32 where f32 is returned"),
        (("2x4xf32=1", "(ignored)"), "dimension 1 is 4 where 3 is returned"),
        (("6xf32=1", "(ignored)"), "1 dimensions where 2 are returned"),
        (("nothing.npy", "(ignored)"), "--expected-output nothing.npy: no file nothing.npy"),
        (("2x3xf33=1", "(ignored)"), "--expected-output 2x3xf33=1: unknown element type f33"),
    ],
)
def test_what_does_not_fit_is_told(tmp_path: Path, specs: tuple[str, ...], said: str) -> None:
    with pytest.raises(UsageError) as fault:
        with_outputs(loaded(*PAIR), specs, Store(tmp_path / "store"))
    assert said in fault.value.message
    assert "--input" not in f"{fault.value.message}{fault.value.advice}"


def test_several_functions_need_a_choice(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as fault:
        with_outputs(loaded(*PAIR, functions=2), ("(ignored)",) * 2, Store(tmp_path / "store"))
    assert "f0, f1" in fault.value.message and "--function" in fault.value.advice


@pytest.mark.real
def test_a_program_is_judged_by_it(tmp_path: Path) -> None:
    (tmp_path / "twice.mlir").write_text(TWICE)
    np.save(tmp_path / "y.npy", np.array([2, 4, 6, 8], np.float32))
    inputs = ("--input", "4xf32=1.5", "--json")

    def run(*expected: str) -> tuple[int, dict[str, object]]:
        words = [word for one in expected for word in ("--expected-output", one)]
        done = pilot("run", "twice.mlir", "-t", "llvm-cpu", *inputs, *words, cwd=tmp_path)
        return done.code, done.document["cases"][0]

    code, right = run("4xf32=3", "4xi32=3")
    assert (code, right["status"], right["why"]) == (0, "ok", "")
    code, part = run("(ignored)", "4xi32=3")
    assert (code, part["status"]) == (0, "ran")
    assert "output 0" in str(part["why"]) and "the other output agrees" in str(part["why"])
    code, wrong = run("y.npy", "4xi32=3")
    assert (code, wrong["status"]) == (1, "failed")
    assert "output 0" in str(wrong["failure"])


#: Rounds to f16 inside, and gives f32 and an integer.
HALF = """func.func @main(%x: tensor<64xf32>) -> (tensor<64xf32>, i32) {
  %n = arith.constant 3 : i32
  %h = arith.truncf %x : tensor<64xf32> to tensor<64xf16>
  %s = arith.addf %h, %h : tensor<64xf16>
  %y = arith.extf %s : tensor<64xf16> to tensor<64xf32>
  return %y, %n : tensor<64xf32>, i32
}
"""


@pytest.mark.real
def test_what_it_may_be_off_by_is_what_an_evaluator_is(tmp_path: Path) -> None:
    (tmp_path / "half.mlir").write_text(HALF)
    x = np.linspace(1, 2, 64, dtype=np.float32)
    right = 2 * x.astype(np.float16).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    for name, values, status in (("right", right, "ok"), ("off", 1.01 * right, "failed")):
        np.save(tmp_path / f"{name}.npy", values)
        words = ("--input", "x.npy", "--expected-output", f"{name}.npy", "--json")
        words += ("--expected-output", "3")  # integers beside are exact
        done = pilot("run", "half.mlir", "-t", "llvm-cpu", *words, cwd=tmp_path)
        assert done.document["cases"][0]["status"] == status, done.out
