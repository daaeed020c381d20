"""The search for the smallest part of a program that still fails in the same way.

It sees a graph, cuts of it and a function that answers a verdict for each of a few cuts; "same" is
the only verdict that it follows. There is no IR here, no process and no clock: given the same
answers, a search asks the same questions in the same order. So whoever keeps the answers can stop
a search anywhere and go on by starting it again. In one search no cut is asked for twice, and cuts
that give the same program are one cut.

Calls, where n operations are searched, k of them are needed, and more operations never make the
failure vanish: of the order of k log n, and then one for each way to take one more operation away
from the result, which is the proof that it is minimal. Where cuts can be asked for together, the
proof is one call: none of them fails.
"""

from __future__ import annotations

import math
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Literal

import msgspec

from iree_pilot.pipeline.plural import count
from iree_pilot.repro.ir.graph import Cut, Graph, Op, links, sources

#: Answers a verdict for each cut, in order: "same", or why it is not.
Ask = Callable[[Sequence[Cut]], Sequence[str]]
#: Answers for several cuts with one question: of each that it is "passes" or "invalid", or that it
#: is a "suspect" of failing, "likely" to answer "same", or nothing.
Together = Callable[[Sequence[Cut]], Sequence[str]]
#: Replacement of a removed operation: arguments, its operands, constants.
_Way = Literal["argument", "bypass", "splat"]
#: Number of operations expected to be needed, before any answer is known.
_NEEDED = 2
#: Number of tried operations at which the answers weigh as much as that expectation.
_TRIED = 8
#: Growth of the parts around the root that are tried, from one to the next.
_GROWTH = 4
#: The ways to take one operation out of so many are asked for together.
_FEW = 12


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """Progress of a search: the next attempt, operations in the best cut, cuts tested so far.

    ops: 0 where there is no cut yet, or it is not cuts that are tried. unit: what each asked costs.
    """

    trying: str
    ops: int
    asked: int
    unit: str = "compile"

    def __str__(self) -> str:
        """Text for the user: `13 operations left, 2 compiles: trying without 4 operations`, or, if
        no cuts are tried, `compiling the whole program again; 2 compiles so far`."""
        done = count(self.asked, self.unit) if self.asked else ""
        if not self.ops:
            return f"{self.trying}; {done} so far" if done else self.trying
        left = f"{count(self.ops, 'operation')} left"
        return f"{', '.join(filter(None, [left, done]))}: trying {self.trying}"


class Shrunk(msgspec.Struct, frozen=True, kw_only=True):
    """The smallest cut that was found to answer "same", and how many cuts were asked for.

    minimal: every way to take one more operation away was asked, and none answered "same".
    unresolved: how many of those ways the answer was "unresolved" for, so nobody can say.
    """

    cut: Cut
    minimal: bool
    asked: int
    unresolved: int = 0


@dataclass(frozen=True)
class Questions:
    """Functions and limits for testing cuts.

    width: so many at once, where the answer to one does not make the others worthless. budget: the
    most to ask about. together: asks about several with one call, where that can be done.
    """

    ask: Ask
    width: int = 1
    budget: int | None = None
    together: Together | None = None
    on_progress: Callable[[Progress], None] = lambda _: None


def shrink(
    graph: Graph,
    start: Cut,
    questions: Questions,
    *,
    root: int | None = None,
    constants: bool = False,
) -> Shrunk:
    """A part of `start`, which answers "same", with nothing in it that can be spared.

    Of the result no operation can go: not with arguments of the function in place of its results,
    nor with like-typed operands of its own, nor with splat constants.

    Where the budget is spent, the best so far is not minimal. root: the operation most likely to be
    at fault (by default the last): what is far from it in the data flow goes first. constants:
    arguments are replaced by splat constants too, where the failure allows it; one more call for
    each, and no operation fewer.

    The proof of minimality rests on the answers. Of an oracle that changes its mind, each was true
    when it was given; the search ends all the same.
    """
    search = _CutSearch(graph, questions)
    search.best = cut = search.normal(start)
    search.known[cut] = "same"
    if root not in cut.keep:
        root = max(cut.keep, default=None)
    if root is None:
        return Shrunk(cut=cut, minimal=True, asked=0)
    try:
        cut = _around(search, cut, root)
        if not search.telling(cut):
            cut = _thin(search, cut, root)
        unresolved = _prove(search, cut, constants)
    except _Spent:
        return Shrunk(cut=search.best, minimal=False, asked=search.asked)
    return Shrunk(cut=search.best, minimal=True, asked=search.asked, unresolved=unresolved)


