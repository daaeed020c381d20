"""Any dialect that the compiler's bindings parse is cut and reduced, not only torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from iree_pilot.pipeline.processes import process
from iree_pilot.pipeline.toolchain import compiler, toolchain
from iree_pilot.pipeline.toolchain.compiler import Compile
from iree_pilot.pipeline.toolchain.context import Context
from iree_pilot.repro.ir import edit
from iree_pilot.repro.ir.editor import Editor
from iree_pilot.repro.ir.graph import Cut, Graph
from iree_pilot.repro.reducer.reduce import Reduced, reduce
from iree_pilot.repro.reproducer import dispatch

TOSA = """
func.func @main(%a: tensor<1x4x8xf32>, %b: tensor<1x8x4xf32>) -> tensor<1x16xf32> {
  %zp = "tosa.const"() <{values = dense<0.0> : tensor<1xf32>}> : () -> tensor<1xf32>
  %0 = tosa.matmul %a, %b, %zp, %zp : (tensor<1x4x8xf32>, tensor<1x8x4xf32>,
    tensor<1xf32>, tensor<1xf32>) -> tensor<1x4x4xf32>
  %1 = tosa.exp %0 : (tensor<1x4x4xf32>) -> tensor<1x4x4xf32>
  %s = "tosa.const_shape"() <{values = dense<[1, 16]> : tensor<2xindex>}> : () -> !tosa.shape<2>
  %2 = tosa.reshape %1, %s : (tensor<1x4x4xf32>, !tosa.shape<2>) -> tensor<1x16xf32>
  %3 = tosa.tanh %2 : (tensor<1x16xf32>) -> tensor<1x16xf32>
  return %3 : tensor<1x16xf32>
}
"""
STABLEHLO = """
func.func @main(%a: tensor<4x8xf32>, %b: tensor<8x4xf32>) -> tensor<4xf32> {
  %c = stablehlo.constant dense<0.0> : tensor<f32>
  %0 = stablehlo.dot_general %a, %b, contracting_dims = [1] x [0]
    : (tensor<4x8xf32>, tensor<8x4xf32>) -> tensor<4x4xf32>
  %1 = stablehlo.exponential %0 : tensor<4x4xf32>
  %2 = stablehlo.reduce(%1 init: %c) applies stablehlo.add across dimensions = [1]
    : (tensor<4x4xf32>, tensor<f32>) -> tensor<4xf32>
  return %2 : tensor<4xf32>
}
"""
#: Two dispatches, and a global that an initializer makes.
LINALG = """
util.global private @w = #util.uninitialized : tensor<8x8xf32>
func.func @main(%a: tensor<4x8xf32>, %b: tensor<8x8xf32>) -> tensor<4x8xf32> {
  %zero = arith.constant 0.0 : f32
  %empty = tensor.empty() : tensor<4x8xf32>
  %init = linalg.fill ins(%zero : f32) outs(%empty : tensor<4x8xf32>) -> tensor<4x8xf32>
  %0 = linalg.matmul ins(%a, %b : tensor<4x8xf32>, tensor<8x8xf32>)
    outs(%init : tensor<4x8xf32>) -> tensor<4x8xf32>
  %1 = linalg.generic {
    indexing_maps = [affine_map<(i, j) -> (i, j)>, affine_map<(i, j) -> (i, j)>],
    iterator_types = ["parallel", "parallel"]
  } ins(%0 : tensor<4x8xf32>) outs(%empty : tensor<4x8xf32>) {
  ^bb0(%x: f32, %y: f32):
    %e = math.exp %x : f32
    linalg.yield %e : f32
  } -> tensor<4x8xf32>
  %w = util.global.load @w : tensor<8x8xf32>
  %2 = linalg.matmul ins(%1, %w : tensor<4x8xf32>, tensor<8x8xf32>)
    outs(%init : tensor<4x8xf32>) -> tensor<4x8xf32>
  return %2 : tensor<4x8xf32>
}
"""
CPU = (
    "--iree-hal-target-device=local",
    "--iree-hal-local-target-device-backends=llvm-cpu",
    "--iree-llvmcpu-target-cpu=generic",
)
LIMITS = process.Limits(seconds=60)
Reduce = Callable[..., tuple[Reduced, str]]


@pytest.fixture
def reduced(tmp_path: Path) -> Reduce:
    """Reduces a program to what still has all of some words, and what is left of it."""

    def run(text: str, *words: str) -> tuple[Reduced, str]:
        program = tmp_path / "program.mlir"
        program.write_text(text)
        test = tmp_path / "test.sh"
        greps = " && ".join(f"grep -q '{word}' \"$1\"" for word in words)
        test.write_text(f"#!/bin/sh\n{greps}\n")
        test.chmod(0o755)
        scratch = tmp_path / "scratch"
        scratch.mkdir()
        found = reduce(program, [str(test)], scratch, limits=LIMITS, width=2)
        return found, Path(found.mlir).read_text()

    return run


def lowered(text: str, phase: str, directory: Path) -> str:
    """What the compiler makes of a program up to a phase."""
    source, made = directory / "source.mlir", directory / f"{phase}.mlir"
    source.write_text(text)
    outcome = process.run(
        [toolchain.installed().compiler, source, *CPU, f"--compile-to={phase}", "-o", made],
        stdout=directory / "stdout.txt",
        stderr=directory / "stderr.txt",
        limits=LIMITS,
    )
    assert outcome.ok, (directory / "stderr.txt").read_text()
    return made.read_text()


def executable(text: str, directory: Path) -> str:
    """The first dumped executable of a program."""
    source, dumps = directory / "source.mlir", directory / "dumps"
    source.write_text(text)
    outcome = process.run(
        [
            toolchain.installed().compiler,
            source,
            *CPU,
            f"--iree-hal-dump-executable-sources-to={dumps}",
            "--compile-to=executable-sources",
            "-o",
            "/dev/null",
        ],
        stdout=directory / "stdout.txt",
        stderr=directory / "stderr.txt",
        limits=LIMITS,
    )
    assert outcome.ok
    return min(dumps.glob("*.mlir")).read_text()


class TestInput:
    @pytest.mark.slow
    def test_tosa(self, reduced: Reduce) -> None:
        found, text = reduced(TOSA, "tosa.reshape")
        assert (found.ops, found.minimal) == (("tosa.reshape",), True)
        assert "%arg" not in text

    def test_a_shape_is_not_an_argument(self) -> None:
        (reshape,) = indices(TOSA, "tosa.reshape")
        text = edit.apply(TOSA.encode(), Cut(keep=(reshape,)))
        assert "@main(%arg0: tensor<1x4x4xf32>) -> tensor<1x16xf32>" in text

    @pytest.mark.slow
    def test_stablehlo(self, reduced: Reduce) -> None:
        assert reduced(STABLEHLO, "stablehlo.reduce")[0].ops == ("stablehlo.reduce",)

    @pytest.mark.slow
    def test_linalg(self, reduced: Reduce) -> None:
        found, text = reduced(LINALG, "math.exp")
        assert found.ops == ("linalg.generic",)
        assert "util.global" not in text

    @pytest.mark.slow
    def test_shapes_become_small_and_the_rest_is_proved_again(self, reduced: Reduce) -> None:
        large = STABLEHLO.replace("4x8", "512x1024").replace("8x4", "1024x512")
        large = large.replace("4x4", "512x512").replace("<4xf32>", "<512xf32>")
        found, text = reduced(large, "stablehlo.reduce")
        assert (found.ops, found.minimal) == (("stablehlo.reduce",), True)
        assert "tensor<1x1xf32>" in text


class TestPhases:
    @pytest.mark.real
    def test_a_dispatch_keeps_the_signature_that_its_callers_rely_on(
        self, reduced: Reduce, tmp_path: Path
    ) -> None:
        found, text = reduced(lowered(LINALG, "flow", tmp_path), "flow.dispatch @", "math.exp")
        assert sorted(found.ops) == ["flow.dispatch", "linalg.generic"]
        assert found.minimal
        assert text.count("flow.executable private") == 1

    @pytest.mark.real
    def test_initializers_of_globals_that_nothing_needs_go(
        self, reduced: Reduce, tmp_path: Path
    ) -> None:
        text = lowered(LINALG, "stream", tmp_path)
        assert "util.initializer" in text
        found, left = reduced(text, "stream.cmd.dispatch")
        assert "stream.cmd.execute" in found.ops
        assert "util.initializer" not in left

    @pytest.mark.real
    def test_a_global_that_is_needed_keeps_its_initializer(
        self, reduced: Reduce, tmp_path: Path
    ) -> None:
        text = lowered(LINALG, "stream", tmp_path)
        _, left = reduced(text, "util.global.load", "stream.resource.alloca")
        assert "util.initializer" in left

    @pytest.mark.real
    def test_a_function_that_is_called_keeps_its_signature(
        self, reduced: Reduce, tmp_path: Path
    ) -> None:
        text = lowered(LINALG, "hal", tmp_path)
        found, left = reduced(text, "hal.command_buffer.dispatch<", "util.call @")
        assert "hal.command_buffer.dispatch" in found.ops
        assert "util.null : !hal.command_buffer" in left

    @pytest.mark.real
    def test_an_executable_alone(self, reduced: Reduce, tmp_path: Path) -> None:
        found, text = reduced(executable(LINALG, tmp_path), "linalg.matmul")
        assert found.ops == ("linalg.matmul",)
        assert "hal.executable public" in text

    def test_a_file_that_does_not_parse_is_said_to_be_at_fault(self, reduced: Reduce) -> None:
        with pytest.raises(Exception, match="cannot be read") as caught:
            reduced("func.func @f() { foo.bar : baz }", "foo.bar")
        assert "foo.bar" in str(caught.value)


F16 = """
func.func @main(%a: tensor<32x64xf16>, %b: tensor<64x32xf16>) -> tensor<32x32xf16> {
  %zero = arith.constant 0.0 : f16
  %empty = tensor.empty() : tensor<32x32xf16>
  %init = linalg.fill ins(%zero : f16) outs(%empty : tensor<32x32xf16>) -> tensor<32x32xf16>
  %0 = linalg.matmul ins(%a, %b : tensor<32x64xf16>, tensor<64x32xf16>)
    outs(%init : tensor<32x32xf16>) -> tensor<32x32xf16>
  %1 = math.absf %0 : tensor<32x32xf16>
  return %1 : tensor<32x32xf16>
}
"""
VULKAN = ("--iree-hal-target-device=vulkan", "--iree-vulkan-target=vp_android_baseline_2022")


@pytest.mark.real
def test_a_failing_executable_is_reduced_with_the_same_failure(tmp_path: Path) -> None:
    release = toolchain.installed()
    program = tmp_path / "program.mlir"
    program.write_text(F16)
    place = tmp_path / "whole"
    place.mkdir()
    flags = (*VULKAN, f"--iree-hal-dump-executable-sources-to={tmp_path / 'dumps'}")
    failure = compiler.compile(
        Compile(mlir=program, flags=flags), Context(toolchain=release, directory=place)
    ).failure
    assert failure is not None and "vector.bitcast" in failure.signature
    (dump,) = (tmp_path / "dumps").glob("*.mlir")
    before = edit.describe(dump.read_bytes())
    found = dispatch.reduced(
        dump,
        failure,
        Context(toolchain=release, limits=LIMITS, directory=tmp_path / "state"),
        VULKAN,
    )
    assert 0 < found.ops < len(before.real)
    assert found.minimal
    oracle = dispatch.ExecutableOracle(
        Context(toolchain=release, limits=LIMITS, directory=tmp_path / "again"), VULKAN, failure
    )
    assert [a.verdict for a in oracle.ask([Path(found.path)])] == ["same"]


SIZES = """
func.func @main(%x: !torch.vtensor<[?,64],f32>) -> !torch.vtensor<[?,32],f32> {
  %y = torch.aten.relu %x : !torch.vtensor<[?,64],f32> -> !torch.vtensor<[?,64],f32>
  %int0 = torch.constant.int 0
  %int1 = torch.constant.int 1
  %int32 = torch.constant.int 32
  %n = torch.aten.size.int %y, %int0 : !torch.vtensor<[?,64],f32>, !torch.int -> !torch.int
  %l = torch.aten.split.Tensor %y, %int32, %int1
    : !torch.vtensor<[?,64],f32>, !torch.int, !torch.int -> !torch.list<vtensor<[?,32],f32>>
  %p:2 = torch.prim.ListUnpack %l : !torch.list<vtensor<[?,32],f32>>
    -> !torch.vtensor<[?,32],f32>, !torch.vtensor<[?,32],f32>
  %s = torch.prim.ListConstruct %n, %int32 : (!torch.int, !torch.int) -> !torch.list<int>
  %z = torch.aten.view %p#1, %s : !torch.vtensor<[?,32],f32>, !torch.list<int>
    -> !torch.vtensor<[?,32],f32>
  return %z : !torch.vtensor<[?,32],f32>
}
"""


HALF = "!torch.vtensor<[?,32],f32>"
LIST = "!torch.list<vtensor<[4,3],f32>>"
PIECE = "!torch.vtensor<[4,3],f32>"
GRID = f"""
func.func @main(%x: !torch.vtensor<[4],f32>, %y: !torch.vtensor<[3],f32>)
    -> !torch.vtensor<[3,4],f32> {{
  %l = torch.prim.ListConstruct %x, %y
    : (!torch.vtensor<[4],f32>, !torch.vtensor<[3],f32>) -> !torch.list<vtensor>
  %g = torch.operator "torch.aten.meshgrid"(%l) : (!torch.list<vtensor>) -> {LIST}
  %u:2 = torch.prim.ListUnpack %g : {LIST} -> {PIECE}, {PIECE}
  %t = torch.aten.t %u#0 : {PIECE} -> !torch.vtensor<[3,4],f32>
  return %t : !torch.vtensor<[3,4],f32>
}}
"""


class TestWhatIsNoTensor:
    def test_a_size_is_taken_of_the_value_that_is_an_argument(self) -> None:
        text = cut(SIZES, "torch.aten.view")
        assert "torch.aten.size.int %arg" in text
        assert "!torch.int" not in signature(text)

    @pytest.mark.slow
    def test_it_counts_as_an_operation(self, tmp_path: Path) -> None:
        program = tmp_path / "program.mlir"
        program.write_text(SIZES)
        editor = Editor(program, 0, tmp_path / "edits", LIMITS)
        graph = editor.graph()
        assert graph is not None
        view = Cut(keep=indices(SIZES, "torch.aten.view"))
        assert editor.names(view, graph) == ("torch.aten.size.int", "torch.aten.view")

    def test_what_was_unpacked_is_an_argument_and_not_the_list(self) -> None:
        assert "!torch.list" not in signature(cut(SIZES, "torch.aten.view"))

    def test_a_list_is_unpacked_and_not_returned(self) -> None:
        text = cut(SIZES, "torch.aten.split.Tensor")
        assert "torch.prim.ListUnpack" in text
        assert "!torch.list" not in signature(text)
        assert signature(text).endswith(f"-> ({HALF}, {HALF}) {{"), "its elements are data"

    @pytest.mark.slow
    def test_what_makes_a_list_counts_as_an_operation(self, tmp_path: Path) -> None:
        program = tmp_path / "program.mlir"
        program.write_text(GRID)
        editor = Editor(program, 0, tmp_path / "edits", LIMITS)
        graph = editor.graph()
        assert graph is not None
        last = Cut(keep=indices(GRID, "torch.prim.ListUnpack") + indices(GRID, "torch.aten.t"))
        names = ("torch.aten.meshgrid", "torch.prim.ListUnpack", "torch.aten.t")
        assert editor.names(last, graph) == names
        assert signature(cut(GRID, "torch.aten.meshgrid")).count("[4,3],f32>") == 2

    def test_a_list_that_is_unpacked_is_made(self) -> None:
        text = cut(SIZES, "torch.prim.ListUnpack")
        assert "torch.aten.split.Tensor" in text
        assert "!torch.list" not in signature(text)


def cut(program: str, *names: str) -> str:
    keep = tuple(i for name in names for i in indices(program, name))
    return edit.apply(program.encode(), Cut(keep=keep))


def indices(program: str, name: str) -> tuple[int, ...]:
    graph: Graph = edit.describe(program.encode())
    return tuple(op.index for op in graph.ops if op.name == name)


def signature(text: str) -> str:
    return next(line for line in text.splitlines() if "func.func @main" in line)
