"""The same layer, over and over, is found from one of its appearances."""

from __future__ import annotations

from iree_pilot.repro.ir.graph import Cut, Graph, Op
from iree_pilot.repro.ir.pattern import alike


def graph(*ops: tuple[str, tuple[int, ...], str]) -> Graph:
    """Two arguments, 0 and 1 of type a; operation N makes value N + 2. `list` is glue."""
    return Graph(
        function="main",
        arguments=(0, 1),
        ops=tuple(
            Op(index=i, name=n, operands=o, results=(i + 2,), glue=n == "list")
            for i, (n, o, _) in enumerate(ops)
        ),
        returned=(),
        types=("a", "a", *(t for _, _, t in ops)),
    )


LAYERS = [("mm", (0, 1), "a"), ("div", (2,), "a"), ("mm", (3, 1), "a"), ("div", (4,), "a")]


def test_the_same_operations_linked_alike_are_found() -> None:
    assert alike(graph(*LAYERS), Cut(keep=(2, 3))) == ((2, 3), (0, 1))


def test_other_types_or_links_are_not_alike() -> None:
    other = [("mm", (5, 1), "b"), ("div", (6,), "b"), ("mm", (0, 1), "a"), ("div", (0,), "a")]
    assert alike(graph(*LAYERS, *other), Cut(keep=(2, 3))) == ((2, 3), (0, 1))


def test_what_a_cut_bypasses_links() -> None:
    layers = [("mm", (0, 1), "a"), ("view", (2,), "a"), ("div", (3,), "a")]
    again = [("mm", (0, 4), "a"), ("view", (5,), "a"), ("div", (6,), "a"), ("div", (0,), "a")]
    found = alike(graph(*layers, *again), Cut(keep=(0, 2), bypass=((3, 2),)))
    assert found == ((0, 2), (3, 5))


def test_lists_link() -> None:
    ops = [("a", (0,), "a"), ("list", (2, 1), "l"), ("cat", (3,), "a")]
    again = [("a", (1,), "a"), ("list", (5, 0), "l"), ("cat", (6,), "a")]
    assert alike(graph(*ops, *again), Cut(keep=(0, 2))) == ((0, 2), (3, 5))


def test_operations_that_nothing_links_are_alone() -> None:
    ops = [("x", (0,), "a"), ("y", (1,), "a"), ("x", (0,), "a"), ("y", (1,), "a")]
    assert alike(graph(*ops), Cut(keep=(0, 1))) == ((0, 1),)


def test_each_beginning_is_taken_once_and_the_own_group_first() -> None:
    ops = [("x", (0,), "a"), ("x", (2,), "a"), ("x", (3,), "a")]
    assert alike(graph(*ops), Cut(keep=(1,))) == ((1,), (0,), (2,))
