"""IR as a graph, and cuts of it: what is cut out is a program of its own."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from fake import stub_toolchain
from fake.programs import CONVERT, MATMUL, PROGRAM, RELU

from iree_pilot.pipeline.processes import process
from iree_pilot.pipeline.toolchain import releases
from iree_pilot.repro.ir import edit
from iree_pilot.repro.ir.editor import Editor
from iree_pilot.repro.ir.feeds import ARGUMENT, FedValue
from iree_pilot.repro.ir.graph import Cut, bridged, by_line
from iree_pilot.repro.reducer.single import separate

TEXT = PROGRAM.encode()


class TestGraph:
    def test_operations_are_those_of_the_largest_function(self) -> None:
        graph = edit.describe(TEXT)
        assert graph.function == "main"
        assert [graph.ops[i].name for i in graph.real] == [
            "util.global.load",
            "torch_c.from_builtin_tensor",
            "torch.aten.matmul",
            "torch.aten.relu",
            "torch.prims.convert_element_type",
        ]

    def test_a_line_picks_the_function_it_is_in(self) -> None:
        assert edit.describe(TEXT, focus=16).function == "other"

    def test_each_operation_knows_its_line(self) -> None:
        assert by_line(edit.describe(TEXT))[10] == RELU

    def test_values_have_their_types(self) -> None:
        graph = edit.describe(TEXT)
        (result,) = graph.ops[CONVERT].results
        assert graph.types[result] == "!torch.vtensor<[2,4],f16>"

    def test_a_program_without_a_function_has_no_graph(self) -> None:
        with pytest.raises(ValueError, match="no function"):
            edit.describe(b"module {}")

    def test_what_lies_between_named_operations_is_taken_along(self) -> None:
        graph = edit.describe(TEXT)
        assert bridged(graph, [MATMUL, CONVERT], CONVERT, 1) == (MATMUL, RELU, CONVERT)
        assert bridged(graph, [MATMUL, CONVERT], CONVERT, 0) == (CONVERT,)


class TestCuts:
    def test_what_is_taken_from_outside_becomes_an_argument(self) -> None:
        text = edit.apply(TEXT, Cut(keep=(MATMUL,)))
        assert "@main(%arg0: !torch.vtensor<[2,8],f32>, %arg1: !torch.vtensor<[8,4],f32>)" in text
        assert "-> !torch.vtensor<[2,4],f32>" in text

    def test_early_results_become_arguments_like_late_ones(self) -> None:
        text = edit.apply(TEXT, Cut(keep=(1, RELU, CONVERT)))
        assert "%arg0: tensor<8x4xf32>, %arg1: !torch.vtensor<[2,4],f32>" in text

    def test_globals_and_functions_that_nothing_needs_are_gone(self) -> None:
        text = edit.apply(TEXT, Cut(keep=(MATMUL,)))
        assert "util.global" not in text
        assert "@other" not in text

    def test_a_whole_program_keeps_its_other_functions(self) -> None:
        text = edit.apply(TEXT, Cut(keep=(RELU, CONVERT)), whole=True)
        assert "matmul" not in text
        assert "@other" in text
        assert "util.global" not in text

    def test_a_global_that_is_needed_stays(self) -> None:
        text = edit.apply(TEXT, Cut(keep=(0, 1, MATMUL)))
        assert "util.global private @w" in text
        assert "@unused" not in text

    def test_it_is_told_what_each_argument_stands_for(self) -> None:
        _, fed = edit.carried_out(TEXT, Cut(keep=(CONVERT,)), base="whole.mlir")
        assert (fed.base, fed.function, fed.origin) == ("whole.mlir", "main", "main")
        assert fed.values == (FedValue(RELU, 0),)
        assert fed.types == ("!torch.vtensor<[2,4],f32>",)
        assert fed.results == ("!torch.vtensor<[2,4],f16>",)

    def test_a_bypass_is_told_by_what_it_leads_to(self) -> None:
        graph = edit.describe(TEXT)
        (relu,), (matmul,) = graph.ops[RELU].results, graph.ops[MATMUL].results
        _, fed = edit.carried_out(TEXT, Cut(keep=(CONVERT,), bypass=((relu, matmul),)))
        assert fed.values == (FedValue(MATMUL, 0),)

    def test_an_argument_stands_for_itself(self) -> None:
        _, fed = edit.carried_out(TEXT, Cut(keep=(MATMUL,)))
        assert {value.op for value in fed.values} <= {ARGUMENT, 0, 1}

    def test_constants_come_along(self) -> None:
        text = edit.apply(TEXT, Cut(keep=(CONVERT,)))
        assert "torch.constant.int 5" in text
        assert "torch.aten.relu" not in text

    def test_checks_of_traced_types_go(self) -> None:
        check = "torch.aten._assert_tensor_metadata"
        none = "%none = torch.constant.none\n    "
        wheres = "!T24, !torch.none, !torch.none, !torch.none, !torch.none, !torch.none"
        checked = f"{check} %0, {', '.join(['%none'] * 5)} : {wheres}\n    "
        text = PROGRAM.replace("%1 = torch", f"{none}{checked}%1 = torch", 1).encode()
        graph = edit.describe(text)
        assert check in {op.name for op in graph.ops}
        assert check not in {graph.ops[i].name for i in graph.real}
        left = edit.apply(text, Cut(keep=graph.real))
        assert "torch.aten.relu" in left and check not in left

    def test_an_operation_can_be_bypassed(self) -> None:
        graph = edit.describe(TEXT)
        (relu,), (product,) = graph.ops[RELU].results, graph.ops[MATMUL].results
        text = edit.apply(TEXT, Cut(keep=(MATMUL, CONVERT), bypass=((relu, product),)))
        assert "torch.aten.relu" not in text
        assert "convert_element_type %0" in text

    def test_what_a_bypass_leads_to_is_used_and_not_returned(self) -> None:
        graph = edit.describe(TEXT)
        (relu,), (product,) = graph.ops[RELU].results, graph.ops[MATMUL].results
        text = edit.apply(TEXT, Cut(keep=(MATMUL, CONVERT), bypass=((relu, product),)))
        assert ") -> !torch.vtensor<[2,4],f16>" in text

    def test_a_value_can_be_a_splat_constant(self) -> None:
        graph = edit.describe(TEXT)
        (product,) = graph.ops[MATMUL].results
        text = edit.apply(TEXT, Cut(keep=(RELU,), splat=(product,)))
        assert "torch.vtensor.literal(dense<1.000000e+00> : tensor<2x4xf32>)" in text
        assert "@main() ->" in text

    def test_the_result_parses_again(self) -> None:
        again = edit.describe(edit.apply(TEXT, Cut(keep=(MATMUL, RELU))).encode())
        assert [again.ops[i].name for i in again.real] == ["torch.aten.matmul", "torch.aten.relu"]

    def test_other_dialects_are_cut_alike(self) -> None:
        text = b"""
        func.func @f(%a: tensor<4xf32>, %b: tensor<4xf32>) -> tensor<4xf32> {
          %0 = arith.addf %a, %b : tensor<4xf32>
          %1 = arith.mulf %0, %b : tensor<4xf32>
          return %1 : tensor<4xf32>
        }"""
        assert "arith.addf" not in edit.apply(text, Cut(keep=(1,)))


#: Loops that fill a buffer and read another one.
LOOPS = """
func.func @relu(%in: memref<4x8xf32>) -> memref<4x8xf32> {
  %zero = arith.constant 0.0 : f32
  %out = memref.alloc() : memref<4x8xf32>
  affine.for %i = 0 to 4 {
    affine.for %j = 0 to 8 {
      %x = affine.load %in[%i, %j] : memref<4x8xf32>
      %y = arith.maximumf %x, %zero : f32
      affine.store %y, %out[%i, %j] : memref<4x8xf32>
    }
  }
  %view = memref.subview %out[0, 0] [2, 2] [1, 1]
    : memref<4x8xf32> to memref<2x2xf32, strided<[8, 1]>>
  linalg.fill ins(%zero : f32) outs(%view : memref<2x2xf32, strided<[8, 1]>>)
  return %out : memref<4x8xf32>
}
"""


class TestBuffers:
    """What is written to a buffer counts only where the buffer is seen from outside."""

    ALLOC, LOOP, VIEW, FILL = 1, 2, 3, 4

    @pytest.mark.parametrize(
        ("keep", "results"),
        [
            ((ALLOC,), "-> memref<4x8xf32>"),
            ((LOOP,), None),
            ((ALLOC, LOOP), "-> memref<4x8xf32>"),
            ((VIEW, FILL), "-> memref<2x2xf32, strided<[8, 1]>>"),
            (
                (ALLOC, LOOP, VIEW, FILL),
                "-> (memref<4x8xf32>, memref<2x2xf32, strided<[8, 1]>>)",
            ),
        ],
    )
    def test_it_is_returned_where_it_is_made(
        self, keep: tuple[int, ...], results: str | None
    ) -> None:
        text = edit.apply(LOOPS.encode(), Cut(keep=keep))
        header = text[text.index("func.func") :].splitlines()[0]
        assert results in header if results else "->" not in header
        assert ("affine.store" in text) == (self.LOOP in keep)
        assert ("linalg.fill" in text) == (self.FILL in keep)

    def test_loops_take_what_they_lack_as_arguments(self) -> None:
        text = edit.apply(LOOPS.encode(), Cut(keep=(self.LOOP,)))
        assert (
            text.count("%arg") and "@relu(%arg0: memref<4x8xf32>, %arg1: memref<4x8xf32>)" in text
        )
        assert "arith.constant" in text

    def test_parts_with_regions_are_functions_of_one_module_too(self) -> None:
        text, alone = separate(LOOPS.encode(), [(self.ALLOC,), (self.LOOP,), (self.FILL,)])
        assert [one.ops for one in alone] == [(self.ALLOC,), (self.LOOP,), (self.FILL,)]
        assert text.count("func.func") == 3 and text.count("affine.for") == 2


class TestEditor:
    @pytest.fixture
    def editor(self, tmp_path: Path) -> Editor:
        program = tmp_path / "program.mlir"
        program.write_bytes(TEXT)
        return Editor(program, 0, tmp_path / "edits", process.Limits(seconds=60))

    def test_cuts_are_made_in_a_child(self, editor: Editor) -> None:
        one, none, other = editor.render(
            [
                Cut(keep=(MATMUL,)),
                Cut(keep=(RELU,), splat=(10**6,), bypass=((99, 98),)),
                Cut(keep=(RELU,)),
            ]
        )
        assert one is not None and "matmul" in one.read_text()
        assert other is not None and "relu" in other.read_text()
        assert none is None or "relu" in none.read_text()

    def test_a_whole_program_is_made_of_a_cut_of_one_function(self, editor: Editor) -> None:
        (file,) = editor.render([Cut(keep=(RELU,))], whole=True)
        assert file is not None and "@other" in file.read_text()

    @pytest.mark.slow
    def test_a_child_that_aborts_costs_one_cut(
        self, editor: Editor, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        runner = tmp_path / "runner.py"
        runner.write_text(
            "import os, sys\n"
            "from pathlib import Path\n"
            "from iree_pilot.repro.ir import edit\n"
            "own = edit.carried_out\n"
            "def carried_out(text, cut, *more, **named):\n"
            f"    return os.abort() if cut.keep == ({RELU},) else own(text, cut, *more, **named)\n"
            "edit.carried_out = carried_out\n"
            "from iree_pilot.pipeline.processes import task\n"
            "sys.exit(task.main(sys.argv[1], Path(sys.argv[2])))\n"
        )
        python = tmp_path / "python"
        python.write_text(f"#!/bin/sh\nexec {sys.executable} {runner} $4 $5\n")
        python.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(python))
        files = editor.render([Cut(keep=(MATMUL,)), Cut(keep=(RELU,)), Cut(keep=(CONVERT,))])
        assert [file is not None for file in files] == [True, False, True]


#: Attention as releases up to 3.12 write it.
ATTENTION = """
#q = affine_map<(b, m, n, k, v) -> (b, m, k)>
#k = affine_map<(b, m, n, k, v) -> (b, n, k)>
#v = affine_map<(b, m, n, k, v) -> (b, n, v)>
#s = affine_map<(b, m, n, k, v) -> ()>
#o = affine_map<(b, m, n, k, v) -> (b, m, v)>
!T = tensor<1x16x8xf32>
func.func @attention(%q: !T, %k: !T, %v: !T) -> !T {
  %scale = arith.constant 5.0e-01 : f32
  %empty = tensor.empty() : !T
  %0 = iree_linalg_ext.attention {indexing_maps = [#q, #k, #v, #s, #o]}
    ins(%q, %k, %v, %scale : !T, !T, !T, f32) outs(%empty : !T) {
  ^bb0(%score: f32):
    iree_linalg_ext.yield %score : f32
  } -> !T
  return %0 : !T
}
"""


class TestReleases:
    """IR is cut with the bindings of the release that it is written for."""

    @pytest.mark.real
    def test_the_syntax_of_an_older_release(
        self, tmp_path: Path, shared_cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("IREE_PILOT_CACHE", str(shared_cache))
        old = releases.find("3.12.0")
        program, limits = tmp_path / "program.mlir", process.Limits(seconds=60)
        program.write_text(ATTENTION)
        here = Editor(program, 0, tmp_path / "here", limits)
        assert here.graph() is None and here.why.startswith(edit.UNREADABLE)
        editor = Editor(program, 0, tmp_path / "old", limits, old)
        graph = editor.graph()
        assert graph is not None and editor.why == ""
        (attention,) = graph.real
        assert graph.ops[attention].name == "iree_linalg_ext.attention"
        (made,) = editor.render([Cut(keep=graph.real)])
        assert made is not None
        assert Editor(made, 0, tmp_path / "again", limits, old).graph() is not None

    @pytest.mark.real
    def test_what_it_cannot_read_is_read_by_this_environment(
        self, tmp_path: Path, shared_cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The tracer of this environment may write what an old release does not know."""
        monkeypatch.setenv("IREE_PILOT_CACHE", str(shared_cache))
        program, limits = tmp_path / "program.mlir", process.Limits(seconds=60)
        program.write_text(re.sub(r"\{(indexing_maps = .*)\}", r"<\1>", ATTENTION))
        editor = Editor(program, 0, tmp_path / "edits", limits, releases.find("3.12.0"))
        assert editor.graph() is not None and editor.why == ""

    def test_a_release_without_bindings_is_edited_with_those_of_this_environment(
        self, tmp_path: Path
    ) -> None:
        bare = stub_toolchain(tmp_path / "release")
        assert bare.bindings is None
        program = tmp_path / "program.mlir"
        program.write_bytes(TEXT)
        limits = process.Limits(seconds=60)
        assert Editor(program, 0, tmp_path / "edits", limits, bare).graph() is not None
