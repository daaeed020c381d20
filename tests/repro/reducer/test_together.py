"""Programs asked about together: what one compile says of each of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake import stub_toolchain
from fake.programs import CONVERT, MATMUL, PROGRAM, RELU

from iree_pilot.pipeline.processes import process
from iree_pilot.pipeline.toolchain.context import Context
from iree_pilot.pipeline.toolchain.toolchain import Toolchain
from iree_pilot.repro.ir import edit
from iree_pilot.repro.ir.bindings import Bindings
from iree_pilot.repro.reducer import together
from iree_pilot.repro.reducer.single import Finder, separate

LIMITS = process.Limits(seconds=60)
BINDINGS = Bindings(limits=LIMITS)


class Said:
    """An oracle that answers one verdict and prints one text; the text names the module."""

    def __init__(self, verdict: str, text: str = "") -> None:
        self.verdict = verdict
        self.text = text
        self.calls = 0
        self.others: dict = {}

    def ask(self, candidates):
        from iree_pilot.repro.oracles.oracle import Answer

        self.calls += len(candidates)
        return [Answer(verdict=self.verdict) for _ in candidates]

    def again(self, program):
        raise AssertionError("nobody asks for this")

    def said(self, candidate):
        return self.text


def program(tmp_path: Path, name: str, text: str = PROGRAM) -> Path:
    file = tmp_path / name
    file.write_text(text)
    return file


class TestJoin:
    def test_each_program_is_there_with_its_own_symbols(self) -> None:
        joined = together.join([PROGRAM.encode(), PROGRAM.encode()])
        for number in (0, 1):
            assert f"func.func @candidate_{number}_main(" in joined
            assert f"util.global.load @candidate_{number}_w" in joined
            assert f"util.global private @candidate_{number}_w =" in joined

    def test_an_error_in_a_function_names_its_program(self) -> None:
        joined = together.join([PROGRAM.encode(), PROGRAM.encode()])
        lines = joined.splitlines()
        second = next(n for n, line in enumerate(lines, 1) if "@candidate_1_main" in line)
        said = f"x.mlir:{second + 2}:10: error: no\nx.mlir:{second}:3: note: called from\n"
        assert together.named(joined, said) == (1,)

    def test_a_crash_in_a_dispatch_names_its_program(self) -> None:
        running = "2.\tRunning pass 'X' on function '@\"candidate_3_main$async_dispatch_0_x\"'"
        assert together.named("", running) == (3,)


class TestCleared:
    def asked(self, tmp_path: Path, oracle: Said) -> list[str]:
        files = [program(tmp_path, "a.mlir"), None, program(tmp_path, "b.mlir")]
        return together.cleared(files, tmp_path / "joined.mlir", oracle.ask, oracle.said, BINDINGS)

    def test_all_pass_where_their_module_passes(self, tmp_path: Path) -> None:
        oracle = Said("passes")
        assert self.asked(tmp_path, oracle) == ["passes", "invalid", "passes"]
        assert oracle.calls == 1

    @pytest.mark.parametrize("verdict", ["same", "different", "unresolved", "invalid"])
    def test_nothing_is_known_of_any_where_it_does_not(self, tmp_path: Path, verdict: str) -> None:
        assert self.asked(tmp_path, Said(verdict)) == ["", "invalid", ""]

    def test_those_that_are_named_are_suspected(self, tmp_path: Path) -> None:
        oracle = Said("same", "1.\tRunning pass 'X' on function '@candidate_1_main'")
        assert self.asked(tmp_path, oracle) == ["", "invalid", "suspect"]

    @pytest.mark.slow
    def test_those_that_are_named_for_what_the_failure_is_about_are_likely(
        self, tmp_path: Path
    ) -> None:
        joined = together.join([PROGRAM.encode(), PROGRAM.encode()]).splitlines()
        first, second = (
            next(n for n, line in enumerate(joined, 1) if f"func.func @candidate_{number}" in line)
            for number in (0, 1)
        )
        text = f"b.c/x.mlir:{first}:1: error: no 'a.b'\nb.c/x.mlir:{second}:1: error: no 'b.c'\n"
        files = [program(tmp_path, "a.mlir"), program(tmp_path, "b.mlir")]
        oracle, place = Said("same", text), tmp_path / "joined.mlir"
        for about, expected in (("b.c", ["suspect", "likely"]), ("", ["suspect", "suspect"])):
            ask, said = oracle.ask, oracle.said
            assert together.cleared(files, place, ask, said, BINDINGS, about) == expected

    def test_programs_that_do_not_fit_together_are_not_asked_about(self, tmp_path: Path) -> None:
        oracle = Said("passes")
        files = [program(tmp_path, "a.mlir"), program(tmp_path, "b.mlir", "not MLIR")]
        assert together.cleared(
            files, tmp_path / "joined.mlir", oracle.ask, oracle.said, BINDINGS
        ) == ["", ""]
        assert oracle.calls == 0


class TestSeparate:
    def test_each_operation_is_a_function_with_its_constants(self) -> None:
        text, alone = separate(PROGRAM.encode(), [(MATMUL,), (RELU,), (CONVERT,)])
        assert [one.ops for one in alone] == [(MATMUL,), (RELU,), (CONVERT,)]
        assert text.count("func.func @candidate_") == 3
        assert text.count("torch.constant.int 5") == 1

    def test_operations_that_are_alike_are_there_once(self) -> None:
        twice = PROGRAM.replace(
            "%int5 =", "%again = torch.aten.relu %1 : !T24 -> !T24\n    %int5 ="
        )
        text, alone = separate(twice.encode(), [(RELU,), (RELU + 1,)])
        assert [(one.ops, one.times) for one in alone] == [((RELU,), 2)]
        assert text.count("torch.aten.relu") == 2  # one of them in the other function

    def test_lists_of_tensors_are_made_where_they_are_taken(self) -> None:
        pair = "!torch.list<vtensor>"
        text = f"""
        func.func @main(%x: !torch.vtensor<[4],f32>) -> !torch.vtensor<[2],f32> {{
          %i2 = torch.constant.int 2
          %i0 = torch.constant.int 0
          %l = torch.aten.split.Tensor %x, %i2, %i0 : !torch.vtensor<[4],f32>, !torch.int,
               !torch.int -> {pair}
          %0:2 = torch.prim.ListUnpack %l : {pair} -> !torch.vtensor<[2],f32>,
                 !torch.vtensor<[2],f32>
          return %0#0 : !torch.vtensor<[2],f32>
        }}"""
        made, alone = separate(text.encode(), [(2,), (3,)])
        assert [(one.ops, one.times) for one in alone] == [((2,), 2)]
        assert made.count("torch.aten.split.Tensor") == made.count("torch.prim.ListUnpack") == 1

    def test_several_operations_are_linked_as_they_were(self) -> None:
        text, _ = separate(PROGRAM.encode(), [(MATMUL, RELU)])
        assert edit.describe(text.encode()).real != ()
        assert "torch.aten.relu %" in text and text.count("return") == 2


class TestFinder:
    @pytest.fixture
    def toolchain(self, tmp_path: Path) -> Toolchain:
        return stub_toolchain(tmp_path / "release")

    def found(self, tmp_path: Path, toolchain: Toolchain, oracle: Said) -> list[tuple[int, ...]]:
        file = program(tmp_path, "whole.mlir")
        finder = Finder(
            file,
            0,
            oracle.ask,
            oracle.said,
            Context(toolchain=toolchain, limits=LIMITS, directory=tmp_path / "alone"),
            (),
        )
        return list(finder.find(edit.describe(PROGRAM.encode())))

    @pytest.mark.slow
    def test_nothing_is_found_where_all_pass_alone(
        self, tmp_path: Path, toolchain: Toolchain
    ) -> None:
        oracle = Said("passes")
        assert self.found(tmp_path, toolchain, oracle) == []
        assert oracle.calls == 3

    @pytest.mark.slow
    def test_what_is_named_is_found_first(self, tmp_path: Path, toolchain: Toolchain) -> None:
        oracle = Said("same", "1.\tRunning pass 'X' on function '@candidate_1_main'")
        first, *_ = self.found(tmp_path, toolchain, oracle)
        assert len(first) == 1