def find_unlocated(graph: Graph, questions: Questions) -> Cut | None:
    """Finds a failing part of the program to give to `shrink`, if the failure names no operation.

    The shortest beginning of the program that fails; its last operation is needed, so it is the
    root that `shrink` takes by itself. Then only what that operation depends on, if that fails
    too. The inputs are cut by `shrink`, which grows the part around the root from one operation
    on. None if neither the program nor a half, quarter or eighth of it answers "same".
    """
    search = _CutSearch(graph, questions)
    search.best = whole = Cut(keep=graph.real)
    try:
        found = search.first([whole], "the whole program")
        for parts in (2, 4, 8):
            found = found or search.first(_windows(whole.keep, parts), f"1/{parts} of the program")
        if found is None:
            return None
        cut = search.accept(found)
        cut = search.accept(_beginning(search, cut))
        slices = [Cut(keep=_upstream(graph, cut.keep))]
        cut = search.accept(search.first(slices, "what the last operation depends on") or cut)
    except _Spent:
        return search.best if search.known.get(search.best) == "same" else None
    return cut


def mask(graph: Graph, *cuts: Cut) -> Cut:
    """The whole program without the operations of these cuts: their results become arguments."""
    gone = {op for cut in cuts for op in cut.keep}
    return Cut(keep=tuple(op for op in graph.real if op not in gone))


class _Spent(Exception):
    """The budget does not allow another question."""


