"""The search for a part of a program whose compiled results are wrong, given right inputs.

It sees a graph, and two kinds of answers: a hint for many parts at once, how far off each is when
all are compiled as one module; and a verdict for each of a few parts, compiled alone. Only a
verdict counts: what hints at nothing can be wrong, and what it hints at can be right alone. There
is no IR here, no process and no clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import msgspec

from iree_pilot.repro.ir.graph import Graph, is_tensor, with_makers, with_numbers

#: Real operations by position.
Part = tuple[int, ...]
#: Error of each part, 0 if it is correct; all are compiled together.
Hint = Callable[[Sequence[Part]], Sequence[float]]
#: A verdict for each part, compiled alone; "same" is the one that counts.
Ask = Callable[[Sequence[Part]], Sequence[str]]

#: Up to so many steps of data flow, makers come along with an operation.
_STEPS = 2
#: The shortest window of operations in a row; each next one is twice as long.
_WINDOW = 8
#: Number of parts named by a hint that are tried alone, at once.
_NAMED = 4
#: Operations that only move values in and out.
_MOVES = ("util.global.", "torch_c.")
#: Type of the result of operations that return several tensors.
_LISTS = "!torch.list<"
#: A part whose error is below this share of the program's does not explain it.
_EXPLAINS = 0.1


class WrongPart(msgspec.Struct, frozen=True, kw_only=True):
    """A part that is wrong alone; None where there is none.

    right: the operations that were seen to be right by themselves, or in the smallest parts asked
    about; hinted: whether a hint named the part. hidden: parts that a hint named and that are
    right alone.
    """

    part: Part | None
    right: tuple[int, ...] = ()
    hinted: bool = False
    hidden: tuple[Part, ...] = ()


def find(graph: Graph, hint: Hint, ask: Ask, *, error: float, shows: bool = True) -> WrongPart:
    """The smallest part that is wrong alone, of those of a few sizes; of one size the first that
    can explain the whole program's max error, `error`.

    One hint for each size, from single operations to half of the program; then all of it. Where it
    does not show that the whole is wrong, operations with what they are made of are enough.
    """
    right: tuple[int, ...] = ()
    hidden: list[Part] = []
    for number, parts in enumerate(levels(graph)):
        if not shows and number > _STEPS:
            break
        errors = hint(parts)
        if number == 0:
            right = tuple(p[-1] for p, off in zip(parts, errors, strict=True) if off == 0)
        named = [part for part in ranked(parts, errors, error) if part not in hidden]
        for begin in range(0, min(len(named), 2 * _NAMED), _NAMED):
            some = named[begin : begin + _NAMED]
            verdicts = ask(some)
            for part, verdict in zip(some, verdicts, strict=True):
                if verdict == "same":
                    return WrongPart(part=part, right=right, hinted=True, hidden=tuple(hidden))
            hidden += some
    if not shows:
        return WrongPart(part=None, right=right, hidden=tuple(hidden))
    whole = graph.real
    (verdict,) = ask([whole])
    return WrongPart(part=whole if verdict == "same" else None, right=right, hidden=tuple(hidden))


def levels(graph: Graph) -> Iterator[tuple[Part, ...]]:
    """Parts of one size after the other: single operations, each with what it is made of, windows
    of operations in a row that overlap by half; each with the numbers that it is given."""
    real = tuple(op for op in graph.real if _gives_tensors(graph, op))
    if not real:
        return
    yield with_numbers(graph, [(op,) for op in real if not graph.ops[op].name.startswith(_MOVES)])
    if len(real) <= _WINDOW:
        return
    for steps in range(1, _STEPS + 1):
        if parts := with_makers(graph, steps):
            yield with_numbers(graph, parts)
    size = _WINDOW
    while size < len(real):
        begins = range(0, len(real) - size // 2, size // 2)
        yield with_numbers(graph, [real[begin : begin + size] for begin in begins])
        size *= 2


def _gives_tensors(graph: Graph, op: int) -> bool:
    """True if an operation has results that can be compared: tensors, not sizes and numbers."""
    types = [graph.types[value] for value in graph.ops[op].results]
    return any(is_tensor(type_) or type_.startswith(_LISTS) for type_ in types)


def ranked(parts: Sequence[Part], errors: Sequence[float], error: float) -> list[Part]:
    """Wrong parts: first, in their order, those that can explain `error`."""
    off = [(part, far) for part, far in zip(parts, errors, strict=True) if far > 0]
    explain = [part for part, far in off if far >= _EXPLAINS * error]
    rest = sorted((one for one in off if one[1] < _EXPLAINS * error), key=lambda one: -one[1])
    return [*explain, *(part for part, _ in rest)]
