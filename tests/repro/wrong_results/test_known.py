"""Which parts of a program can be judged is told before anything is compiled."""

from __future__ import annotations

from iree_pilot.pipeline.program.program import Tensor
from iree_pilot.repro.ir.feeds import ARGUMENT, FedValue
from iree_pilot.repro.ir.graph import Graph, Op
from iree_pilot.repro.wrong_results.judged_parts import judgeable
from iree_pilot.repro.wrong_results.references import Inside

T = "tensor<4xf32>"
#: %1, %2 = draw(%0); %3 = neg(%1); %4 = size(%2); %5 = fill(%4, %0)
GRAPH = Graph(
    function="main",
    arguments=(0,),
    ops=(
        Op(index=0, name="draw", operands=(0,), results=(1, 2)),
        Op(index=1, name="neg", operands=(1,), results=(3,)),
        Op(index=2, name="size", operands=(2,), results=(4,)),
        Op(index=3, name="fill", operands=(4, 0), results=(5,)),
        Op(index=4, name="return", operands=(3, 5), results=(), pinned=True),
    ),
    returned=(3, 5),
    types=(T, T, T, T, "index", T),
)
PARTS = [(0,), (1,), (0, 1), (2, 3), (3,)]


def tensor() -> Tensor:
    return Tensor(dtype="f32", shape=(4,), file="x")


def test_what_takes_known_values_only_can_be_judged() -> None:
    every = {FedValue(op, n): tensor() for op, n in ((ARGUMENT, 0), (0, 0), (0, 1), (1, 0), (3, 0))}
    assert judgeable(GRAPH, PARTS, Inside(values=every)) == [True] * 5
    without = {place: value for place, value in every.items() if place.op != 0}
    found = judgeable(GRAPH, PARTS, Inside(values=without, skipped=(0,), why="draw: is random"))
    assert found == [False] * 5
    half = {place: value for place, value in every.items() if place != FedValue(0, 1)}
    assert judgeable(GRAPH, PARTS, Inside(values=half)) == [True, True, True, False, False]
