"""What a search finds in any graph, whatever the oracle: judged by trying every single step."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from profiles import examples

from iree_pilot.repro.ir.graph import Cut, Graph, Op, links
from iree_pilot.repro.reducer.shrink import (
    Progress,
    Questions,
    Shrunk,
    find_unlocated,
    mask,
    shrink,
)

TYPES = ("t0", "t1")
LIST = "list"
#: (an operation, where each of its operands comes from), of each operation in order.
Program = tuple[tuple[int, tuple["Origin", ...]], ...]
#: ("op", result), ("argument", number), ("splat", type) or ("glue", operation, origins...).
Origin = tuple[object, ...]
Oracle = Callable[[Program], str]


def program(graph: Graph, cut: Cut) -> Program:
    """What a cut leaves, by the words of `Cut` alone; arguments are numbered as they are met."""
    producers, bypass = graph.producers(), dict(cut.bypass)
    arguments: dict[int, int] = {}

    def origin(value: int) -> Origin:
        if value in cut.splat:
            return ("splat", graph.types[value])
        if value in bypass:
            return origin(bypass[value])
        maker = producers.get(value)
        if maker in cut.keep:
            return ("op", value)
        if maker is not None and graph.ops[maker].glue:
            return ("glue", maker, *map(origin, graph.ops[maker].operands))
        return ("argument", arguments.setdefault(value, len(arguments)))

    return tuple((op, tuple(map(origin, graph.ops[op].operands))) for op in cut.keep)


def single_steps(graph: Graph, cut: Cut, constants: bool = False) -> Iterator[Cut]:
    """Every cut with one operation fewer (or one constant more), found without any cleverness."""
    producers = graph.producers()

    def inputs(op: Op) -> Iterator[int]:
        for value in op.operands:
            yield value
            maker = producers.get(value)
            if maker is not None and graph.ops[maker].glue:
                yield from inputs(graph.ops[maker])

    for index in cut.keep:
        op = graph.ops[index]
        rest = cut.without([index])
        yield rest
        yield Cut(keep=rest.keep, bypass=rest.bypass, splat=(*rest.splat, *op.results))
        alike = [
            {(r, v) for v in inputs(op) if graph.types[v] == graph.types[r]} for r in op.results
        ]
        if len(alike) == 1:
            for entry in alike[0]:
                yield Cut(keep=rest.keep, bypass=(*rest.bypass, entry), splat=rest.splat)
    if constants:
        inside = {v for op in graph.ops if op.glue or op.index in cut.keep for v in op.results}
        for value in {*range(len(graph.types))} - inside - {*dict(cut.bypass)}:
            yield Cut(keep=cut.keep, bypass=cut.bypass, splat=(*cut.splat, value))


class Ask:
    """Answers from an oracle over programs, and what was asked."""

    def __init__(self, graph: Graph, oracle: Oracle, width: int = 1) -> None:
        self.graph = graph
        self.oracle = oracle
        self.width = width
        self.answers: list[tuple[Cut, str]] = []

    def __call__(self, cuts: Sequence[Cut]) -> list[str]:
        assert 0 < len(cuts) <= self.width
        verdicts = [self.oracle(program(self.graph, cut)) for cut in cuts]
        self.answers += zip(cuts, verdicts, strict=True)
        return verdicts


class Stopped(Exception):
    """The process was killed while a question was open."""


class Journal:
    """Answers kept from a run that was stopped after so many; asks the next only for others."""

    def __init__(self, ask: Ask, kept: dict[Cut, str], stop_after: int | None = None) -> None:
        self.ask = ask
        self.kept = kept
        self.stop_after = stop_after

    def __call__(self, cuts: Sequence[Cut]) -> list[str]:
        for cut in cuts:
            if cut not in self.kept:
                if self.stop_after is not None and len(self.kept) >= self.stop_after:
                    raise Stopped
                (self.kept[cut],) = self.ask([cut])
        return [self.kept[cut] for cut in cuts]


@st.composite
def graphs(draw: st.DrawFn, most: int = 14) -> Graph:
    """Functions of real operations with none to two results, constants and list constructs."""
    types = [draw(st.sampled_from(TYPES)) for _ in range(draw(st.integers(1, 3)))]
    arguments = tuple(range(len(types)))
    ops: list[Op] = []
    for _ in range(draw(st.integers(1, most))):
        kind = draw(st.sampled_from(["op"] * 6 + ["two", "check", "constant", "list"]))
        tensors = [v for v, t in enumerate(types) if kind != "list" or t != LIST]
        latest = st.sampled_from(tensors[-3:]) | st.sampled_from(tensors)
        count = 0 if kind == "constant" else draw(st.integers(0 if kind == "op" else 1, 3))
        operands = tuple(draw(latest) for _ in range(count))
        made = {"two": 2, "check": 0}.get(kind, 1)
        results = tuple(range(len(types), len(types) + made))
        types += [LIST if kind == "list" else draw(st.sampled_from(TYPES)) for _ in results]
        glue = kind in ("constant", "list")
        ops.append(Op(index=len(ops), name=kind, operands=operands, results=results, glue=glue))
    ops.append(Op(index=len(ops), name="op", operands=(0,), results=(len(types),)))
    types.append(TYPES[0])
    ops.append(Op(index=len(ops), name="return", operands=(0,), results=(), pinned=True))
    return Graph(
        function="f", arguments=arguments, ops=tuple(ops), returned=(0,), types=tuple(types)
    )


def kept(candidate: Program) -> set[int]:
    return {op for op, _ in candidate}


def contains(needed: set[int]) -> Oracle:
    """Fails as long as some operations are there, connected or not."""
    return lambda candidate: "same" if needed <= kept(candidate) else "passes"


def feeds(graph: Graph, first: int, last: int) -> Oracle:
    """Fails as long as what one operation makes reaches another one."""
    producers = graph.producers()

    def makers(origin: Origin) -> Iterator[int]:
        if origin[0] == "op":
            yield producers[origin[1]]  # type: ignore[index]
        elif origin[0] == "glue":
            for inner in origin[2:]:
                yield from makers(inner)  # type: ignore[arg-type]

    def oracle(candidate: Program) -> str:
        reached = {first} & kept(candidate)
        for op, origins in candidate:
            if reached.intersection(maker for o in origins for maker in makers(o)):
                reached.add(op)
        return "same" if first in reached and last in reached else "different"

    return oracle


def wants(op: int, kinds: set[str]) -> Oracle:
    """Fails as long as an operation is there and takes all its operands from such places."""

    def oracle(candidate: Program) -> str:
        origins = dict(candidate).get(op)
        if origins is None:
            return "passes"
        return "same" if all(origin[0] in kinds for origin in origins) else "invalid"

    return oracle


def erratic(seed: int) -> Oracle:
    """Fails or not as if by chance, though always in the same way for the same program."""

    def oracle(candidate: Program) -> str:
        verdicts = ["same", "same", "different", "passes", "invalid", "unresolved"]
        return random.Random(f"{seed} {candidate}").choice(verdicts)

    return oracle


def at_once(graph: Graph, oracle: Oracle, tells: str) -> Callable[[Sequence[Cut]], list[str]]:
    """One question for several cuts: whether any fails, and of "all" or the "first" which; or
    "how" too, so that those that fail in the same way are likely."""

    def together(cuts: Sequence[Cut]) -> list[str]:
        verdicts = [oracle(program(graph, cut)) for cut in cuts]
        bad = [number for number, verdict in enumerate(verdicts) if verdict != "passes"]
        if not bad:
            return ["passes"] * len(cuts)
        named = {"how": bad, "all": bad, "first": bad[:1], "none": []}[tells]
        found = ["suspect" if number in named else "" for number in range(len(cuts))]
        if tells == "how":
            found = ["likely" if v == "same" else f for v, f in zip(verdicts, found, strict=True)]
        return found

    return together


@st.composite
def failures(draw: st.DrawFn) -> tuple[Graph, Oracle]:
    """A graph and an oracle that answers "same" for the whole of it."""
    graph = draw(graphs())
    some = st.sampled_from(graph.real)
    oracle = draw(
        st.one_of(
            st.builds(contains, st.sets(some, min_size=1, max_size=4)),
            st.builds(lambda a, b: feeds(graph, a, b), some, some),
            st.builds(wants, some, st.just({"op", "splat", "glue"})),
            st.builds(wants, some, st.just({"op", "argument"})),
            st.builds(wants, some, st.just({"op"})),
            st.builds(erratic, st.integers(0, 10**6)),
        )
    )
    whole = program(graph, Cut(keep=graph.real))
    return graph, lambda candidate: "same" if candidate == whole else oracle(candidate)


def search(graph: Graph, ask: Callable[[Sequence[Cut]], Sequence[str]], width: int) -> Shrunk:
    """All of it, as it goes where nothing is located."""
    start = find_unlocated(graph, Questions(ask, width=width))
    assert start is not None
    return shrink(graph, start, Questions(ask, width=width))


class TestResult:
    @given(failures(), st.integers(1, 3))
    def test_it_fails_in_the_same_way(self, failure: tuple[Graph, Oracle], width: int) -> None:
        graph, oracle = failure
        found = search(graph, Ask(graph, oracle, width), width)
        assert oracle(program(graph, found.cut)) == "same"
        assert found.minimal

    @given(failures(), st.integers(1, 3), st.booleans())
    @settings(max_examples=examples(3))
    def test_no_single_step_is_left(
        self, failure: tuple[Graph, Oracle], width: int, constants: bool
    ) -> None:
        graph, oracle = failure
        ask, start = Ask(graph, oracle, width), Cut(keep=graph.real)
        found = shrink(graph, start, Questions(ask, width=width), constants=constants)
        here = program(graph, found.cut)
        verdicts = {
            there: oracle(there)
            for step in single_steps(graph, found.cut, constants)
            if (there := program(graph, step)) not in (here, ())
        }
        assert "same" not in verdicts.values()
        assert found.unresolved >= [*verdicts.values()].count("unresolved")

    @given(failures(), st.sampled_from(["how", "all", "first", "none"]))
    @settings(max_examples=examples(3))
    def test_no_single_step_is_left_where_cuts_are_asked_for_together(
        self, failure: tuple[Graph, Oracle], tells: str
    ) -> None:
        graph, oracle = failure
        ask = Ask(graph, oracle)
        found = shrink(
            graph, Cut(keep=graph.real), Questions(ask, together=at_once(graph, oracle, tells))
        )
        here = program(graph, found.cut)
        assert oracle(here) == "same"
        assert found.minimal
        for step in single_steps(graph, found.cut):
            assert (there := program(graph, step)) in (here, ()) or oracle(there) != "same"

    def test_the_proof_is_one_question_where_cuts_are_asked_for_together(self) -> None:
        graph = chain([*"abcdefgh"])
        needed = contains({*graph.real})
        ask = Ask(graph, needed)
        together = at_once(graph, needed, "none")
        found = shrink(graph, Cut(keep=graph.real), Questions(ask, together=together))
        assert found.cut.keep == graph.real
        assert found.minimal
        alone = shrink(graph, Cut(keep=graph.real), Questions(Ask(graph, needed)))
        assert found.asked <= 4 < alone.asked

    def test_what_likely_answers_the_same_is_asked_before_what_fails_otherwise(self) -> None:
        graph = chain([*"abcd"])

        def oracle(candidate: Program) -> str:
            return "same" if graph.real[-1] in kept(candidate) else "different"

        asked = []
        for tells in ("how", "all"):
            start, together = Cut(keep=graph.real), at_once(graph, oracle, tells)
            found = shrink(
                graph, start, Questions(Ask(graph, oracle), together=together), root=graph.real[0]
            )
            assert len(found.cut.keep) == 1 and found.minimal
            asked.append(found.asked)
        assert asked[0] < asked[1]

    @given(failures(), st.data())
    def test_any_root_will_do(self, failure: tuple[Graph, Oracle], data: st.DataObject) -> None:
        graph, oracle = failure
        root = data.draw(st.sampled_from(graph.real))
        found = shrink(graph, Cut(keep=graph.real), Questions(Ask(graph, oracle)), root=root)
        assert found.minimal
        assert oracle(program(graph, found.cut)) == "same"

    @given(failures(), st.integers(1, 3))
    def test_no_program_is_asked_for_twice(self, failure: tuple[Graph, Oracle], width: int) -> None:
        graph, oracle = failure
        ask = Ask(graph, oracle, width)
        found = shrink(graph, Cut(keep=graph.real), Questions(ask, width=width), constants=True)
        asked = [program(graph, cut) for cut, _ in ask.answers]
        assert len({*asked}) == len(asked) == found.asked
        assert () not in asked

    @given(graphs(), st.data())
    def test_needed_operations_are_found_exactly(self, graph: Graph, data: st.DataObject) -> None:
        needed = data.draw(st.sets(st.sampled_from(graph.real), min_size=1))
        found = search(graph, Ask(graph, contains(needed)), 1)
        assert found.cut == Cut(keep=tuple(sorted(needed)))

    def test_a_program_without_operations_is_minimal(self) -> None:
        end = Op(index=0, name="return", operands=(0,), results=(), pinned=True)
        graph = Graph(function="f", arguments=(0,), ops=(end,), returned=(0,), types=("t",))
        ask = Ask(graph, contains(set()))
        assert shrink(graph, Cut(keep=()), Questions(ask)) == Shrunk(
            cut=Cut(keep=()), minimal=True, asked=0
        )
        assert find_unlocated(graph, Questions(ask)) is None


def chain(types: Sequence[str]) -> Graph:
    """Each operation takes the result of the one before; the first takes an argument."""
    count = len(types)
    ops = [Op(index=i, name="op", operands=(i,), results=(i + 1,)) for i in range(count)]
    end = Op(index=count, name="return", operands=(count,), results=(), pinned=True)
    return Graph(
        function="f",
        arguments=(0,),
        ops=(*ops, end),
        returned=(count,),
        types=(types[0], *types),
    )


class TestWays:
    """What takes the place of an operation that goes."""

    def test_an_argument_is_enough_where_nothing_else_is_needed(self) -> None:
        graph = chain("aab")
        found = shrink(graph, Cut(keep=(0, 1, 2)), Questions(Ask(graph, contains({1}))))
        assert found.cut == Cut(keep=(1,))

    def test_an_operation_between_two_that_must_be_connected_is_bypassed(self) -> None:
        graph = chain("aab")
        found = shrink(graph, Cut(keep=(0, 1, 2)), Questions(Ask(graph, feeds(graph, 0, 2))))
        assert found.cut == Cut(keep=(0, 2), bypass=((2, 1),))

    @pytest.mark.parametrize("through_a_list", [False, True])
    @pytest.mark.parametrize("needed", [0, 1])
    def test_any_operand_of_the_type_may_stand_for_a_result(
        self, needed: int, through_a_list: bool
    ) -> None:
        joined: tuple[Op, ...] = (Op(index=2, name="add", operands=(1, 2), results=(4,)),)
        if through_a_list:
            joined = (
                Op(index=2, name="list", operands=(1, 2), results=(3,), glue=True),
                Op(index=3, name="cat", operands=(3,), results=(4,)),
            )
        last = 2 + len(joined)
        graph = Graph(
            function="f",
            arguments=(0,),
            ops=(
                Op(index=0, name="a", operands=(0,), results=(1,)),
                Op(index=1, name="b", operands=(0,), results=(2,)),
                *joined,
                Op(index=last, name="c", operands=(4,), results=(5,)),
                Op(index=last + 1, name="return", operands=(5,), results=(), pinned=True),
            ),
            returned=(5,),
            types=("x", "a", "a", LIST, "a", "c"),
        )
        ask = Ask(graph, feeds(graph, needed, last))
        found = shrink(graph, Cut(keep=graph.real), Questions(ask))
        assert found.cut == Cut(keep=(needed, last), bypass=((4, needed + 1),))

    def test_nothing_of_another_type_stands_for_a_result(self) -> None:
        graph = chain("abc")
        found = shrink(graph, Cut(keep=(0, 1, 2)), Questions(Ask(graph, feeds(graph, 0, 2))))
        assert found.cut == Cut(keep=(0, 1, 2))
        assert found.minimal

    def test_an_operation_whose_result_must_be_no_argument_becomes_a_constant(self) -> None:
        graph = chain("abc")
        ask = Ask(graph, wants(2, {"op", "splat"}))
        assert shrink(graph, Cut(keep=(0, 1, 2)), Questions(ask)).cut == Cut(keep=(2,), splat=(2,))

    def test_arguments_become_constants_only_on_request(self) -> None:
        graph = chain("abc")
        cut = Cut(keep=(2,))
        assert shrink(graph, cut, Questions(Ask(graph, contains({2})))).cut == cut
        found = shrink(graph, cut, Questions(Ask(graph, contains({2}))), constants=True)
        assert found.cut == Cut(keep=(2,), splat=(2,))

    def test_a_long_connection_is_bypassed_in_groups(self) -> None:
        graph = chain("a" * 200)
        found = shrink(graph, Cut(keep=graph.real), Questions(Ask(graph, feeds(graph, 10, 190))))
        assert found.cut.keep == (10, 190)
        assert found.asked <= 45


class TestCalls:
    """Compiles are what a search costs."""

    @pytest.mark.parametrize("count", [3, 4, 6, 8])
    @pytest.mark.parametrize("root", [0, 2])
    def test_a_root_that_fails_alone_takes_one(self, count: int, root: int) -> None:
        graph = chain("ab" * (count // 2) + "c" * (count % 2))
        ask = Ask(graph, contains({root}))
        assert shrink(graph, Cut(keep=graph.real), Questions(ask), root=root).asked == 1

    @pytest.mark.parametrize("count", range(3, 9))
    @pytest.mark.parametrize("needed", [1, 2, 3])
    def test_a_few_located_operations_take_about_eight(self, count: int, needed: int) -> None:
        graph = chain([f"t{i}" for i in range(count)])
        asked = []
        for root in range(count):
            for first in range(max(0, root - needed + 1), min(root, count - needed) + 1):
                ask = Ask(graph, contains(set(range(first, first + needed))))
                asked.append(shrink(graph, Cut(keep=graph.real), Questions(ask), root=root).asked)
        assert sum(asked) / len(asked) <= 10
        assert max(asked) <= 13

    @pytest.mark.slow
    @given(st.integers(10, 3000), st.integers(1, 5), st.integers(0, 10**6), st.integers(1, 2))
    @settings(max_examples=examples(0.6))
    def test_unlocated_operations_take_the_logarithm_of_the_program(
        self, count: int, needed: int, seed: int, width: int
    ) -> None:
        graph, wanted = layers(count, needed, seed)
        ask = Ask(graph, contains(wanted), width)
        found = search(graph, ask, width)
        assert set(found.cut.keep) == wanted
        begin = width * (math.log(count, width + 1) + 1) + 2
        assert len(ask.answers) <= begin + len(wanted) * (math.log2(count) + 10)

    def test_two_unconnected_operations_take_the_logarithm_too(self) -> None:
        graph, _ = layers(2000, 1, 0)
        ask = Ask(graph, contains({100, 1900}))
        assert set(search(graph, ask, 1).cut.keep) == {100, 1900}
        assert len(ask.answers) <= 4 * math.log2(2000) + 10

    @given(failures(), st.integers(0, 12), st.integers(1, 3))
    def test_a_budget_is_kept(self, failure: tuple[Graph, Oracle], budget: int, width: int) -> None:
        graph, oracle = failure
        start = Cut(keep=graph.real)
        free = shrink(graph, start, Questions(Ask(graph, oracle)))
        ask = Ask(graph, oracle, width)
        found = shrink(graph, start, Questions(ask, width=width, budget=budget))
        assert found.asked == len(ask.answers) <= budget
        assert oracle(program(graph, found.cut)) == "same"
        if width == 1:
            assert found.minimal == (free.asked <= budget)

    @given(failures(), st.integers(0, 12), st.integers(1, 3))
    def test_what_is_found_within_a_budget_fails_too(
        self, failure: tuple[Graph, Oracle], budget: int, width: int
    ) -> None:
        graph, oracle = failure
        ask = Ask(graph, oracle, width)
        found = find_unlocated(graph, Questions(ask, width=width, budget=budget))
        assert len(ask.answers) <= budget
        assert (found is None) == (budget == 0)
        if found is not None:
            assert oracle(program(graph, found)) == "same"


def layers(count: int, needed: int, seed: int) -> tuple[Graph, set[int]]:
    """A long program with short cuts back, like a model's, and connected operations of it."""
    chance = random.Random(seed)
    ops = []
    for index in range(count):
        operands = {index, max(0, index - chance.choice([0, 0, 1, 3]))}
        if chance.random() < 0.05:
            operands.add(chance.randrange(index + 1))
        ops.append(
            Op(index=index, name="op", operands=tuple(sorted(operands)), results=(index + 1,))
        )
    ops.append(Op(index=count, name="return", operands=(count,), results=(), pinned=True))
    types = tuple(f"t{chance.randrange(4)}" for _ in range(count + 1))
    graph = Graph(function="f", arguments=(0,), ops=tuple(ops), returned=(count,), types=types)
    near, chosen = links(graph), {chance.randrange(count)}
    while len(chosen) < needed:
        chosen.add(chance.choice(sorted({o for op in chosen for o in near[op]} - chosen)))
    return graph, chosen


