"""The body of one function: seen as a graph, and cut in place. Imports `iree.compiler.ir`.

A function that others rely on (the code of an executable, what is called) keeps its signature:
what it lacks becomes a constant. Any other gets arguments for what it
lacks, and returns what is not used. A buffer is also returned where it was before, or where it is
only written to: what is done to it would be dead code.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from iree_pilot.repro.ir import symbols
from iree_pilot.repro.ir.feeds import ARGUMENT, FedValue, Feeds
from iree_pilot.repro.ir.graph import Cut, Graph, Op

#: Arithmetic on sizes: it goes where its users go, and is counted all the same.
SIZES = re.compile(r"torch\.aten\.(size\.int|(add|sub|mul|floordiv)\.int|floordiv)")
#: Operations that compute nothing of their own. A check of a traced type is one that nothing takes
#: along: it goes, or what it takes would not be an output, and a bug can depend on that.
_GLUE = re.compile(
    SIZES.pattern + r"|"
    r"torch\.(constant\..*|prim\.ListConstruct|vtensor\.literal|symbolic_int"
    r"|aten\._assert_tensor_metadata)"
    r"|onnx\.Constant"
    r"|(arith|complex|ml_program|mhlo|chlo|stablehlo)\.\w*const\w*|tosa\.const(_shape)?"
    r"|flow\.tensor\.constant|tensor\.empty|util\.null"
    r"|hal\.interface\..*|(stream|flow)\.(binding\.subspan|dispatch\.workgroup\..*)"
)
#: Types of values that are no data: what makes them comes along. Torch's integers and lists, and
#: shapes, are not what a program is called with.
NO_DATA = re.compile(r"!torch\.(?!vtensor|tensor).*|!tosa\.shape<.*")
_META = "torch.onnx_meta."
#: Operations that take values out of a list; a list is data if its elements are.
UNPACKS = ("torch.prim.ListUnpack", "torch.aten.__getitem__.t")
#: Values that operations without a result change.
_BUFFER = re.compile(r"memref<.*")
_REFERENCE = re.compile(r"!hal\.\w+|!vm\.ref<.*")
_SCALAR = re.compile(r"index|[su]?i\d+|b?f\d\w*|tf32")
_STATIC = re.compile(r"(?:tensor|vector)<(?:\d+x)*([\w]+)>")
_TORCH = re.compile(r"!torch\.vtensor<\[([\d,]*)\],([\w]+)>")


class Body:
    """Values by number, operations by position. focus: a line of the function that is meant."""

    def __init__(self, module: Any, focus: int) -> None:
        self.module = module
        self.function = symbols.function_at(module, focus)
        self.block = self.function.regions[0].blocks[0]
        blocks = list(self.function.regions[0].blocks)
        self.fixed = (
            len(blocks) > 1
            or self.function.name not in ("func.func", "util.func")
            or symbols.is_dispatch(self.function)
        )
        self.values: list[Any] = list(self.block.arguments)
        self.arguments = len(self.values)
        self.places = [FedValue(ARGUMENT, number) for number in range(self.arguments)]
        self.ops = symbols.operations(self.function)
        self.names = [operator_name(op) for op in self.ops]
        for index, op in enumerate(self.ops):
            self.values += list(op.results)
            self.places += [FedValue(index, number) for number in range(len(op.results))]
        named = self.function.attributes
        self.name = named["sym_name"].value if "sym_name" in named else self.function.name
        self.numbers = {value: number for number, value in enumerate(self.values)}
        self.makers = {self.numbers[r]: i for i, op in enumerate(self.ops) for r in op.results}
        self.renewed: dict[int, Any] = {}
        #: The value of the uncut function that each argument stands for, also after a cut.
        self.taken: tuple[int, ...] = tuple(range(self.arguments))
        self.elsewhere = [op.operation for block in blocks[1:] for op in block.operations]

    def graph(self) -> Graph:
        last = len(self.ops) - 1
        return Graph(
            function=self.name,
            arguments=tuple(range(self.arguments)),
            ops=tuple(
                Op(
                    index=index,
                    name=self.names[index],
                    operands=tuple(self.taken_by(op)),
                    results=tuple(self.numbers[r] for r in op.results),
                    line=symbols.line(op),
                    glue=bool(_GLUE.fullmatch(self.names[index])),
                    pinned=index == last,
                )
                for index, op in enumerate(self.ops)
            ),
            returned=tuple(self._ends()),
            types=tuple(str(value.type) for value in self.values),
        )

    def feeds(self, base: str) -> Feeds:
        """The function's arguments, as values that it had in the program `base`."""
        last = symbols.operations(self.function)[-1]
        return Feeds(
            function=self.name,
            base=base,
            origin=self.name,
            values=tuple(self.places[number] for number in self.taken),
            types=tuple(str(argument.type) for argument in self.block.arguments),
            results=tuple(str(value.type) for value in last.operands),
        )

    def cut(self, cut: Cut, whole: bool = False) -> None:
        """Carries the cut out in place, and removes what it leaves unused.

        Raises ValueError where what is left lacks a value that nothing can take the place of.
        """
        self.fixed |= whole and symbols.is_named_elsewhere(self.module, self.function)
        bypass, splat = dict(cut.bypass), set(cut.splat)
        made = {self.numbers[r] for i in cut.keep for r in self.ops[i].results}

        def source(number: int) -> int:
            """The value that takes this one's place."""
            while number in bypass and number not in made:
                number = bypass[number]
            return number

        kept = self._with_glue(cut.keep, source, splat)
        inside = {self.numbers[r] for i in kept for r in self.ops[i].results}
        taken = {v for i in kept for v in self.taken_by(self.ops[i])}
        used = {source(v) for v in taken}
        if self.fixed:
            taken.update(self._ends())
        for number in sorted(taken - inside):
            replacement = self._replacement(source(number), inside, splat)
            if replacement != self.values[number]:
                self.values[number].replace_all_uses_with(replacement)
        read = {source(v) for i in kept if self.ops[i].results for v in self.taken_by(self.ops[i])}
        written = {n for n in used - read if self._is_buffer(n)}
        written |= {source(n) for n in self._ends() if self._is_buffer(n)}
        unpacked = {i for i in kept if self.names[i] in UNPACKS}
        sinks = [
            self.values[number]
            for i in sorted({*cut.keep, *unpacked})
            for number in (self.numbers[result] for result in self.ops[i].results)
            if (number not in used or number in written)
            and not NO_DATA.fullmatch(str(self.values[number].type))
        ]
        gone = [i for i in range(len(self.ops) - 1) if i not in kept]
        if self.fixed:
            for i in reversed(gone):
                self.ops[i].erase()
        else:
            self._end_with(sinks, gone)
            self._retype([sink.type for sink in sinks])
        symbols.drop_unused(self.module, self.function, whole)

    def _replacement(self, origin: int, inside: set[int], splat: set[int]) -> Any:
        """Replacement of a value whose operation is removed."""
        from iree.compiler import ir

        value = self.values[origin]
        if origin in splat:
            return self._constant(value)
        if origin in inside or origin < self.arguments:
            return value
        if self.fixed:
            return self._constant(value)
        if origin not in self.renewed:
            self.renewed[origin] = self.block.add_argument(value.type, ir.Location.unknown())
        return self.renewed[origin]

    def _end_with(self, results: list[Any], gone: list[int]) -> None:
        from iree.compiler import ir

        terminator = self.ops[-1]
        name = terminator.name
        terminator.erase()
        for i in reversed(gone):
            self.ops[i].erase()
        with ir.InsertionPoint(self.block):
            ir.Operation.create(name, operands=results)

    def _retype(self, results: list[Any]) -> None:
        """Drops unused arguments and gives the function its new type."""
        from iree.compiler import ir

        taken = [*range(self.arguments), *self.renewed]
        for number in reversed(range(len(self.block.arguments))):
            if not list(self.block.arguments[number].uses):
                self.block.erase_argument(number)
                del taken[number]
        self.taken = tuple(taken)
        arguments = [a.type for a in self.block.arguments]
        attributes = self.function.attributes
        attributes["function_type"] = ir.TypeAttr.get(ir.FunctionType.get(arguments, results))
        for name in ("arg_attrs", "res_attrs", "tied_operands"):
            if name in attributes:
                del attributes[name]

    def _constant(self, value: Any) -> Any:
        """A constant of ones (or null) of the value's type, at the beginning of the function."""
        from iree.compiler import ir

        kind = str(value.type)
        name = "arith.constant"
        if _REFERENCE.fullmatch(kind):
            with ir.InsertionPoint.at_block_begin(self.block):
                return ir.Operation.create("util.null", results=[value.type]).results[0]
        if match := _TORCH.fullmatch(kind):
            shape = "".join(f"{d}x" for d in match[1].split(",") if d)
            name = "torch.vtensor.literal"
            text = f"dense<{_one(match[2])}> : tensor<{shape}{match[2]}>"
        elif match := _STATIC.fullmatch(kind):
            text = f"dense<{_one(match[1])}> : {kind}"
        elif _SCALAR.fullmatch(kind):
            text = f"{_one(kind)} : {kind}" if kind != "i1" else "true"
        else:
            raise ValueError(f"there is no constant of type {kind}")
        with ir.InsertionPoint.at_block_begin(self.block):
            return ir.Operation.create(
                name, results=[value.type], attributes={"value": ir.Attribute.parse(text)}
            ).results[0]

    def beside(self, name: str, given: Sequence[Any], results: Sequence[Any]) -> tuple[Any, Any]:
        """(a function like this one at the end of the module that takes and returns values of these
        values' types, its block, which is empty)."""
        from iree.compiler import ir

        types = [value.type for value in given]
        kind = ir.FunctionType.get(types, [result.type for result in results])
        with ir.InsertionPoint(self.module.body):
            function = ir.Operation.create(
                self.function.name,
                attributes={
                    **meanings(self.function),
                    "sym_name": ir.StringAttr.get(name),
                    "function_type": ir.TypeAttr.get(kind),
                },
                regions=1,
            )
        return function, function.regions[0].blocks.append(*types)

    def with_glue(self, part: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """(operations with what comes along, by position; the values that they take from others)"""
        members = self._with_glue(tuple(part), lambda number: number, set())
        taken = dict.fromkeys(
            number
            for index in sorted(members)
            for number in self.taken_by(self.ops[index])
            if self.makers.get(number) not in members
        )
        return tuple(sorted(members)), tuple(taken)

    def _with_glue(
        self, keep: tuple[int, ...], source: Callable[[int], int], splat: set[int]
    ) -> set[int]:
        """The operations of a cut with what comes along, bypasses followed.

        That is the glue that they need, and what makes values for them that are no data; a list
        that nothing takes is unpacked as it was.
        """
        kept = set(keep)
        waiting = list(keep)

        def along(index: int) -> None:
            if index not in kept:
                kept.add(index)
                waiting.append(index)

        while waiting:
            op = self.ops[waiting.pop()]
            for number in map(source, self.taken_by(op)):
                maker = self.makers.get(number)
                if maker is None or number in splat:
                    continue
                if _GLUE.fullmatch(self.names[maker]) or NO_DATA.fullmatch(
                    str(self.values[number].type)
                ):
                    along(maker)
            for result in op.results:
                if str(result.type).startswith("!torch.list<"):
                    users = {self._index(use.owner.operation) for use in result.uses}
                    if not users & kept:
                        for user in sorted(users):
                            if user >= 0 and self.ops[user].name in UNPACKS:
                                along(user)
        return kept

    def _is_buffer(self, number: int) -> bool:
        return _BUFFER.fullmatch(str(self.values[number].type)) is not None

    def _index(self, op: Any) -> int:
        return next((i for i, own in enumerate(self.ops) if own == op), -1)

    def _ends(self) -> list[int]:
        """Values that the terminator takes, and those that other blocks take."""
        return list(
            dict.fromkeys(n for op in (self.ops[-1], *self.elsewhere) for n in self.taken_by(op))
        )

    def taken_by(self, op: Any) -> list[int]:
        """The values of this body that an operation takes, in its regions too."""
        taken = (v for inner in symbols.walk(op) for v in inner.operands if v in self.numbers)
        return list(dict.fromkeys(self.numbers[v] for v in taken))


def cloned(ops: Iterable[Any], known: dict[Any, Any], point: Any) -> None:
    """Clones operations to an insertion point; `known` has what stands for the values that they
    take, and then for their results too."""
    for op in ops:
        clone = op.clone(point).operation
        symbols.rewire(clone, known)
        known |= dict(zip(op.results, clone.results, strict=True))


def meanings(function: Any) -> dict[str, Any]:
    """The attributes of a function that say what its operations mean, such as ONNX's opset."""
    attributes = function.attributes
    # What they are iterated as has changed between releases.
    names = [getattr(one, "name", one) for one in attributes]
    return {name: attributes[name] for name in names if name.startswith(_META)}


def operator_name(op: Any) -> str:
    """An operation's name; of one that torch does not know, its own (`onnx.Relu`)."""
    if op.name == "torch.operator" and "name" in op.attributes:
        return str(op.attributes["name"].value)
    return str(op.name)


def _one(element: str) -> str:
    return "1.0" if re.fullmatch(r"b?f\d.*|tf32", element) else "true" if element == "i1" else "1"
