"""What computes a program's values: the same call, whichever engine runs it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from iree_pilot.pipeline.execution import engine
from iree_pilot.pipeline.execution.engine import NUMPY, TORCH, Engine, Iree, Unsupported, Values
from iree_pilot.pipeline.failures.diagnostics import Failure
from iree_pilot.pipeline.program import tensors
from iree_pilot.pipeline.program.program import Call, Function, Program, TensorType
from iree_pilot.pipeline.toolchain.compiler import Compile
from iree_pilot.pipeline.toolchain.context import Context
from iree_pilot.pipeline.toolchain.toolchain import installed

CPU = (
    "--iree-hal-target-device=local",
    "--iree-hal-local-target-device-backends=llvm-cpu",
    "--iree-llvmcpu-target-cpu=generic",
)
DOUBLING = """\
func.func @main(%x: tensor<3xf32>) -> tensor<3xf32> {
  %r = arith.addf %x, %x : tensor<3xf32>
  return %r : tensor<3xf32>
}
"""


@pytest.fixture
def call(tmp_path: Path) -> Call:
    (tmp_path / "program.mlir").write_text(DOUBLING)
    kind = TensorType(name="x", dtype="f32", shape=(3,))
    example = tensors.save(np.array([1, 2, 3], np.float32), tmp_path, "x.bin")
    function = Function(name="main", inputs=(kind,), outputs=(kind,), example=(example,))
    program = Program(source="p", digest="", functions=(function,), parameters=None, origin={})
    return Call(program=program, directory=tmp_path, function=function)


@pytest.fixture
def iree(call: Call, tmp_path: Path) -> Iree:
    context = Context(toolchain=installed(), directory=tmp_path / "compiled")
    module = engine.compiled(Compile(mlir=call.mlir, flags=CPU), context)
    assert isinstance(module, Path)
    return Iree(module, "local-sync", context)


@pytest.mark.parametrize(
    ("text", "by"),
    [
        ("torch.aten.relu %x", TORCH),
        ('torch.aten.relu %x loc("tensor.py":3:4)', TORCH),
        ("linalg.add ins(%x)", NUMPY),
        ('torch.operator "onnx.Relu"(%x)', NUMPY),
        ("torch.aten.relu %x\n linalg.add ins(%x)", NUMPY),
        ("arith.addf %x, %x", NUMPY),
    ],
)
def test_a_program_is_evaluated_by_who_knows_its_operations(
    text: str, by: Engine, tmp_path: Path
) -> None:
    file = tmp_path / "program.mlir"
    file.write_text(text)
    assert engine.evaluating(file) == by


@pytest.mark.real
def test_engines_give_the_same_values(call: Call, iree: Iree, tmp_path: Path) -> None:
    engines: dict[str, Engine] = {"iree": iree, "numpy": NUMPY}
    for name, by in engines.items():
        values = by.run(call, tmp_path / name)
        assert isinstance(values, Values)
        (output,) = values.outputs
        assert tensors.load(Path(), output).tolist() == [2, 4, 6]


@pytest.mark.real
def test_what_an_engine_cannot_run_says_nothing_of_the_program(
    call: Call, iree: Iree, tmp_path: Path
) -> None:
    calls: dict[str, tuple[Engine, Function]] = {
        "no inputs": (iree, Function(name="main", inputs=(), outputs=())),
        "no such function": (NUMPY, Function(name="other", inputs=(), outputs=(), example=())),
    }
    for name, (by, function) in calls.items():
        other = Call(program=call.program, directory=call.directory, function=function)
        assert isinstance(by.run(other, tmp_path / name), Unsupported)


@pytest.mark.real
def test_a_program_that_fails_is_a_failure(call: Call, iree: Iree, tmp_path: Path) -> None:
    (tmp_path / "broken.mlir").write_text("nothing of the kind")
    job = Compile(mlir=tmp_path / "broken.mlir", flags=CPU)
    assert isinstance(engine.compiled(job, iree.context), Failure)
    iree.module.write_bytes(b"")
    assert isinstance(iree.run(call, tmp_path / "ran"), Failure)
