"""What iree-compile and iree-run-module take is taken: every way to pass a value, of any scope."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from driver import pilot

from iree_pilot.pipeline.errors import UsageError
from iree_pilot.pipeline.execution import runtime
from iree_pilot.pipeline.execution.runtime import Run
from iree_pilot.pipeline.frontends import source
from iree_pilot.pipeline.frontends.inputs import examples
from iree_pilot.pipeline.frontends.job import Job
from iree_pilot.pipeline.frontends.mlir import mlir
from iree_pilot.pipeline.processes import process
from iree_pilot.pipeline.processes.process import Limits
from iree_pilot.pipeline.program import archive, tensors
from iree_pilot.pipeline.program.archive import ArchiveEntry
from iree_pilot.pipeline.program.program import Parameters, Program
from iree_pilot.pipeline.toolchain import toolchain
from iree_pilot.pipeline.toolchain.context import Context

CPU = (
    "--iree-hal-target-device=local",
    "--iree-hal-local-target-device-backends=llvm-cpu",
    "--iree-llvmcpu-target-cpu=generic",
)
#: Numbers of several types, packed integers and weights of two scopes, in and out.
TAKEN = """
util.global private @a = #flow.parameter.named<"model"::"w"> : tensor<4xi32>
util.global private @b = #flow.parameter.named<"other"::"w"> : tensor<8xi4>
func.func @main(%n: i32, %x: tensor<4xi32>, %k: f32, %i: index, %t: i1, %h: bf16, %p: tensor<8xi4>)
    -> (tensor<4xi32>, i32, f32, index, i1, bf16, tensor<8xi4>, tensor<8xi4>) {
  %a = util.global.load @a : tensor<4xi32>
  %b = util.global.load @b : tensor<8xi4>
  %e = tensor.empty() : tensor<4xi32>
  %f = linalg.fill ins(%n : i32) outs(%e : tensor<4xi32>) -> tensor<4xi32>
  %s = arith.addi %x, %f : tensor<4xi32>
  %r = arith.addi %s, %a : tensor<4xi32>
  return %r, %n, %k, %i, %t, %h, %p, %b : tensor<4xi32>, i32, f32, index, i1, bf16, tensor<8xi4>,
    tensor<8xi4>
}
"""


@pytest.fixture
def archives(tmp_path: Path) -> dict[str, Path]:
    """One for each scope; both name their tensor alike."""
    integers = np.arange(4, dtype=np.int32)
    nibbles = np.array([1, -8, 7, -1, 0, 2, 3, -2], ml_dtypes.int4)
    made = {}
    for scope, values, dtype in (("model", integers, "i32"), ("other", nibbles, "i4")):
        raw = tensors.encoded(values, dtype)
        made[scope] = tmp_path / f"{scope}.safetensors"
        entry = ArchiveEntry(dtype=dtype, shape=values.shape)
        archive.write(made[scope], {"w": (entry, lambda raw=raw: raw)})
    return made


def build(place: Path, text: str, words: tuple[str, ...] = (), **options: Any) -> Program:
    """The program of an MLIR text in a new directory below `place`."""
    (place / "p.mlir").write_text(text)
    directory = place / "program"
    directory.mkdir()
    inputs = examples.from_files(words, place) if words else None
    job = Job(source=source.parse(str(place / "p.mlir"), {}, None), inputs=inputs, **options)
    return mlir.build(
        job,
        Context(toolchain=toolchain.installed(), limits=Limits(seconds=120), directory=directory),
    )


def run(place: Path, program: Program) -> list[Any]:
    """What its first function returns, as numpy has it."""
    tools = toolchain.installed()
    directory, module, log = place / "program", place / "p.vmfb", place / "log.txt"
    argv = [tools.compiler, directory / program.mlir, *CPU, "-o", module]
    assert process.run(argv, stdout=log, stderr=log, limits=Limits(seconds=120)).ok, log.read_text()
    job = Run(
        program=program,
        directory=directory,
        function=program.functions[0],
        module=module,
        device="local-sync",
    )
    result = runtime.run(job, Context(toolchain=tools, directory=place / "run"), latency_budget=20)
    assert result.ok, result.failure
    assert result.latency is not None, result.latency_note
    return [tensors.load(place / "run", t).tolist() for t in result.outputs]


@pytest.mark.real
def test_numbers_packed_integers_and_weights_of_two_scopes_go_in_and_come_out(
    tmp_path: Path, archives: dict[str, Path]
) -> None:
    words = ("-5", "4xi32=1 2 3 4", "2.5", "7", "true", "-1.5", "8xi4=[-8 7 -1 0 1 2 3 4]")
    scoped = tuple((scope, str(path)) for scope, path in archives.items())
    program = build(tmp_path, TAKEN, words, scoped=scoped)
    assert run(tmp_path, program) == [
        [1 - 5, 2 - 5 + 1, 3 - 5 + 2, 4 - 5 + 3],
        *(-5, 2.5, 7, True, -1.5),
        [-8, 7, -1, 0, 1, 2, 3, 4],
        [1, -8, 7, -1, 0, 2, 3, -2],
    ]


@pytest.mark.real
class TestScopes:
    def test_without_an_archive_a_scope_is_named(
        self, tmp_path: Path, archives: dict[str, Path]
    ) -> None:
        program = build(tmp_path, TAKEN, scoped=(("model", str(archives["model"])),))
        assert program.parameters is not None
        assert program.parameters.missing == ("other",)
        with pytest.raises(
            UsageError, match="there are no values for its 1 parameter of scope other"
        ):
            archive.check_parameters(program, tmp_path)

    def test_an_archive_for_none_serves_those_that_it_holds(
        self, tmp_path: Path, archives: dict[str, Path]
    ) -> None:
        program = build(tmp_path, TAKEN, weights=(str(archives["model"]),))
        assert program.parameters is not None
        assert program.parameters.missing == ()

    def test_each_must_hold_its_own(self, tmp_path: Path, archives: dict[str, Path]) -> None:
        program = build(tmp_path, TAKEN, weights=(str(archives["model"]),))
        with pytest.raises(UsageError, match="its tensor w is 4xi32, but 8xi4 in the program"):
            archive.check_parameters(program, tmp_path)


def test_a_record_of_one_scope_is_read_as_before() -> None:
    old = Parameters(scope="model", tensors=(), archives=("a.irpa",))
    assert old.by_scope == {"model": ("a.irpa",)}
    assert old.missing == ()


@pytest.mark.real
def test_buffers_views_and_fences_of_a_dump_after_phase_abi(tmp_path: Path) -> None:
    text = """