class TestOracles:
    """Whatever an oracle does, a search ends and claims no more than it was told."""

    @pytest.mark.parametrize("verdict", ["different", "unresolved", "invalid", "passes"])
    @pytest.mark.parametrize("count", [1, 3, 5000])
    def test_one_that_never_answers_same_is_given_up_soon(self, verdict: str, count: int) -> None:
        graph = chain("a" * count)
        ask = Ask(graph, lambda _: verdict, 2)
        assert find_unlocated(graph, Questions(ask, width=2)) is None
        assert len(ask.answers) <= 15

    def test_a_part_is_found_where_the_whole_has_another_failure(self) -> None:
        graph = chain("ab" * 50)

        def oracle(candidate: Program) -> str:
            if 10 in kept(candidate):
                return "different"
            return "same" if 70 in kept(candidate) else "passes"

        assert search(graph, Ask(graph, oracle), 1).cut == Cut(keep=(70,))

    def test_nothing_is_taken_away_on_any_other_answer(self) -> None:
        graph = chain("aaa")
        start = Cut(keep=(0, 1, 2))
        for verdict in ("different", "unresolved", "invalid", "passes"):
            found = shrink(graph, start, Questions(Ask(graph, lambda _, verdict=verdict: verdict)))  # type: ignore[misc]
            assert found.cut == start

    def test_steps_that_nobody_can_say_about_are_counted(self) -> None:
        graph = chain("ab")
        found = shrink(graph, Cut(keep=(0, 1)), Questions(Ask(graph, lambda _: "unresolved")))
        assert (found.minimal, found.asked, found.unresolved) == (True, 3, 3)
        assert (
            shrink(graph, Cut(keep=(0, 1)), Questions(Ask(graph, lambda _: "passes"))).unresolved
            == 0
        )

    @given(graphs(), st.integers(0, 10**6), st.integers(1, 3))
    def test_one_that_changes_its_mind_is_believed_once(
        self, graph: Graph, seed: int, width: int
    ) -> None:
        chance = random.Random(seed)
        start = Cut(keep=graph.real)
        ask = Ask(graph, lambda _: chance.choice(["same", "passes"]), width)
        found = shrink(graph, start, Questions(ask, width=width))
        told = {program(graph, cut): verdict for cut, verdict in ask.answers}
        assert len(told) == found.asked
        assert found.cut == start or told[program(graph, found.cut)] == "same"
        for step in single_steps(graph, found.cut):
            assert not step.keep or told[program(graph, step)] != "same"