class _CutSearch:
    """State of a search: the answers so far, and the best cut with the answer "same"."""

    best: Cut

    def __init__(self, graph: Graph, questions: Questions) -> None:
        self.graph = graph
        self.links = links(graph)
        self.known: dict[Cut, str] = {}
        self._shared: dict[tuple[Cut, ...], tuple[str, ...]] = {}
        self._likely: set[Cut] = set()
        self.asked = 0
        self.width = max(questions.width, 1)
        self._ask, self._together = questions.ask, questions.together
        self._budget = sys.maxsize if questions.budget is None else questions.budget
        self._on_progress = questions.on_progress
        self._producers = graph.producers()

    def accept(self, cut: Cut) -> Cut:
        self.best = cut
        return cut

    def answers(self, cuts: Sequence[Cut], trying: str) -> list[str]:
        """The verdicts of normal cuts. Raises _Spent where the budget does not allow to ask."""
        fresh = [cut for cut in dict.fromkeys(cuts) if cut not in self.known]
        if len(fresh) > self._budget - self.asked:
            raise _Spent
        if fresh:
            self._on_progress(Progress(trying=trying, ops=len(self.best.keep), asked=self.asked))
            self.asked += len(fresh)
            self.known.update(zip(fresh, self._ask(fresh), strict=True))
        return [self.known[cut] for cut in cuts]

    def first(self, cuts: Iterable[Cut], trying: str) -> Cut | None:
        """The first cut that answers "same"; an empty program cannot. Stops asking once it is met.

        Raises _Spent if the budget is too small to know.
        """
        open_ = (c for c in cuts if c.keep and self.known.get(c, "same") == "same")
        while batch := [*islice(open_, max(min(self.width, self._budget - self.asked), 1))]:
            for cut, verdict in zip(batch, self.answers(batch, trying), strict=True):
                if verdict == "same":
                    return cut
        return None

    def telling(self, cut: Cut) -> bool:
        """True if asking for all steps from a small cut together tells which of them can be taken,
        so that nothing else needs to be tried."""
        if self._together is None or len(cut.keep) > _FEW:
            return False
        fresh = self._fresh(step for op in cut.keep for step in self.steps(cut, op))
        suspects, rest = self._clear(fresh, "all further reductions in one module")
        return bool(suspects) or not rest

    def any(self, cuts: Iterable[Cut], trying: str) -> Cut | None:
        """A cut that answers "same", as `first` finds it, asked for together where that can be.

        Where they fail together, those that are suspected are tried: the likely ones all at once,
        then each one by one. Where none is, each half is asked for.
        """
        cuts = list(cuts)
        if self._together is None or any(self.known.get(cut) == "same" for cut in cuts):
            return self.first(cuts, trying)
        fresh = self._fresh(cuts)
        if len(fresh) <= 1:
            return self.first(fresh, trying)
        suspects, rest = self._clear(fresh, trying)
        if suspects:
            likely = [cut for cut in suspects if cut in self._likely] or suspects
            combined = self._combined(likely)
            if combined.keep and len(combined.keep) < min(len(cut.keep) for cut in suspects):
                suspects = [combined, *suspects]
            return self.first(suspects, trying) or self.any(rest, trying)
        half = len(rest) // 2
        return self.any(rest[:half], trying) or self.any(rest[half:], trying)

    def _fresh(self, cuts: Iterable[Cut]) -> list[Cut]:
        return [cut for cut in dict.fromkeys(cuts) if cut.keep and cut not in self.known]

    def _clear(self, cuts: Sequence[Cut], trying: str) -> tuple[list[Cut], list[Cut]]:
        """(the cuts that are suspected when all are asked for at once, others not known since).

        What was found out so before is not asked for again.
        """
        key = tuple(cuts)
        if len(cuts) > 1 and key not in self._shared:
            if self.asked >= self._budget:
                raise _Spent
            assert self._together is not None
            self._on_progress(Progress(trying=trying, ops=len(self.best.keep), asked=self.asked))
            self.asked += 1
            self._shared[key] = tuple(self._together(cuts))
        answers = dict(zip(cuts, self._shared.get(key, ("",) * len(cuts)), strict=True))
        self.known.update((c, v) for c, v in answers.items() if v in ("passes", "invalid"))
        self._likely |= {cut for cut in cuts if answers[cut] == "likely"}
        suspects = [cut for cut in cuts if answers[cut] in ("likely", "suspect")]
        suspects.sort(key=lambda cut: cut not in self._likely)
        return suspects, [cut for cut in cuts if not answers[cut]]

    def _combined(self, cuts: Sequence[Cut]) -> Cut:
        """Cut without the operations that any of these cuts lacks."""
        keep = tuple(op for op in cuts[0].keep if all(op in cut.keep for cut in cuts))
        gone: set[int] = set()
        bypass, splat = dict(cuts[0].bypass), set(cuts[0].splat)
        for cut in cuts:
            lacks = {op for other in cuts for op in other.keep if op not in cut.keep}
            if not lacks <= gone:
                bypass |= dict(cut.bypass)
                splat |= {*cut.splat}
            gone |= lacks
        return self.normal(Cut(keep=keep, bypass=tuple(bypass.items()), splat=tuple(splat)))

    def normal(self, cut: Cut) -> Cut:
        """The cut without what has no effect: the same program, written in one way only.

        A chain of bypasses becomes one. An argument that stands for others only in the end is
        called by the smallest number among them.
        """
        splat = set(cut.splat)
        arguments = self.arguments(cut)
        bypassed: list[tuple[int, int]] = []
        constant: list[int] = []
        for end, values in self._ends(cut).items():
            if end in splat:
                constant += values
            else:
                name = min(values) if end in arguments else end
                bypassed += ((value, name) for value in values if value != name)
        return Cut(keep=cut.keep, bypass=tuple(sorted(bypassed)), splat=tuple(sorted(constant)))

    def arguments(self, cut: Cut) -> tuple[int, ...]:
        """The values that a cut's program takes from outside."""
        kept, splat = set(cut.keep), set(cut.splat)
        return tuple(
            end
            for end in self._ends(cut)
            if end not in splat
            and ((maker := self._maker(end)) is None or not (maker.glue or maker.index in kept))
        )

    def without(self, cut: Cut, ops: Iterable[int], way: _Way, choice: int = 0) -> Cut:
        """The cut with fewer operations. choice: of the like-typed operands, which to take; where
        a result has none, it becomes an argument."""
        ops = tuple(ops)
        smaller = cut.without(ops)
        bypass, splat = dict(cut.bypass), set(cut.splat)
        for result in (result for op in ops for result in self.graph.ops[op].results):
            if way == "splat":
                splat.add(result)
            elif way == "bypass" and (alike := self._alike(smaller, result)):
                bypass[result] = alike[min(choice, len(alike) - 1)]
        return self.normal(Cut(keep=smaller.keep, bypass=tuple(bypass.items()), splat=tuple(splat)))

    def steps(self, cut: Cut, op: int) -> dict[Cut, _Way]:
        """Every way to take one operation out of a cut, and what then takes its place."""
        results = self.graph.ops[op].results
        choices = max((len(self._alike(cut, result)) for result in results), default=0)
        found: dict[Cut, _Way] = {self.without(cut, [op], "argument"): "argument"}
        for choice in range(choices):
            found.setdefault(self.without(cut, [op], "bypass", choice), "bypass")
        found.setdefault(self.without(cut, [op], "splat"), "splat")
        return found

    def _maker(self, value: int) -> Op | None:
        index = self._producers.get(value)
        return None if index is None else self.graph.ops[index]

    def _ends(self, cut: Cut) -> dict[int, list[int]]:
        """The values that a cut's program takes in the end, and those that each stands for."""
        bypass, splat = dict(cut.bypass), set(cut.splat)
        found: dict[int, list[int]] = {}
        waiting = [value for op in cut.keep for value in self.graph.ops[op].operands]
        seen = set(waiting)
        while waiting:
            value = end = waiting.pop()
            while end in bypass and end not in splat:
                end = bypass[end]
            found.setdefault(end, []).append(value)
            maker = self._maker(end)
            if maker and maker.glue and end not in splat:
                waiting += (fresh := set(maker.operands) - seen)
                seen |= fresh
        return found

    def _alike(self, cut: Cut, result: int) -> list[int]:
        """Values that can stand for a result: operands of its operation, also those in lists, of
        its type. Those that a cut's program computes come first: they keep it connected."""
        maker = self._maker(result)
        waiting = [*(maker.operands if maker else ())]
        found: list[int] = []
        while waiting:
            value = waiting.pop(0)
            if self.graph.types[value] == self.graph.types[result] and value not in found:
                found.append(value)
            before = self._maker(value)
            if before and before.glue:
                waiting += before.operands
        kept = set(cut.keep)
        return sorted(found, key=lambda value: self._producers.get(value) not in kept)


