"""What a program's data flow links, and what it does not."""

from __future__ import annotations

from iree_pilot.repro.ir.graph import Cut, Graph, Op, by_line, connected, links, neighbours, sources

#   0: constant -> %2            shared by 1, 2 and 5
#   1: a(%0, %2) -> %3
#   2: b(%1, %2) -> %4
#   3: list(%3, %4) -> %5        glue between 1, 2 and their user 4
#   4: cat(%5) -> %6
#   5: c(%1, %2) -> %7, %8       linked with the others through glue and an argument only
#   6: check(%6)
#   7: return %6, %7
GRAPH = Graph(
    function="main",
    arguments=(0, 1),
    ops=(
        Op(index=0, name="constant", operands=(), results=(2,), line=3, glue=True),
        Op(index=1, name="a", operands=(0, 2), results=(3,), line=4),
        Op(index=2, name="b", operands=(1, 2), results=(4,), line=4),
        Op(index=3, name="list", operands=(3, 4), results=(5,), line=5, glue=True),
        Op(index=4, name="cat", operands=(5,), results=(6,)),
        Op(index=5, name="c", operands=(1, 2), results=(7, 8), line=7),
        Op(index=6, name="check", operands=(6,), results=(), line=8),
        Op(index=7, name="return", operands=(6, 7), results=(), line=9, pinned=True),
    ),
    returned=(6, 7),
    types=("t",) * 9,
)


class TestGraph:
    def test_real_operations_are_neither_glue_nor_terminators(self) -> None:
        assert GRAPH.real == (1, 2, 4, 5, 6)

    def test_arguments_have_no_producer(self) -> None:
        assert GRAPH.producers() == {2: 0, 3: 1, 4: 2, 5: 3, 6: 4, 7: 5, 8: 5}

    def test_returning_a_value_is_no_use_of_it(self) -> None:
        users = GRAPH.users()
        assert users[6] == (6,)
        assert 7 not in users

    def test_an_operation_that_takes_a_value_twice_is_one_user(self) -> None:
        twice = Op(index=0, name="square", operands=(0, 0), results=(1,))
        graph = Graph(function="f", arguments=(0,), ops=(twice,), returned=(1,), types=("t", "t"))
        assert graph.users() == {0: (0,)}

    def test_the_first_operation_of_a_line_stands_for_it(self) -> None:
        assert by_line(GRAPH) == {3: 0, 4: 1, 5: 3, 7: 5, 8: 6}


class TestDataFlow:
    def test_lists_are_seen_through(self) -> None:
        assert sources(GRAPH) == {1: (), 2: (), 4: (1, 2), 5: (), 6: (4,)}

    def test_links_go_both_ways(self) -> None:
        assert links(GRAPH) == {1: (4,), 2: (4,), 4: (1, 2, 6), 5: (), 6: (4,)}

    def test_a_shared_constant_or_argument_makes_no_neighbours(self) -> None:
        assert neighbours(GRAPH, [2]) == (4,)
        assert neighbours(GRAPH, [5]) == ()

    def test_neighbours_are_outside(self) -> None:
        assert neighbours(GRAPH, [4, 1]) == (2, 6)

    def test_what_a_list_links_is_connected(self) -> None:
        assert connected(GRAPH, GRAPH.real, 1) == (1, 2, 4, 6)

    def test_a_connection_through_what_does_not_stay_does_not_count(self) -> None:
        assert connected(GRAPH, [1, 2, 6], 1) == (1,)

    def test_the_root_counts_even_if_it_is_not_named(self) -> None:
        assert connected(GRAPH, [1, 5], 4) == (1, 4)


class TestCut:
    def test_fewer_operations_keep_their_order(self) -> None:
        assert Cut(keep=(1, 2, 4, 6), splat=(0,)).without([4, 1]) == Cut(keep=(2, 6), splat=(0,))

    def test_an_operation_less_is_smaller_than_any_number_of_constants(self) -> None:
        assert Cut(keep=(1,)).size < Cut(keep=(1, 2), splat=(0, 1), bypass=((3, 0),)).size

    def test_of_as_many_operations_the_one_with_more_constants_is_smaller(self) -> None:
        assert Cut(keep=(1,), splat=(0,)).size < Cut(keep=(1,)).size