class TestStopAndGoOn:
    @given(failures(), st.integers(1, 3))
    def test_the_same_answers_give_the_same_questions(
        self, failure: tuple[Graph, Oracle], width: int
    ) -> None:
        graph, oracle = failure
        first, second = Ask(graph, oracle, width), Ask(graph, oracle, width)
        assert search(graph, first, width) == search(graph, second, width)
        assert first.answers == second.answers

    @given(failures(), st.integers(1, 3), st.data())
    def test_a_search_that_was_stopped_anywhere_goes_on(
        self, failure: tuple[Graph, Oracle], width: int, data: st.DataObject
    ) -> None:
        graph, oracle = failure
        undisturbed, answers = Ask(graph, oracle), dict[Cut, str]()
        wanted = search(graph, Journal(undisturbed, answers), width)
        kept_answers: dict[Cut, str] = {}
        stops = data.draw(st.lists(st.integers(0, len(answers) - 1), max_size=3).map(sorted))
        disturbed = Ask(graph, oracle)
        for stop in stops:
            with pytest.raises(Stopped):
                search(graph, Journal(disturbed, kept_answers, stop), width)
        assert search(graph, Journal(disturbed, kept_answers), width) == wanted
        assert disturbed.answers == undisturbed.answers


class TestProgress:
    def test_each_question_is_announced(self) -> None:
        graph, ask, seen = chain("ab" * 20), Ask(chain("ab" * 20), contains({20})), list[Progress]()
        start = find_unlocated(graph, Questions(ask, on_progress=seen.append))
        assert start is not None
        assert [progress.asked for progress in seen] == [*range(len(ask.answers))]
        assert seen[0] == Progress(trying="the whole program", ops=40, asked=0)
        left = [progress.ops for progress in seen]
        assert left == sorted(left, reverse=True)
        shrink(graph, start, Questions(ask, on_progress=seen.append))
        assert seen[-1] == Progress(trying="1 operation around the root", ops=21, asked=0)

    def test_reads_as_an_engineer_would_say_it(self) -> None:
        said = Progress(trying="without 4 operations", ops=13, asked=2)
        assert str(said) == "13 operations left, 2 compiles: trying without 4 operations"
        said = Progress(trying="the whole program", ops=1, asked=0)
        assert str(said) == "1 operation left: trying the whole program"
        said = Progress(trying="tracing layers.4.gate", ops=0, asked=1, unit="trace")
        assert str(said) == "tracing layers.4.gate; 1 trace so far"


class TestMask:
    @given(graphs(), st.data())
    def test_the_rest_of_the_program_stays(self, graph: Graph, data: st.DataObject) -> None:
        some = st.builds(
            lambda ops: Cut(keep=tuple(sorted(ops))), st.sets(st.sampled_from(graph.real))
        )
        cuts = data.draw(st.lists(some, max_size=3))
        rest = mask(graph, *cuts)
        assert [*rest.keep] == [op for op in graph.real if all(op not in c.keep for c in cuts)]
        assert not rest.bypass
        assert not rest.splat
