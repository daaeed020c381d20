"""Search for other occurrences of the operations at fault, such as repeated layers."""

from __future__ import annotations

from collections.abc import Iterator

from iree_pilot.repro.ir.graph import Cut, Graph

#: (maker, number of its result, user, number of its operand): one link of the data flow.
_Link = tuple[int, int, int, int]


def alike(graph: Graph, cut: Cut) -> tuple[tuple[int, ...], ...]:
    """Each group of real operations that is like the kept ones of a cut, those themselves first.

    Like: the same names and types of operands and results, linked in the same way (what a cut
    bypasses, and lists, count as links); the values of constants do not count, so more may be alike
    than fails. Where the kept operations are not linked, only they are.
    """
    pattern = _Pattern(graph, cut)
    found = dict.fromkeys((tuple(cut.keep),))
    for op in graph.ops:
        match = pattern.match(op.index)
        if match is not None:
            found.setdefault(tuple(sorted(match[kept] for kept in cut.keep)))
    return tuple(found)


class _Pattern:
    """The kept operations of a cut and what links them, in an order to look for them in."""

    def __init__(self, graph: Graph, cut: Cut) -> None:
        self._graph = graph
        self._producers = graph.producers()
        self._users = graph.users()
        self._order = self._linked_order(self._members(cut))

    def match(self, first: int) -> dict[int, int] | None:
        """The operations like each of the pattern's, the one like its first given."""
        if not self._order:
            return None
        return next(self._matches({self._order[0]: first}), None)

    def _matches(self, match: dict[int, int]) -> Iterator[dict[int, int]]:
        """Every way to go on from a beginning of a match."""
        last = self._order[len(match) - 1]
        if self._label(match[last]) != self._label(last) or not self._fits(match):
            return
        if len(match) == len(self._order):
            yield match
            return
        member = self._order[len(match)]
        for candidate in self._candidates(member, match):
            yield from self._matches({**match, member: candidate})

    def _fits(self, match: dict[int, int]) -> bool:
        """True if each is matched by a different operation, with the links of the pattern."""
        return len(set(match.values())) == len(match) and all(
            self._graph.ops[match[user]].operands[operand]
            == self._graph.ops[match[maker]].results[result]
            for member in match
            for maker, result, user, operand in self._links(member)
            if maker in match
        )

    def _candidates(self, member: int, match: dict[int, int]) -> tuple[int, ...]:
        """Operations linked with the match as a member of the pattern is."""
        ops = self._graph.ops
        for before, image in match.items():
            for maker, _, _, operand in self._links(before):
                if maker == member:
                    found = self._producers.get(ops[image].operands[operand])
                    return () if found is None else (found,)
        for maker, result, _, _ in self._links(member):
            if maker in match:
                return self._users.get(ops[match[maker]].results[result], ())
        return ()

    def _links(self, op: int) -> Iterator[_Link]:
        """The links at an operation's operands."""
        for place, value in enumerate(self._graph.ops[op].operands):
            maker = self._producers.get(value)
            if maker is not None:
                yield maker, self._graph.ops[maker].results.index(value), op, place

    def _label(self, index: int) -> tuple[object, ...]:
        op, types = self._graph.ops[index], self._graph.types
        return (op.name, [types[v] for v in op.operands], [types[v] for v in op.results])

    def _linked_order(self, members: set[int]) -> list[int]:
        """The members, each linked with one before it; nothing where they are not all linked."""
        near: dict[int, set[int]] = {member: set() for member in members}
        for member in members:
            for maker, _, user, _ in self._links(member):
                if maker in members:
                    near[maker].add(user)
                    near[user].add(maker)
        order = [max(m for m in members if not self._graph.ops[m].glue)]
        for member in order:
            order += sorted(near[member] - set(order))
        return order if len(order) == len(members) else []

    def _members(self, cut: Cut) -> set[int]:
        """The kept operations, and what links them: what is bypassed, and lists."""
        members = set(cut.keep)
        for value, end in cut.bypass:
            members |= self._between(value, end)
        taken = {value for member in members for value in self._graph.ops[member].operands}
        lists = {
            op.index
            for op in self._graph.ops
            if op.glue
            and taken.intersection(op.results)
            and any(self._producers.get(value) in members for value in op.operands)
        }
        return members | lists

    def _between(self, value: int, end: int) -> set[int]:
        """The operations on the way of the data from one value to another."""
        reached = {end}
        for op in self._graph.ops:
            if not op.pinned and reached.intersection(op.operands):
                reached.update(op.results)
        found: set[int] = set()
        waiting = [value]
        while waiting:
            maker = self._producers.get(waiting.pop())
            if maker is None or maker in found:
                continue
            takes = [v for v in self._graph.ops[maker].operands if v in reached]
            if takes:
                found.add(maker)
                waiting += [v for v in takes if v != end]
        return found
