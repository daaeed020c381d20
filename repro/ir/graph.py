"""A function of a program as a data-flow graph, and cuts out of it: plain data, no IR.

The searches in `repro` see only this: they are the same for any dialect. `repro.ir.edit` makes a
graph of IR and carries a cut out on it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import msgspec

_TENSORS = ("tensor<", "!torch.vtensor<", "!torch.tensor<")
_SCALAR = re.compile(r"index|[su]?i\d+|b?f\d\w*|tf32")


class Op(msgspec.Struct, frozen=True, kw_only=True):
    """One operation of a function's body, by its position there.

    operands, results: values by number; what its regions take from outside counts as an operand.
    line: of the program's text, 0 where unknown. glue: it computes nothing of its own (constants,
    list constructs): it goes where its users go and is not counted. pinned: it must stay where it
    is (terminators).
    """

    index: int
    name: str
    operands: tuple[int, ...]
    results: tuple[int, ...]
    line: int = 0
    glue: bool = False
    pinned: bool = False


class Graph(msgspec.Struct, frozen=True, kw_only=True):
    """A function: its arguments and operations in order, the values that it returns.

    types: of each value, as MLIR prints it.
    """

    function: str
    arguments: tuple[int, ...]
    ops: tuple[Op, ...]
    returned: tuple[int, ...]
    types: tuple[str, ...]

    @property
    def real(self) -> tuple[int, ...]:
        """The operations that count: neither glue nor terminators."""
        return tuple(op.index for op in self.ops if not op.glue and not op.pinned)

    def producers(self) -> dict[int, int]:
        """The operation that makes each value; arguments have none."""
        return {value: op.index for op in self.ops for value in op.results}

    def users(self) -> dict[int, tuple[int, ...]]:
        """The operations that take each value, terminators left out."""
        found: dict[int, list[int]] = {}
        for op in self.ops:
            if not op.pinned:
                for value in dict.fromkeys(op.operands):
                    found.setdefault(value, []).append(op.index)
        return {value: tuple(ops) for value, ops in found.items()}


class Cut(msgspec.Struct, frozen=True, kw_only=True):
    """A smaller program: what to keep of a graph, and what to put in place of the rest.

    keep: the real operations that stay, in order; the glue that they need comes along. What they
    take from operations that do not stay becomes an argument of the function. Returned are the
    results of kept operations that no kept operation takes. bypass: results of operations that go,
    replaced by another value of the same type. splat: values (arguments or results of operations
    that go) replaced by a constant of one number.
    """

    keep: tuple[int, ...]
    bypass: tuple[tuple[int, int], ...] = ()
    splat: tuple[int, ...] = ()

    def without(self, ops: Iterable[int]) -> Cut:
        """Same cut with fewer operations."""
        gone = set(ops)
        return msgspec.structs.replace(self, keep=tuple(o for o in self.keep if o not in gone))

    @property
    def size(self) -> tuple[int, int, int]:
        """Measure that a search minimises: operations, then values that are not constants."""
        return (len(self.keep), -len(self.bypass), -len(self.splat))


def is_tensor(type_: str) -> bool:
    """True if values of a type, as MLIR prints it, are data that a program is called with."""
    return type_.startswith(_TENSORS)


def is_number(type_: str) -> bool:
    """True if values of a type are single numbers or sizes."""
    return bool(_SCALAR.fullmatch(type_))


def with_numbers(graph: Graph, parts: Iterable[tuple[int, ...]]) -> tuple[tuple[int, ...], ...]:
    """Parts of real operations, with those that make sizes and single numbers for them.

    Such values are no tensors: what takes them is no program of its own without their makers.
    """
    producers = graph.producers()

    def whole(part: tuple[int, ...]) -> tuple[int, ...]:
        seen, waiting = set(part), list(part)
        while waiting:
            for value in graph.ops[waiting.pop()].operands:
                maker = producers.get(value)
                if maker is None or maker in seen:
                    continue
                if graph.ops[maker].glue or is_number(graph.types[value]):
                    seen.add(maker)
                    waiting.append(maker)
        if len(seen) == len(part):
            return part
        return tuple(sorted(op for op in seen if not graph.ops[op].glue))

    return tuple(dict.fromkeys(map(whole, parts)))


def sources(graph: Graph) -> dict[int, tuple[int, ...]]:
    """The real operations that each real operation takes values from, at once or through glue.

    So a list construct links its user with the makers of its elements, and a constant that many
    operations share links none of them with another.
    """
    makers: dict[int, tuple[int, ...]] = {}
    found: dict[int, tuple[int, ...]] = {}
    for op in graph.ops:
        takes = tuple(sorted({maker for v in op.operands for maker in makers.get(v, ())}))
        if not op.glue and not op.pinned:
            found[op.index] = takes
            takes = (op.index,)
        makers.update(dict.fromkeys(op.results, takes))
    return found


def links(graph: Graph) -> dict[int, tuple[int, ...]]:
    """The real operations one step of data flow away from each real one, either way."""
    found: dict[int, set[int]] = {}
    for op, takes in sources(graph).items():
        found.setdefault(op, set()).update(takes)
        for maker in takes:
            found[maker].add(op)
    return {op: tuple(sorted(near)) for op, near in found.items()}


def with_makers(graph: Graph, steps: int) -> tuple[tuple[int, ...], ...]:
    """Each real operation with what it is made of, up to `steps` steps of data flow away.

    With steps, without those that are made of nothing.
    """
    takes = sources(graph)
    found: dict[tuple[int, ...], None] = {}
    for op in graph.real:
        part, front = {op}, {op}
        for _ in range(steps):
            front = {maker for member in front for maker in takes[member]} - part
            part |= front
        if steps == 0 or len(part) > 1:
            found[tuple(sorted(part))] = None
    return tuple(found)


def connected(graph: Graph, ops: Iterable[int], root: int) -> tuple[int, ...]:
    """Operations among the real ones `ops` that data flow within `ops` links with `root`."""
    near, members = links(graph), set(ops) | {root}
    reached, waiting = {root}, [root]
    while waiting:
        fresh = members.intersection(near[waiting.pop()]) - reached
        reached |= fresh
        waiting += fresh
    return tuple(sorted(reached))


def neighbours(graph: Graph, ops: Iterable[int]) -> tuple[int, ...]:
    """The real operations one step of data flow away from the real operations `ops`."""
    near, inside = links(graph), set(ops)
    return tuple(sorted({other for op in inside for other in near[op]} - inside))


def by_line(graph: Graph) -> Mapping[int, int]:
    """The operation at each line of the program's text; of several, the first."""
    found: dict[int, int] = {}
    for op in graph.ops:
        if op.line and not op.pinned:
            found.setdefault(op.line, op.index)
    return found


def bridged(graph: Graph, ops: Iterable[int], root: int, gap: int) -> tuple[int, ...]:
    """Operations of `ops` connected with `root`, and those between them in the data flow.

    Up to `gap` real operations in a row that are not of `ops` are passed and taken along: a
    dispatch does not name the views and transposes that were folded into it.
    """
    members = set(ops) | {root}
    users, producers = graph.users(), graph.producers()

    def above(op: int) -> set[int]:
        return {producers[v] for v in graph.ops[op].operands if v in producers}

    def below(op: int) -> set[int]:
        return {user for v in graph.ops[op].results for user in users.get(v, ())}

    reached, waiting = {root}, [root]
    while waiting:
        begin = waiting.pop()
        for step in (above, below):
            paths: list[tuple[int, ...]] = [(begin,)]
            seen = {begin}
            while paths:
                path = paths.pop()
                for op in step(path[-1]) - seen:
                    seen.add(op)
                    longer = (*path, op)
                    if op in members:
                        waiting += set(longer) - reached
                        reached |= set(longer)
                    elif sum(not graph.ops[o].glue for o in longer[1:]) <= gap:
                        paths.append(longer)
    return tuple(sorted(o for o in reached if not graph.ops[o].glue))
