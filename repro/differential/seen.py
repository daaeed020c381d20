"""The functions of a module of flow IR: their values, and what each is made of.

Imports no bindings: it works on what it is given.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from iree_pilot.repro.differential.flow import KEEPS_SHAPE, FlowValue, parse_type
from iree_pilot.repro.ir import symbols

DISPATCH = "flow.dispatch"
IMPORT = "hal.tensor.import"
EXPORT = "hal.tensor.export"
#: Operations that return their operands unchanged, after a fence or in the caller's memory.
HANDED_ON = ("hal.tensor.barrier", "hal.tensor.alias")


class Seen:
    """A function, or all initializers one after the other: values by number, and their makers."""

    def __init__(self, functions: list[Any], position: int, stored: set[str]) -> None:
        self.position = position
        self.initializer = functions[0].name == "util.initializer"
        self.name = "initializers" if self.initializer else symbol(functions[0])
        self.ops = [op for function in functions for op in symbols.operations(function)]
        self.branches = any(len(list(f.regions[0].blocks)) > 1 for f in functions)
        arguments = functions[0].regions[0].blocks[0].arguments
        self._values = list(arguments)
        for op in self.ops:
            self._values += list(op.results)
        self.numbers = {value: number for number, value in enumerate(self._values)}
        self.makers = {self.numbers[r]: i for i, op in enumerate(self.ops) for r in op.results}
        self.computing = [i for i, op in enumerate(self.ops) if _computes(op)]
        #: Values that can be read and fed: results of dispatches, and globals that dispatches make.
        self.feedable: dict[int, FlowValue] = {}
        for index, op in enumerate(self.ops):
            loads = op.name == "util.global.load" and _target(op) in stored
            if index in self.computing or loads:
                for result in op.results:
                    number = self.numbers[result]
                    kind = parse_type(str(result.type), number)
                    if kind is not None and (None not in kind.shape or _sized(op, kind)):
                        self.feedable[number] = kind
        #: Block arguments that hold tensors, in order.
        self.holders = [a for a in arguments if "buffer_view" in str(a.type)]
        self.exports = {op.results[0]: op for op in self.ops if op.name == EXPORT}

    def value(self, number: int) -> Any:
        return self._values[number]

    def taken(self, index: int) -> Iterator[int]:
        """Values of this body that an operation takes, those that its regions use among them."""
        for op in symbols.walk(self.ops[index]):
            for operand in op.operands:
                if operand in self.numbers:
                    yield self.numbers[operand]

    def returned(self) -> Iterator[FlowValue]:
        for operand in self.ops[-1].operands:
            if operand in self.exports:
                number = self._exported(self.exports[operand])
                kind = parse_type(str(self._values[number].type), number)
                if kind is not None:
                    yield kind

    def _exported(self, export: Any) -> int:
        """The value that an export hands out, behind fences and the caller's memory."""
        number = self.numbers[export.operands[0]]
        while number in self.makers and (maker := self.ops[self.makers[number]]).name in HANDED_ON:
            number = self.numbers[handed_on(maker, self._values[number])]
        return number

    def ends(self) -> list[int]:
        """The feedable values that what is returned comes from, if only by moving data."""
        numbers = [value.number for value in self.returned()]
        _, met = self.slice(numbers, set(self.feedable))
        return sorted({*met, *(n for n in numbers if n in self.feedable)})

    def slice(self, outputs: Iterable[int], fed: set[int]) -> tuple[list[int], list[int]]:
        """(the operations that make `outputs`, in order; the fed values that these take)."""
        ops: set[int] = set()
        met: set[int] = set()
        waiting = [n for n in outputs if n not in fed]
        while waiting:
            number = waiting.pop()
            index = self.makers.get(number)
            if index is None or index in ops:
                continue
            ops.add(index)
            if self.ops[index].name == IMPORT:
                continue
            for taken in self._followed(index):
                if taken in fed:
                    met.add(taken)
                else:
                    waiting.append(taken)
        return sorted(ops), sorted(met)

    def _followed(self, index: int) -> Iterable[int]:
        op = self.ops[index]
        if op.name in HANDED_ON:
            return [self.numbers[handed_on(op, r)] for r in op.results]
        return self.taken(index)

    def dims(self, number: int) -> list[Any]:
        """The dynamic dimensions of a value, as operands of what makes it or returns it."""
        op = self.ops[self.makers[number]]
        if "?" not in str(self._values[number].type):
            return []
        if op.name != DISPATCH:
            exports = (e for e in self.exports.values() if self._exported(e) == number)
            return next((list(e.operands)[1:] for e in exports), [])
        segments = list(op.attributes["operandSegmentSizes"])
        rest = list(op.operands)[sum(segments[:-1]) :]
        for result in op.results:
            count = str(result.type).count("?")
            if self.numbers[result] == number:
                return rest[:count]
            rest = rest[count:]
        return []


def seen(module: Any) -> tuple[list[Seen], list[str]]:
    """(the initializers and functions with dispatches, what cannot be looked into)."""
    stored = {
        _target(op) for op in symbols.walk(module.operation) if op.name == "util.global.store"
    }
    functions = [
        op
        for op in symbols.nested(module.operation)
        if op.name in symbols.FUNCTIONS and list(op.regions[0].blocks)
    ]
    initializers = [f for f in functions if f.name == "util.initializer"]
    parts = [initializers] if initializers else []
    parts += [[f] for f in functions if f not in initializers]
    bodies = [Seen(part, position, stored) for position, part in enumerate(parts)]
    notes = [
        f"{body.name} has branches: what is behind them is not looked at"
        for body in bodies
        if body.branches
    ]
    return [body for body in bodies if body.computing], notes


def handed_on(op: Any, result: Any) -> Any:
    """The operand that a result is."""
    return op.operands[list(op.results).index(result)]


def _sized(op: Any, kind: FlowValue) -> bool:
    """True if the sizes of an operation's results are known, and a run returns them."""
    return op.name == DISPATCH and kind.dtype in KEEPS_SHAPE


def _computes(op: Any) -> bool:
    return any(inner.name == DISPATCH for inner in symbols.walk(op))


def _target(op: Any) -> str:
    return str(op.attributes["global"]).strip('@"') if "global" in op.attributes else ""


def symbol(op: Any) -> str:
    name: str = op.attributes["sym_name"].value
    return name
