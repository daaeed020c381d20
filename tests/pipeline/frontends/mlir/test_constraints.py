"""What a program demands of its inputs is read, and inputs that are made up satisfy it."""

from __future__ import annotations

import pytest
from fake.generic_form import CONSTANTS, MATRIX, F, check, compare, dim, func, module

from iree_pilot.pipeline.frontends.mlir import constraints, generic
from iree_pilot.pipeline.frontends.mlir.generic import GenericFunction
from iree_pilot.pipeline.program.program import MadeUp


def body(*lines: str) -> GenericFunction:
    arguments = f"%arg0: {MATRIX}, %arg1: {MATRIX}, %arg2: index"
    types = f"({MATRIX}, {MATRIX}, index) -> ()"
    return generic.functions(module(func("f", types, arguments, [*CONSTANTS, *lines])))["f"]


def solved(*lines: str) -> MadeUp | None:
    return constraints.solve(body(*lines), F)


class TestSolve:
    def test_a_constant_that_a_dimension_is_compared_with(self) -> None:
        made = solved(dim("%0", "%arg1", 1), compare("%1", 0, "%0", "%c24"), check("%1"))
        assert made == MadeUp(sizes={"arg1_d1": 24})

    def test_a_size_of_nothing_is_the_last_that_is_tried(self) -> None:
        made = solved(
            dim("%0", "%arg1", 1),
            '%1 = "arith.remui"(%0, %c24) : (index, index) -> index',
            compare("%2", 0, "%1", "%c0"),
            check("%2", "a multiple of 24"),
        )
        assert made == MadeUp(sizes={"arg1_d1": 24})

    def test_dimensions_of_each_other_and_a_number(self) -> None:
        made = solved(
            dim("%0", "%arg0", 0),
            dim("%1", "%arg1", 0),
            '%2 = "arith.muli"(%0, %c2) : (index, index) -> index',
            compare("%3", 0, "%2", "%1"),
            check("%3", "twice as many rows"),
            dim("%4", "%arg0", 1),
            compare("%5", 0, "%arg2", "%4"),
            check("%5", "the width"),
        )
        assert made is not None
        assert 2 * made.sizes["arg0_d0"] == made.sizes["arg1_d0"]
        assert made.numbers["arg2"] == made.sizes["arg0_d1"]

    def test_what_may_be_assumed(self) -> None:
        made = solved(
            dim("%0", "%arg0", 0),
            '%1 = "util.assume.int"(%0) <{assumptions = [[#util.int.assumption<umin = 20, '
            "umax = 64, udiv = 16>]]}> : (index) -> index",
        )
        assert made is not None
        assert made.sizes["arg0_d0"] in (32, 48, 64)

    def test_tied_shapes(self) -> None:
        made = solved(
            dim("%0", "%arg0", 0),
            '%1 = "arith.addi"(%0, %c1) : (index, index) -> index',
            f'%2 = "flow.tensor.tie_shape"(%arg1, %1, %c24) : ({MATRIX}, index, index) -> {MATRIX}',
        )
        assert made is not None
        assert made.sizes["arg1_d1"] == 24
        assert made.sizes["arg1_d0"] == made.sizes["arg0_d0"] + 1

    def test_torchs_own_assertions(self) -> None:
        made = solved(
            '%0 = "torch.constant.int"() <{value = 1 : i64}> : () -> !torch.int',
            '%1 = "torch.constant.int"() <{value = 7 : i64}> : () -> !torch.int',
            '%2 = "torch.aten.size.int"(%arg0, %0) : (!torch.vtensor<[?,?],f32>, !torch.int) '
            "-> !torch.int",
            '%3 = "torch.aten.eq.int"(%2, %1) : (!torch.int, !torch.int) -> !torch.bool',
            '"torch.runtime.assert"(%3) <{message = "no"}> : (!torch.bool) -> ()',
        )
        assert made == MadeUp(sizes={"arg0_d1": 7})

    @pytest.mark.parametrize(
        "lines",
        [
            [],
            [
                dim("%0", "%arg0", 0),
                compare("%1", 0, "%0", "%c24"),
                compare("%2", 1, "%0", "%c24"),
                check("%1"),
                check("%2"),
            ],
            [dim("%0", "%arg0", 0), compare("%1", 4, "%0", "%c1"), check("%1")],
        ],
        ids=["nothing is demanded", "nothing satisfies it", "what is usual does"],
    )
    def test_without_need_or_hope_the_usual_stays(self, lines: list[str]) -> None:
        assert solved(*lines) is None


class TestDemands:
    def test_one_that_no_input_changes_depends_on_nothing(self) -> None:
        (demand,) = constraints.demands(body(compare("%0", 0, "%c1", "%c2"), check("%0", "never")))
        assert (demand.message, demand.unknowns) == ("never", frozenset())
        assert demand.holds({}) is False

    def test_what_is_in_a_tensor_is_not_known_but_depended_on(self) -> None:
        (demand,) = constraints.demands(
            body(
                '%0 = "tensor.extract"(%arg0, %c0, %c0) : (tensor<?x?xf32>, index, index) -> f32',
                '%1 = "arith.fptosi"(%0) : (f32) -> index',
                compare("%2", 0, "%1", "%c2"),
                check("%2"),
            )
        )
        assert demand.unknowns == {(0, None)}
        assert demand.holds({}) is None


class TestIndices:
    def test_numbers_that_index_stay_within_what_they_index(self) -> None:
        read = '%3 = "tensor.extract"(%arg0, %2, %1) : (tensor<3x5xf32>, index, index) -> f32'
        inner = [
            '%1 = "linalg.index"() <{dim = 1 : i64}> : () -> index',
            '%2 = "arith.index_cast"(%in) : (i32) -> index',
        ]
        assert constraints.index_limit(body(*inner, read)) == 3
        assert constraints.index_limit(body(*inner)) is None
        own = '%3 = "tensor.extract"(%arg0, %1, %c0) : (tensor<3x5xf32>, index, index) -> f32'
        assert constraints.index_limit(body(*inner, own)) is None

    def test_a_table_that_is_looked_up(self) -> None:
        looked_up = (
            '%1 = "torch.aten.embedding"(%arg0, %arg1) : (!torch.vtensor<[6,2],f32>, '
            "!torch.vtensor<[?],si64>) -> !torch.vtensor<[?,2],f32>"
        )
        assert constraints.index_limit(body(looked_up)) == 6