util.func public @main(%v: !hal.buffer_view, %b: !hal.buffer, %wait: !hal.fence,
    %signal: !hal.fence) -> (!hal.buffer_view, !hal.buffer) {
  %t = hal.tensor.import wait(%wait) => %v : !hal.buffer_view -> tensor<4xf32>
  %u = hal.tensor.import wait(%wait) => %b : !hal.buffer -> tensor<4xf32>
  %r = arith.addf %t, %u : tensor<4xf32>
  %j = hal.tensor.barrier join(%r : tensor<4xf32>) => %signal : !hal.fence
  %x = hal.tensor.export %j : tensor<4xf32> -> !hal.buffer_view
  %y = hal.tensor.export %j : tensor<4xf32> -> !hal.buffer
  util.return %x, %y : !hal.buffer_view, !hal.buffer
}
"""
    program = build(tmp_path, text, ("4xf32=1", "&4xf32=2"))
    assert run(tmp_path, program) == [[3.0] * 4, [3.0] * 4]


@pytest.mark.real
@pytest.mark.parametrize("given", [(), ("3x2xf32=1 2 3 4 5 6", "&6xf32")], ids=["made", "given"])
def test_a_buffer_that_results_are_written_to(tmp_path: Path, given: tuple[str, ...]) -> None:
    text = """