def _around(search: _CutSearch, cut: Cut, root: int) -> Cut:
    """The smallest part around the root, of those of a few sizes, that still answers "same"."""
    distance = _distances(search, cut, root)
    nearest = _farthest(cut, distance)[::-1]
    sizes = {_GROWTH**power for power in range(len(nearest).bit_length())} | {len(distance)}
    for size in sorted(size for size in sizes if size < len(nearest)):
        part = search.normal(cut.without(nearest[size:]))
        if search.first([part], f"{count(size, 'operation')} around the root"):
            return search.accept(part)
    return cut


def _thin(search: _CutSearch, cut: Cut, root: int) -> Cut:
    """Takes operations out, farthest from the root first, as many at once as will likely go.

    How many follows from how many were needed of those tried so far. Of a group that cannot go,
    halves are tried, down to the one operation at which it fails. Where more are needed than was
    expected, what cannot go with arguments in its place is tried in the other ways too (a failure
    that needs a connection through many operations), and a way that works is used from then on.
    """
    pending = _farthest(cut, _distances(search, cut, root))
    expected = min(_NEEDED / len(pending), 1.0)
    way: _Way = "argument"
    tried = needed = suspects = 0
    while pending:
        rate = (needed + _TRIED * expected) / (tried + _TRIED)
        likely = 1 if rate >= 0.5 else int(math.log(0.5) / math.log(1 - rate))
        size = max(suspects // 2, 1) if suspects else min(likely, len(pending))
        without = f"without {count(size, 'operation')}"
        found = search.first([search.without(cut, pending[:size], way)], without)
        if found is None and size > 1:
            suspects = size
            continue
        suspects = max(suspects - size, 0) if found else 0
        if found is None and needed >= _NEEDED:
            ways = search.steps(cut, pending[0])
            found = search.first(ways, "without 1 operation")
            way = ways[found] if found else way
        needed += found is None
        cut = search.accept(found or cut)
        tried += size
        pending = pending[size:]
    return cut


def _prove(search: _CutSearch, cut: Cut, constants: bool) -> int:
    """Takes single steps until none is left, those near the last change first.

    Returns how many steps from the best cut nobody can say about.
    """
    near: set[int] = set()

    def fixed(arguments: Iterable[int]) -> Cut:
        splat = (*cut.splat, *arguments)
        return search.normal(Cut(keep=cut.keep, bypass=cut.bypass, splat=splat))

    def steps() -> Iterator[Cut]:
        if constants:
            yield from (fixed([argument]) for argument in search.arguments(cut))
        for op in sorted(cut.keep, key=lambda op: (op not in near, op)):
            yield from search.steps(cut, op)

    inside = "constants in place of arguments"
    if constants and (found := search.first([fixed(search.arguments(cut))], inside)):
        cut = search.accept(found)
    while found := search.any(steps(), "each further reduction"):
        near = {other for op in {*cut.keep} - {*found.keep} for other in search.links[op]}
        cut = search.accept(found)
    return sum(search.known.get(step) == "unresolved" for step in {*steps()})


def _distances(search: _CutSearch, cut: Cut, root: int) -> dict[int, int]:
    """Steps of data flow from the root to the operations that it is connected with in a cut."""
    kept = set(cut.keep)
    found = {root: 0}
    waiting = deque([root])
    while waiting:
        op = waiting.popleft()
        for other in search.links[op]:
            if other in kept and other not in found:
                found[other] = found[op] + 1
                waiting.append(other)
    return found


def _farthest(cut: Cut, distance: Mapping[int, int]) -> list[int]:
    """The operations of a cut, those not connected with the root first, the root last."""
    root = next(iter(distance))
    return sorted(cut.keep, key=lambda op: (-distance.get(op, math.inf), -abs(op - root), op))


def _beginning(search: _CutSearch, cut: Cut) -> Cut:
    """The shortest beginning that answers "same"; one operation fewer does not."""
    low, high = 0, len(cut.keep)
    while high - low > 1:
        probes = min(search.width, high - low - 1)
        sizes = [low + (high - low) * part // (probes + 1) for part in range(1, probes + 1)]
        cuts = [Cut(keep=cut.keep[:size]) for size in sizes]
        verdicts = search.answers(cuts, f"the first {sizes[0]} of {len(cut.keep)} operations")
        fitting = [size for size, verdict in zip(sizes, verdicts, strict=True) if verdict == "same"]
        if fitting:
            high = fitting[0]
            search.accept(Cut(keep=cut.keep[:high]))
        low = max((size for size in sizes if size < high), default=low)
    return Cut(keep=cut.keep[:high])


def _windows(keep: tuple[int, ...], parts: int) -> list[Cut]:
    """Operations in order, in parts of nearly one size."""
    edges = [len(keep) * part // parts for part in range(parts + 1)]
    return [Cut(keep=keep[a:b]) for a, b in pairwise(edges)]


def _upstream(graph: Graph, keep: tuple[int, ...]) -> tuple[int, ...]:
    """Operations that the last of them depends on, itself included."""
    takes, members = sources(graph), set(keep)
    found, waiting = {keep[-1]}, [keep[-1]]
    while waiting:
        fresh = members.intersection(takes[waiting.pop()]) - found
        found |= fresh
        waiting += fresh
    return tuple(sorted(found))
