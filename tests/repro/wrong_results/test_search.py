"""The search for what is wrong given right inputs: nothing that is right is accused."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from iree_pilot.repro.ir.graph import Graph, Op
from iree_pilot.repro.wrong_results.part_search import Part, find, levels, ranked


def chain(length: int, links: Sequence[int] = ()) -> Graph:
    """Operations in a row, each of which takes the one before it and one more, `links[n]` back."""
    ops = []
    for index in range(length):
        back = links[index] if index < len(links) else 1
        operands = {index, max(index - back, 0)}
        ops.append(
            Op(
                index=index,
                name="torch.aten.add",
                operands=tuple(sorted(operands)),
                results=(index + 1,),
            )
        )
    return Graph(
        function="main",
        arguments=(0,),
        ops=tuple(ops),
        returned=(length,),
        types=("!torch.vtensor<[4],f32>",) * (length + 1),
    )


class Faults:
    """A compiler that is wrong on every part that holds all of one of these groups.

    hidden: groups that are right when they are compiled with others. phantom: operations that are
    off only when they are compiled with others.
    """

    def __init__(
        self,
        groups: Sequence[Part],
        *,
        hidden: Sequence[Part] = (),
        phantom: Sequence[int] = (),
        error: float = 1.0,
    ) -> None:
        self.groups, self.hidden_, self.phantom, self.error = groups, hidden, phantom, error
        self.hints = self.asked = 0

    def holds(self, part: Part, groups: Sequence[Part]) -> bool:
        return any(set(group) <= set(part) for group in groups)

    def hint(self, parts: Sequence[Part]) -> list[float]:
        self.hints += 1
        off = [group for group in self.groups if group not in self.hidden_]
        return [
            self.error * (self.holds(part, off) or bool(set(part) & set(self.phantom)))
            for part in parts
        ]

    def ask(self, parts: Sequence[Part]) -> list[str]:
        self.asked += len(parts)
        return ["same" if self.holds(part, self.groups) else "passes" for part in parts]


@given(st.integers(1, 300), st.data())
def test_one_wrong_operation_is_found_with_one_hint_and_one_question(
    length: int, data: st.DataObject
) -> None:
    wrong = data.draw(st.integers(0, length - 1))
    faults = Faults([(wrong,)])
    found = find(chain(length), faults.hint, faults.ask, error=1.0)
    assert found.part == (wrong,)
    assert found.hinted
    assert (faults.hints, faults.asked) == (1, 1)
    assert set(found.right) == set(range(length)) - {wrong}


@given(st.integers(1, 200), st.integers(1, 12), st.data())
def test_what_is_wrong_only_together_is_found_however_far_apart(
    length: int, needed: int, data: st.DataObject
) -> None:
    group = tuple(
        sorted(data.draw(st.sets(st.integers(0, length - 1), min_size=1, max_size=needed)))
    )
    faults = Faults([group])
    found = find(chain(length), faults.hint, faults.ask, error=1.0)
    assert found.part is not None
    assert faults.holds(found.part, [group])
    assert faults.hints <= 3 + max(length, 1).bit_length()


@given(st.integers(20, 200), st.integers(2, 4), st.data())
def test_what_lies_close_together_is_found_in_a_small_part(
    length: int, needed: int, data: st.DataObject
) -> None:
    first = data.draw(st.integers(0, length - needed))
    faults = Faults([tuple(range(first, first + needed))])
    found = find(chain(length), faults.hint, faults.ask, error=1.0)
    assert found.part is not None
    assert len(found.part) <= 8


@given(st.integers(1, 100), st.data())
def test_what_other_parts_hide_is_found_in_the_whole_program(
    length: int, data: st.DataObject
) -> None:
    wrong = data.draw(st.integers(0, length - 1))
    faults = Faults([(wrong,)], hidden=[(wrong,)])
    found = find(chain(length), faults.hint, faults.ask, error=1.0)
    assert found.part == tuple(range(length))
    assert not found.hinted


@given(st.integers(1, 60), st.data())
def test_a_right_program_is_never_accused(length: int, data: st.DataObject) -> None:
    phantom = data.draw(st.sets(st.integers(0, length - 1)))
    faults = Faults([], phantom=sorted(phantom))
    found = find(chain(length), faults.hint, faults.ask, error=1.0)
    assert found.part is None
    asked = 8 * (3 + length.bit_length())
    assert faults.asked <= asked


def test_a_small_error_before_it_does_not_hide_the_one_that_explains_the_program() -> None:
    parts = [(0,), (1,), (2,), (3,)]
    assert ranked(parts, [1e-5, 0.0, 0.7, 1.3], 1.3) == [(2,), (3,), (0,)]


@given(st.integers(1, 200))
def test_the_parts_grow_and_cover_the_program(length: int) -> None:
    graph = chain(length)
    for parts in levels(graph):
        assert {op for part in parts for op in part} == set(graph.real)
        assert len(set(parts)) == len(parts)


def test_where_nothing_shows_large_parts_are_not_asked_about() -> None:
    graph = chain(40)
    sizes: list[int] = []

    def hint(parts: Sequence[Part]) -> list[float]:
        sizes.append(max(map(len, parts)))
        return [0.0] * len(parts)

    def ask(parts: Sequence[Part]) -> list[str]:
        raise AssertionError("nothing was named")

    found = find(graph, hint, ask, error=0.0, shows=False)
    assert found.part is None and max(sizes) < 8
    wrong = find(
        graph,
        lambda parts: [float(7 in part) for part in parts],
        lambda parts: ["same" if 7 in part else "passes" for part in parts],
        error=0.0,
        shows=False,
    )
    assert wrong.part == (7,)
