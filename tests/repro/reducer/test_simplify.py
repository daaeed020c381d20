"""Simpler shapes, types and constants: what is asked, and what becomes of the IR."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iree_pilot.pipeline.processes import process
from iree_pilot.pipeline.toolchain import compiler, toolchain
from iree_pilot.pipeline.toolchain.compiler import Compile
from iree_pilot.pipeline.toolchain.context import Context
from iree_pilot.repro.ir import edit
from iree_pilot.repro.ir.bindings import Bindings
from iree_pilot.repro.ir.editor import Editor
from iree_pilot.repro.oracles.oracle import Answer, CompileOracle, Verdict
from iree_pilot.repro.reducer import simplify as simplify_module
from iree_pilot.repro.reducer.simplify import (
    ANYWHERE,
    UNITS,
    Aspect,
    Proposal,
    Simplified,
    SimplifyOptions,
    Survey,
    scaled,
    simplify,
)
from iree_pilot.repro.reducer.together import cleared

SIZES = st.lists(st.integers(0, 4096), max_size=8, unique=True).map(lambda s: tuple(sorted(s)))
ASPECTS: tuple[Aspect, ...] = get_args(Aspect)
SURVEYS = st.builds(
    Survey, sizes=SIZES, aspects=st.lists(st.sampled_from(ASPECTS), unique=True).map(tuple)
)


class Stopped(Exception):
    """The search was cut off."""


#: Which of those that fail in one module are named: all, as where a compiler goes on after the
#: first one, the first alone, none, or one that does not fail.
Tells = Literal["all", "first", "nothing", "lies"]
TELLS: tuple[Tells, ...] = ("all", "first", "nothing", "lies")


class Fake:
    """Programs that are their own proposals, and a failure that some of them show.

    asked: the programs asked about alone. modules: those that were asked about together.
    """

    def __init__(
        self, fails: Callable[[Proposal], bool], possible: Callable[[Proposal], bool], place: Path
    ) -> None:
        self.fails, self.possible = fails, possible
        self.asked: list[Proposal] = []
        self.modules: list[list[Proposal]] = []
        self.journal: dict[Proposal, bool] = {}
        self.stop_after = 10**9
        self._place = place
        self._made: dict[str, Proposal] = {}

    def render(self, proposals: Sequence[Proposal]) -> list[Path | None]:
        names = [msgspec.json.encode(p).decode() for p in proposals]
        self._made |= dict(zip(names, proposals, strict=True))
        return [
            Path(name) if self.possible(p) else None
            for name, p in zip(names, proposals, strict=True)
        ]

    def ask(self, files: list[Path]) -> list[Answer]:
        return [Answer(verdict=self._verdict(self._made[str(file)])) for file in files]

    def run(
        self,
        survey: Survey,
        budget: int,
        tells: Tells | None = None,
        units: Sequence[int] = UNITS,
    ) -> Simplified:
        def together(files: Sequence[Path]) -> list[str]:
            return self.named([self._made[str(file)] for file in files], tells)

        self.asked, self.modules = [], []
        options = SimplifyOptions(
            self.ask, self.render, budget, units, together=together if tells else None
        )
        return simplify(Path("whole"), survey, options)

    def named(self, module: list[Proposal], tells: Tells | None) -> list[str]:
        if len(self.journal) >= self.stop_after:
            raise Stopped
        self.modules.append(module)
        failing = [number for number, one in enumerate(module) if self.fails(one)]
        if not failing:
            return ["passes"] * len(module)
        if tells == "lies":
            failing = [number for number in range(len(module)) if number not in failing]
        failing = failing[: {"nothing": 0, "all": None}.get(tells or "", 1)]
        return ["likely" if number in failing else "" for number in range(len(module))]

    def made(self, simplified: Simplified) -> Proposal:
        return self._made.get(simplified.path, Proposal())

    def _verdict(self, proposal: Proposal) -> Verdict:
        self.asked.append(proposal)
        if proposal not in self.journal:
            if len(self.journal) >= self.stop_after:
                raise Stopped
            self.journal[proposal] = self.fails(proposal)
        return "same" if self.journal[proposal] else "different"


def moody(seed: int) -> Callable[[Proposal], bool]:
    """A failure that some proposals show, always the same ones."""
    return lambda proposal: hash((seed, msgspec.json.encode(proposal))) % 3 == 0


class TestSearch:
    @pytest.mark.parametrize("tells", [None, "all"])
    @pytest.mark.parametrize("aspect", ASPECTS)
    def test_each_aspect_is_tried_alone_and_named(
        self, aspect: Aspect, tells: Tells | None, tmp_path: Path
    ) -> None:
        fake = Fake(lambda p: True, lambda p: True, tmp_path)
        found = fake.run(Survey(aspects=(aspect,)), 20, tells)
        assert getattr(fake.made(found), aspect)
        assert len(found.done) == 1

    @pytest.mark.parametrize("later", [False, True])
    def test_a_new_aspect_takes_one_row_and_its_field(
        self, later: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        types = simplify_module._Trial("plain types", later)
        monkeypatch.setattr(simplify_module, "_TRIALS", {"types": types})
        found = Fake(lambda p: True, lambda p: True, tmp_path).run(Survey(aspects=("types",)), 20)
        assert found.done == ("plain types",)

    @given(SURVEYS, st.integers(0, 12), st.integers(), st.integers())
    def test_what_it_ends_with_was_answered_same_within_the_budget(
        self, survey: Survey, budget: int, seed: int, other: int
    ) -> None:
        fake = Fake(moody(seed), lambda p: not moody(other)(p), Path())
        found = fake.run(survey, budget)
        assert found.calls == len(fake.asked) <= budget
        assert len(set(fake.asked)) == len(fake.asked)
        assert fake.journal.get(fake.made(found), found.path == "whole")

    @given(SURVEYS, st.integers(0, 12), st.integers(), st.integers(0, 12))
    def test_cut_off_anywhere_it_resumes_to_the_same_result(
        self, survey: Survey, budget: int, seed: int, stop: int
    ) -> None:
        whole = Fake(moody(seed), lambda p: True, Path()).run(survey, budget)
        fake = Fake(moody(seed), lambda p: True, Path())
        fake.stop_after = stop
        try:
            fake.run(survey, budget)
        except Stopped:
            fake.stop_after = 10**9
        assert fake.run(survey, budget) == whole

    def test_two_calls_settle_a_failure_that_no_shape_matters_to(self) -> None:
        survey = Survey(sizes=(1, 2, 64, 4096), aspects=("dynamic", "literals", "attributes"))
        fake = Fake(lambda p: True, lambda p: True, Path())
        found = fake.run(survey, 12)
        assert found.calls == 2
        assert fake.made(found).sizes == ((2, 1), (64, 1), (4096, 1))
        assert found.done == (
            "smaller shapes",
            "static shapes",
            "splat constants",
            "fewer attributes",
        )

    def test_a_size_that_matters_stays_and_the_others_go(self) -> None:
        fake = Fake(lambda p: 513 not in dict(p.sizes), lambda p: True, Path())
        found = fake.run(Survey(sizes=(100, 200, 513, 800), aspects=("attributes",)), 12)
        assert [size for size, _ in fake.made(found).sizes] == [100, 200, 800]
        assert fake.made(found).attributes

    def test_where_generated_code_needs_a_vector_it_keeps_one(self) -> None:
        fake = Fake(lambda p: all(new >= 8 for _, new in p.sizes), lambda p: True, Path())
        found = fake.run(Survey(sizes=(64, 4096), aspects=("attributes",)), 12)
        assert fake.asked[0] == Proposal(sizes=((64, 8), (4096, 16)), attributes=True)
        assert fake.made(found) == Proposal(sizes=((64, 8), (4096, 8)), attributes=True)

    @given(st.dictionaries(st.integers(1, 300), st.integers(1, 300), min_size=1, max_size=5))
    def test_each_size_ends_as_small_as_the_failure_allows(self, least: dict[int, int]) -> None:
        sizes = tuple(sorted(least))
        needs = {size: min(size, least[size]) for size in sizes}

        def now(proposal: Proposal) -> dict[int, int]:
            return {size: size for size in sizes} | dict(proposal.sizes)

        def fails(proposal: Proposal) -> bool:
            return all(new >= needs[size] for size, new in now(proposal).items())

        fake = Fake(fails, lambda p: True, Path())
        new = now(fake.made(fake.run(Survey(sizes=sizes), 10**6)))
        assert new == needs

    def test_a_size_whose_product_is_a_size_too_is_lowered_with_it(self) -> None:
        def possible(proposal: Proposal) -> bool:
            new = {4: 4, 8: 8, 32: 32} | dict(proposal.sizes)
            return new[4] * new[8] == new[32]

        fake = Fake(lambda p: dict(p.sizes).get(4, 4) >= 3, possible, Path())
        found = fake.run(Survey(sizes=(4, 8, 32)), 24)
        assert dict(fake.made(found).sizes) == {4: 3, 8: 1, 32: 3}

    def test_sizes_below_the_first_unit_are_made_smaller_too(self) -> None:
        fake = Fake(lambda p: True, lambda p: True, Path())
        found = fake.run(Survey(sizes=(1, 3, 8)), 12)
        assert (found.calls, fake.made(found).sizes) == (1, ((3, 1), (8, 1)))

    def test_nothing_is_asked_where_nothing_can_be_simpler(self) -> None:
        fake = Fake(lambda p: True, lambda p: True, Path())
        assert fake.run(Survey(sizes=(0, 1)), 12) == Simplified(path="whole")

    def test_a_failure_that_only_the_program_itself_shows_leaves_it_alone(self) -> None:
        fake = Fake(lambda p: False, lambda p: True, Path())
        found = fake.run(Survey(sizes=(64, 128), aspects=ASPECTS), 12)
        assert (found.path, found.done) == ("whole", ())

    def test_the_only_size_of_a_program_with_constants_does_not_make_them_one_number(self) -> None:
        fake = Fake(lambda p: True, lambda p: True, Path())
        found = fake.run(Survey(sizes=(64,), constants=True), 12)
        assert fake.made(found).sizes == ((64, 2),)
        assert all(dict(asked.sizes)[64] > 1 for asked in fake.asked)


def now(survey: Survey, proposal: Proposal) -> dict[int, int]:
    return {size: size for size in survey.sizes} | dict(proposal.sizes)


#: The least value that a failure needs of each size.
LEAST = st.dictionaries(st.integers(1, 300), st.integers(1, 300), min_size=1, max_size=4)


class TestTogether:
    @given(SURVEYS, st.integers(0, 12), st.sampled_from(TELLS), st.integers(), st.integers())
    def test_what_it_ends_with_was_answered_same_alone_within_the_budget(
        self, survey: Survey, budget: int, tells: Tells, seed: int, other: int
    ) -> None:
        fake = Fake(moody(seed), lambda p: not moody(other)(p), Path())
        found = fake.run(survey, budget, tells)
        assert found.calls == len(fake.asked) + len(fake.modules) <= budget + 1
        assert len(set(fake.asked)) == len(fake.asked)
        assert fake.journal.get(fake.made(found), found.path == "whole")

    @given(SURVEYS, st.integers(0, 12), st.sampled_from(TELLS), st.integers(), st.integers(0, 12))
    def test_cut_off_anywhere_it_resumes_to_the_same_result(
        self, survey: Survey, budget: int, tells: Tells, seed: int, stop: int
    ) -> None:
        whole = Fake(moody(seed), lambda p: True, Path()).run(survey, budget, tells)
        fake = Fake(moody(seed), lambda p: True, Path())
        fake.stop_after = stop
        with contextlib.suppress(Stopped):
            fake.run(survey, budget, tells)
        fake.stop_after = 10**9
        assert fake.run(survey, budget, tells) == whole

    @given(LEAST, st.sampled_from(TELLS), st.sampled_from((UNITS, ANYWHERE)))
    def test_each_size_ends_as_small_as_the_failure_allows(
        self, least: dict[int, int], tells: Tells, units: Sequence[int]
    ) -> None:
        survey = Survey(sizes=tuple(sorted(least)))
        needs = {size: min(size, least[size]) for size in survey.sizes}

        def fails(proposal: Proposal) -> bool:
            return all(new >= needs[size] for size, new in now(survey, proposal).items())

        fake = Fake(fails, lambda p: True, Path())
        found = fake.run(survey, 10**6, tells, units)
        assert tells == "lies" or now(survey, fake.made(found)) == needs

    @given(
        LEAST,
        st.sampled_from(("all", "nothing")),
        st.sampled_from((UNITS, ANYWHERE)),
        st.sampled_from((5, 10)),
    )
    def test_no_size_is_larger_than_where_one_is_asked_about_after_the_other(
        self, least: dict[int, int], tells: Tells, units: Sequence[int], budget: int
    ) -> None:
        survey = Survey(sizes=tuple(sorted(least)))

        def fails(proposal: Proposal) -> bool:
            return all(new >= min(size, least[size]) for size, new in now(survey, proposal).items())

        def total(tells: Tells | None) -> int:
            fake = Fake(fails, lambda p: True, Path())
            return sum(now(survey, fake.made(fake.run(survey, budget, tells, units))).values())

        assert total(tells) <= total(None)

    def test_three_calls_settle_a_failure_that_needs_more_than_one_element(self) -> None:
        """The attention of a real program: two of its sizes must not be 1."""
        fake = Fake(lambda p: dict(p.sizes).get(64, 64) > 1, lambda p: True, Path())
        found = fake.run(Survey(sizes=(2, 4, 64), aspects=("attributes",)), 5, "all")
        assert fake.made(found) == Proposal(sizes=((2, 1), (4, 1), (64, 2)), attributes=True)
        assert (len(fake.modules), fake.asked) == (2, [fake.made(found)])

    def test_what_the_smallest_sizes_settle_alone_is_no_module(self) -> None:
        fake = Fake(lambda p: True, lambda p: True, Path())
        found = fake.run(Survey(sizes=(2, 64)), 12, "all", ANYWHERE)
        assert (found.calls, fake.modules) == (1, [])

    def test_those_beside_one_that_fails_in_another_way_are_asked_about_again(self) -> None:
        """A compiler that ends at what fails in an earlier pass names nothing of a later one."""
        fake = Fake(lambda p: dict(p.sizes).get(64, 64) > 2, lambda p: True, Path())
        named = fake.named

        def naming(module: list[Proposal], tells: Tells | None) -> list[str]:
            ones = [n for n, one in enumerate(module) if dict(one.sizes).get(64) == 1]
            verdicts = named(module, tells)
            return (
                ["suspect" if n in ones else "" for n in range(len(module))] if ones else verdicts
            )

        fake.named = naming  # type: ignore[method-assign]
        found = fake.run(Survey(sizes=(64, 100)), 12, "all")
        assert fake.made(found) == Proposal(sizes=((64, 3), (100, 1)))
        assert (
            found.calls
            < Fake(fake.fails, lambda p: True, Path()).run(Survey(sizes=(64, 100)), 12).calls
        )

    def test_what_is_likely_and_does_not_answer_same_alone_is_not_kept(self) -> None:
        fake = Fake(lambda p: p == Proposal(sizes=((64, 8),)), lambda p: True, Path())
        found = fake.run(Survey(sizes=(64,)), 12, "lies")
        assert fake.made(found) == Proposal(sizes=((64, 8),))

    @pytest.mark.parametrize("budget", [5, 12])
    def test_a_module_that_tells_nothing_costs_itself_alone(self, budget: int) -> None:
        survey = Survey(sizes=(2, 4, 64, 100), aspects=("attributes", "types"))

        def run(tells: Tells | None) -> tuple[Proposal, int]:
            fake = Fake(lambda p: dict(p.sizes).get(100, 100) > 2, lambda p: True, Path())
            found = fake.run(survey, budget, tells)
            return fake.made(found), found.calls

        (made, calls), (other, before) = run("nothing"), run(None)
        assert (made, calls) == (other, before + 1)


class TestSizes:
    @given(SIZES, st.sampled_from((4, 16)), st.booleans())
    def test_no_size_grows_and_none_becomes_another(
        self, sizes: tuple[int, ...], unit: int, products: bool
    ) -> None:
        new = scaled(sizes, sizes, unit, products)
        assert all(min(size, 1) <= new[size] <= size for size in sizes)
        if not products:
            assert len(set(new.values())) == len(sizes)
            assert list(new.values()) == sorted(new.values())

    def test_a_product_stays_one(self) -> None:
        assert scaled((32, 128, 4096), (32, 128, 4096), 4, True) == {32: 4, 128: 8, 4096: 32}

    def test_only_chosen_sizes_change(self) -> None:
        assert scaled((32, 100), (100,), 4, False) == {32: 32, 100: 36}


VIEW = b"""
module @module {
  func.func @main(%x: !torch.vtensor<[2,64],f32>, %w: !torch.vtensor<[64,4096],f32>)
      -> !torch.vtensor<[2,32,128],f32> attributes {torch.assume_strict_symbolic_shapes} {
    %0 = torch.aten.matmul %x, %w : !torch.vtensor<[2,64],f32>, !torch.vtensor<[64,4096],f32>
      -> !torch.vtensor<[2,4096],f32>
    %int2 = torch.constant.int 2
    %int32 = torch.constant.int 32
    %int128 = torch.constant.int 128
    %sizes = torch.prim.ListConstruct %int2, %int32, %int128
      : (!torch.int, !torch.int, !torch.int) -> !torch.list<int>
    %1 = torch.aten.view %0, %sizes : !torch.vtensor<[2,4096],f32>, !torch.list<int>
      -> !torch.vtensor<[2,32,128],f32>
    return %1 : !torch.vtensor<[2,32,128],f32>
  }
}
"""
DYNAMIC = b"""
module @module {
  func.func @main(%x: !torch.vtensor<[?,64],f16>) -> !torch.vtensor<[?,64],f16> {
    %s0 = torch.symbolic_int "s0" {min_val = 2, max_val = 100} : !torch.int
    torch.bind_symbolic_shape %x, [%s0], affine_map<()[s0] -> (s0, 64)> : !torch.vtensor<[?,64],f16>
    %c = torch.vtensor.literal(dense<[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]>
      : tensor<9xf16>) : !torch.vtensor<[9],f16>
    %int1 = torch.constant.int 1
    %0 = torch.aten.add.Tensor %x, %x, %int1
      : !torch.vtensor<[?,64],f16>, !torch.vtensor<[?,64],f16>, !torch.int
        -> !torch.vtensor<[?,64],f16>
    torch.bind_symbolic_shape %0, [%s0], affine_map<()[s0] -> (s0, 64)> : !torch.vtensor<[?,64],f16>
    return %0 : !torch.vtensor<[?,64],f16>
  }
}
"""


class TestIR:
    def test_a_survey_names_sizes_and_what_is_not_simple(self) -> None:
        found = edit.survey(VIEW)
        assert (found.sizes, found.aspects) == ((2, 32, 64, 128, 4096), ("attributes",))
        assert [name for name, _ in found.functions] == ["main"]
        found = edit.survey(DYNAMIC)
        assert found.sizes == (9, 64)
        assert set(found.aspects) == {"arguments", "dynamic", "literals", "types"}

    def test_sizes_that_do_not_fit_together_are_no_program(self) -> None:
        with pytest.raises(ValueError, match="do not fit"):
            edit.simpler(VIEW, Proposal(sizes=((32, 4), (128, 8), (4096, 12))))

    def test_a_size_that_a_number_says_stays_where_that_number_does(self) -> None:
        """No shape function tells that `n` of an irfft is the size of its result."""
        text = (
            "func.func @main(%x: !torch.vtensor<[2,9],complex<f32>>) -> !torch.vtensor<[2,20],f32> "
            "{\n  %n = torch.constant.int 20\n  %dim = torch.constant.int -1\n"
            "  %norm = torch.constant.none\n"
            '  %0 = torch.operator "torch.aten.fft_irfft"(%x, %n, %dim, %norm) : '
            "(!torch.vtensor<[2,9],complex<f32>>, !torch.int, !torch.int, !torch.none) -> "
            "!torch.vtensor<[2,20],f32>\n  return %0 : !torch.vtensor<[2,20],f32>\n}\n"
        )
        assert edit.simpler(text, Proposal(sizes=((9, 4),)))
        with pytest.raises(ValueError, match="comes from a number that stays"):
            edit.simpler(text, Proposal(sizes=((9, 4), (20, 6))))

    def test_a_view_keeps_its_product(self) -> None:
        text = edit.simpler(VIEW, Proposal(sizes=((32, 4), (64, 8), (128, 12), (4096, 48))))
        assert "%arg1: !torch.vtensor<[8,48],f32>" in text
        assert "torch.constant.int 12" in text
        assert "-> !torch.vtensor<[2,4,12],f32> attributes" in text

    def test_shapes_that_nothing_says_are_inferred(self) -> None:
        cat = b"""
        func.func @main(%x: !torch.vtensor<[16,64],f32>) -> !torch.vtensor<[32,64],f32> {
          %int0 = torch.constant.int 0
          %l = torch.prim.ListConstruct %x, %x
            : (!torch.vtensor<[16,64],f32>, !torch.vtensor<[16,64],f32>)
              -> !torch.list<vtensor<[16,64],f32>>
          %0 = torch.aten.cat %l, %int0 : !torch.list<vtensor<[16,64],f32>>, !torch.int
            -> !torch.vtensor<[32,64],f32>
          return %0 : !torch.vtensor<[32,64],f32>
        }"""
        text = edit.simpler(cat, Proposal(sizes=((16, 4), (32, 12), (64, 8))))
        assert "-> !torch.vtensor<[8,8],f32>" in text

    def test_what_comes_out_of_a_list_follows_the_sizes(self) -> None:
        grid = b"""
        func.func @main(%x: !torch.vtensor<[50],f32>, %y: !torch.vtensor<[70],f32>)
            -> !torch.vtensor<[70,50],f32> {
          %l = torch.prim.ListConstruct %x, %y
            : (!torch.vtensor<[50],f32>, !torch.vtensor<[70],f32>) -> !torch.list<vtensor>
          %s = torch.constant.str "xy"
          %m = torch.aten.meshgrid.indexing %l, %s : !torch.list<vtensor>, !torch.str
            -> !torch.list<vtensor>
          %p:2 = torch.prim.ListUnpack %m : !torch.list<vtensor>
            -> !torch.vtensor<[70,50],f32>, !torch.vtensor<[70,50],f32>
          %int1 = torch.constant.int 1
          %0 = torch.aten.add.Tensor %p#0, %p#1, %int1
            : !torch.vtensor<[70,50],f32>, !torch.vtensor<[70,50],f32>, !torch.int
            -> !torch.vtensor<[70,50],f32>
          return %0 : !torch.vtensor<[70,50],f32>
        }"""
        text = edit.simpler(grid, Proposal(sizes=((50, 1), (70, 2))))
        assert "-> !torch.vtensor<[2,1],f32>" in text

    def test_a_smaller_constant_keeps_its_first_numbers(self) -> None:
        rows = b"""
        func.func @main() -> tensor<3x4xi4> {
          %c = arith.constant dense<[[0, 1, 2, 3], [4, 5, 6, 7], [-8, -7, -6, -5]]> : tensor<3x4xi4>
          return %c : tensor<3x4xi4>
        }"""
        text = edit.simpler(rows, Proposal(sizes=((3, 2), (4, 2))))
        assert "dense<[[0, 1], [4, 5]]> : tensor<2x2xi4>" in text

    def test_dynamic_dimensions_become_static(self) -> None:
        text = edit.simpler(DYNAMIC, Proposal(dynamic=4))
        assert "?" not in text
        assert "symbolic" not in text
        assert "!torch.vtensor<[4,64],f16>" in text

    def test_constants_become_splats_or_arguments(self) -> None:
        assert "dense<1.000000e+00> : tensor<9xf16>" in edit.simpler(
            DYNAMIC, Proposal(literals=True)
        )
        assert "%arg1: !torch.vtensor<[9],f16>" in edit.simpler(DYNAMIC, Proposal(arguments=True))

    def test_types_become_f32(self) -> None:
        text = edit.simpler(DYNAMIC, Proposal(types=True))
        assert "f16" not in text
        assert "!torch.vtensor<[?,64],f32>" in text

    def test_a_code_of_a_type_is_not_a_size(self) -> None:
        text = b"""
        func.func @main(%x: !torch.vtensor<[5,64],f32>) -> !torch.vtensor<[5,64],f16> {
          %int5 = torch.constant.int 5
          %0 = torch.prims.convert_element_type %x, %int5
            : !torch.vtensor<[5,64],f32>, !torch.int -> !torch.vtensor<[5,64],f16>
          return %0 : !torch.vtensor<[5,64],f16>
        }"""
        made = edit.simpler(text, Proposal(sizes=((5, 4), (64, 8))))
        assert "torch.constant.int 5" in made
        assert "!torch.vtensor<[4,8],f16>" in made
        assert "torch.constant.int 6" in edit.simpler(text, Proposal(types=True))

    def test_attributes_and_repetitions_go(self) -> None:
        text = b"""
        func.func @main(%x: !torch.vtensor<[4],f32>) -> !torch.vtensor<[4],f32>
            attributes {torch.assume_strict_symbolic_shapes} {
          %a = torch.constant.int 1
          %b = torch.constant.int 1
          %0 = torch.aten.add.Scalar %x, %a, %b
            : !torch.vtensor<[4],f32>, !torch.int, !torch.int -> !torch.vtensor<[4],f32>
          return %0 : !torch.vtensor<[4],f32>
        }"""
        made = edit.simpler(text, Proposal(attributes=True))
        assert made.count("torch.constant.int") == 1
        assert "attributes" not in made

    def test_linalg_gets_small_shapes_alike(self) -> None:
        text = b"""
        func.func @f(%a: tensor<64x128xf16>, %b: tensor<128x32xf16>) -> tensor<64x32xf16> {
          %zero = arith.constant 0.0 : f16
          %empty = tensor.empty() : tensor<64x32xf16>
          %init = linalg.fill ins(%zero : f16) outs(%empty : tensor<64x32xf16>) -> tensor<64x32xf16>
          %0 = linalg.matmul ins(%a, %b : tensor<64x128xf16>, tensor<128x32xf16>) outs(%init
            : tensor<64x32xf16>) -> tensor<64x32xf16>
          return %0 : tensor<64x32xf16>
        }"""
        made = edit.simpler(text, Proposal(sizes=((32, 4), (64, 8), (128, 12))))
        assert "@f(%arg0: tensor<8x12xf16>, %arg1: tensor<12x4xf16>) -> tensor<8x4xf16>" in made

    def test_a_dialect_that_verifies_shapes_refuses_those_that_do_not_fit(self) -> None:
        text = b"""
        func.func @f(%a: tensor<64x32xf16>) -> tensor<2048xf16> {
          %0 = tensor.collapse_shape %a [[0, 1]] : tensor<64x32xf16> into tensor<2048xf16>
          return %0 : tensor<2048xf16>
        }"""
        with pytest.raises(ValueError, match="verify"):
            edit.simpler(text, Proposal(sizes=((32, 4), (64, 8), (2048, 12))))
        assert "tensor<32xf16>" in edit.simpler(
            text, Proposal(sizes=((32, 4), (64, 8), (2048, 32)))
        )

    def test_a_proposal_that_the_bindings_refuse_costs_itself_alone(self, tmp_path: Path) -> None:
        program = tmp_path / "program.mlir"
        program.write_text(
            "func.func @main(%x: !torch.vtensor<[64],f16>) -> !torch.vtensor<[64],f16> {\n"
            "  %f = torch.constant.float 2.000000e+00\n"
            "  %0 = torch.aten.mul.Scalar %x, %f : !torch.vtensor<[64],f16>, !torch.float -> "
            "!torch.vtensor<[64],f16>\n  return %0 : !torch.vtensor<[64],f16>\n}\n"
        )
        editor = Editor(program, 0, tmp_path / "edits", process.Limits(seconds=60))
        refused, made = editor.simpler([Proposal(sizes=((64, 2),), types=True), SMALL])
        assert refused is None
        assert made is not None and "vtensor<[2],f16>" in made.read_text()


SMALL = Proposal(sizes=((64, 2),))
MATMUL = """
module @module {
  func.func @main(%a: !torch.vtensor<[1024,2048],f16>, %b: !torch.vtensor<[2048,512],f16>)
    -> !torch.vtensor<[1024,512],f16> attributes {torch.assume_strict_symbolic_shapes} {
    %0 = torch.aten.matmul %a, %b : !torch.vtensor<[1024,2048],f16>,
      !torch.vtensor<[2048,512],f16> -> !torch.vtensor<[1024,512],f16>
    return %0 : !torch.vtensor<[1024,512],f16>
  }
}
"""


@pytest.mark.real
@pytest.mark.parametrize("at_once", [False, True])
def test_a_large_matmul_becomes_small_with_the_same_failure(tmp_path: Path, at_once: bool) -> None:
    program = tmp_path / "program.mlir"
    program.write_text(MATMUL)
    release = toolchain.installed()
    flags = (
        "--iree-hal-target-device=vulkan",
        "--iree-vulkan-target=vp_android_baseline_2022",
        "--iree-input-type=torch",
    )
    place = tmp_path / "whole"
    place.mkdir()
    failure = compiler.compile(
        Compile(mlir=program, flags=flags), Context(toolchain=release, directory=place)
    ).failure
    assert failure is not None
    assert "vector.bitcast" in failure.signature
    limits = process.Limits(seconds=60)
    oracle = CompileOracle(
        Context(toolchain=release, limits=limits, directory=tmp_path / "state"), flags, failure
    )
    editor = Editor(program, 0, tmp_path / "edits", limits)

    def together(files: Sequence[Path]) -> list[str]:
        about, own = failure.op or failure.message, Bindings(limits=limits)
        return cleared(files, editor.place(), oracle.ask, oracle.said, own, about)

    options = SimplifyOptions(
        oracle.ask, editor.simpler, budget=3, together=together if at_once else None
    )
    found = simplify(program, editor.survey(), options)
    assert "smaller shapes" in found.done, Path(found.path).read_text()
    assert found.calls == oracle.calls <= 3
    (answer,) = oracle.ask([Path(found.path)])
    assert answer.failure is not None and answer.failure.signature == failure.signature
    assert all(size < 100 for size in edit.survey(Path(found.path).read_bytes()).sizes)