func.func @io(%in: !hal.buffer_view, %storage: !hal.buffer) -> !hal.buffer_view {
  %c0 = arith.constant 0 : index
  %d = hal.buffer_view.dim<%in : !hal.buffer_view>[0] : index
  %t = hal.tensor.import %in "x" : !hal.buffer_view -> tensor<?x2xf32>{%d}
  %y = arith.addf %t, %t : tensor<?x2xf32>
  %al = hal.tensor.alias %y : tensor<?x2xf32>{%d} to %storage : !hal.buffer
  %o = hal.tensor.export %al "y" : tensor<?x2xf32>{%d} -> !hal.buffer_view
  return %o : !hal.buffer_view
}
"""
    program = build(tmp_path, text, given)
    (ran,) = run(tmp_path, program)
    if given:
        assert np.ravel(ran).tolist() == [2.0, 4, 6, 8, 10, 12]
    reference = program.functions[0].reference
    assert reference is not None
    assert np.allclose(
        np.ravel(ran), np.ravel(tensors.load(tmp_path / "program", reference.outputs[0]))
    )


#: As turbine writes it, without the reflection by which the runtime would give it fences.
ASYNC = """
util.func public @twice$async(%v: !hal.buffer_view, %wait: !hal.fence, %signal: !hal.fence)
    -> !hal.buffer_view attributes {iree.abi.model = "coarse-fences", iree.abi.stub} {
  %t = hal.tensor.import wait(%wait) => %v : !hal.buffer_view -> tensor<5xf32>
  %r = arith.addf %t, %t : tensor<5xf32>
  %j = hal.tensor.barrier join(%r : tensor<5xf32>) => %signal : !hal.fence
  %x = hal.tensor.export %j : tensor<5xf32> -> !hal.buffer_view
  util.return %x : !hal.buffer_view
}
"""


@pytest.mark.real
def test_what_signals_a_fence_is_compared_where_it_is_done_when_it_returns(tmp_path: Path) -> None:
    (tmp_path / "p.mlir").write_text(ASYNC)
    done = pilot(
        "run", tmp_path / "p.mlir", "-t", "llvm-cpu,vulkan", "--input", "5xf32=1 2 3 4 5", "--json"
    )
    assert done.code == 0, done.out
    cpu, vulkan = done.document["cases"]
    assert cpu["status"] == "ok"
    assert (vulkan["status"], "signals a fence" in vulkan["why"]) == ("ran", True)


@pytest.mark.real
def test_what_iree_converts_random_numbers_to_is_no_reference(tmp_path: Path) -> None:
    (tmp_path / "p.mlir").write_text("""
func.func @main() -> tensor<4xf32> {
  %a = stablehlo.constant dense<0.0> : tensor<f32>
  %b = stablehlo.constant dense<1.0> : tensor<f32>
  %s = stablehlo.constant dense<4> : tensor<1xi64>
  %r = stablehlo.rng %a, %b, %s, distribution = UNIFORM
      : (tensor<f32>, tensor<f32>, tensor<1xi64>) -> tensor<4xf32>
  return %r : tensor<4xf32>
}
""")
    done = pilot("run", tmp_path / "p.mlir", "-t", "llvm-cpu:generic", "--json")
    (found,) = done.document["cases"]
    assert (done.code, found["status"]) == (0, "ran"), done.out
    assert "stablehlo.rng" in found["why"]


@pytest.mark.real
def test_a_dump_of_a_late_phase_is_run_from_there(tmp_path: Path) -> None:
    (tmp_path / "p.mlir").write_text(
        "func.func @main(%a: tensor<?x2xf32>, %n: i32) -> (tensor<?x2xf32>, i32) {"
        " %r = arith.addf %a, %a : tensor<?x2xf32> return %r, %n : tensor<?x2xf32>, i32 }"
    )
    dump = tmp_path / "stream.mlir"
    to = ("-t", "llvm-cpu:generic", "--to", "stream", "-o", dump)
    assert pilot("compile", tmp_path / "p.mlir", *to).code == 0
    given = ("--input=1x2xf32=1 2", "--input=5", "--expected-output=1x2xf32=2 4")
    given += ("--expected-output=5", "--from=stream", "--json")
    done = pilot("run", dump, "-t", "llvm-cpu:generic", *given)
    assert done.code == 0, done.out
    assert done.document["cases"][0]["status"] == "ok"
    assert any("compile it with --from" in note for note in done.document["program"]["notes"])


def test_what_is_isolated_is_compiled_from_the_start() -> None:
    done = pilot("run", "a.mlir", "-t", "llvm-cpu", "--from", "flow", "--bisect")
    assert (done.code, "takes no --from" in done.err) == (2, True)
