"""IR as a graph, and cuts carried out on IR: `python -m repro.edit DIRECTORY` does a batch.

A child process, because the bindings can abort on IR that they do not like; what was written
before that is kept, and the rest counts as proposals that cannot be carried out. Imports
`iree.compiler.ir`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from repro import simplify_ir
from repro.graph import Cut, Graph, Op
from repro.simplify import Proposal, Survey

JOB = "job.json"
GRAPH = "graph.json"
SURVEY = "survey.json"
_FUNCTIONS = ("func.func", "util.func")
_SYMBOL = re.compile(r'@([\w$.-]+|"[^"]*")')
#: Operations that compute nothing of their own.
_GLUE = re.compile(
    r"torch\.(constant\..*|prim\.ListConstruct|vtensor\.literal)|arith\.constant|ml_program\..*const.*"
)


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """What to do with the program in the file `mlir`: describe it, or carry out `cuts`.

    focus: a line of the text; the function it is in is meant, else the one with most operations.
    whole: the program's other functions stay too. proposals: simpler programs, made of the whole
    program; `surveyed` asks what they could be. What number N makes is written to `N.mlir`; if it
    cannot be made, `N.why` says why.
    """

    mlir: str
    cuts: tuple[Cut, ...] = ()
    focus: int = 0
    whole: bool = False
    proposals: tuple[Proposal, ...] = ()
    surveyed: bool = False


def main(directory: Path) -> int:
    batch = msgspec.json.decode((directory / JOB).read_bytes(), type=Batch)
    text = Path(batch.mlir).read_bytes()
    if batch.surveyed:
        (directory / SURVEY).write_bytes(msgspec.json.encode(survey(text)))
    elif not batch.cuts and not batch.proposals:
        graph = describe(text, batch.focus)
        (directory / GRAPH).write_bytes(msgspec.json.encode(graph))
    jobs: tuple[Cut | Proposal, ...] = (*batch.cuts, *batch.proposals)
    for number, job in enumerate(jobs):
        try:
            if isinstance(job, Cut):
                result = apply(text, job, batch.focus, batch.whole)
            else:
                result = simpler(text, job)
        except (ValueError, IndexError, KeyError, RuntimeError, TypeError) as fault:
            (directory / f"{number}.why").write_text(f"{type(fault).__name__}: {fault}")
        else:
            (directory / f"{number}.mlir").write_text(result)
    return 0


def describe(text: bytes, focus: int = 0) -> Graph:
    """The graph of the function that is meant. Raises ValueError if there is none."""
    with _context():
        return _Body(_parse(text), focus).graph()


def apply(text: bytes, cut: Cut, focus: int = 0, whole: bool = False) -> str:
    """The program that a cut leaves; whole: with the other functions of the module.

    Raises ValueError when there is no such program.
    """
    with _context():
        module = _parse(text)
        body = _Body(module, focus)
        body.cut(cut, whole)
        return _printed(module)


def survey(text: bytes) -> Survey:
    """What of a program could be simpler."""
    with _context():
        return simplify_ir.survey(_parse(text))


def simpler(text: bytes, proposal: Proposal) -> str:
    """The program that a proposal leaves. Raises ValueError when there is no such program."""
    with _context():
        module = _parse(text)
        simplify_ir.carry_out(module, proposal)
        return _printed(module)


def _printed(module: Any) -> str:
    from iree.compiler import ir

    try:
        module.operation.verify()
    except ir.MLIRError as fault:
        raise ValueError(f"the result does not verify: {fault}") from fault
    return str(module.operation.get_asm(enable_debug_info=False))


def _context() -> Any:
    from iree.compiler import ir

    context = ir.Context()
    context.allow_unregistered_dialects = True
    location = ir.Location.unknown(context)

    class Both:
        def __enter__(self) -> None:
            context.__enter__()
            location.__enter__()

        def __exit__(self, *fault: Any) -> None:
            location.__exit__(*fault)
            context.__exit__(*fault)

    return Both()


def _parse(text: bytes) -> Any:
    from iree.compiler import ir

    try:
        return ir.Module.parse(text)
    except ir.MLIRError as fault:
        raise ValueError(f"it does not parse: {fault}") from fault


class _Body:
    """The body of one function of a module: its values by number, its operations by position."""

    def __init__(self, module: Any, focus: int) -> None:
        self.module = module
        self.function = _function(module, focus)
        block = self.function.regions[0].blocks[0]
        self.block = block
        self.values: list[Any] = list(block.arguments)
        self.arguments = len(self.values)
        self.ops = [op.operation for op in block.operations]
        for op in self.ops:
            self.values += list(op.results)
        self.numbers = {value: number for number, value in enumerate(self.values)}

    def graph(self) -> Graph:
        last = len(self.ops) - 1
        return Graph(
            function=self.function.attributes["sym_name"].value,
            arguments=tuple(range(self.arguments)),
            ops=tuple(
                Op(
                    index=index,
                    name=op.name,
                    operands=tuple(self._taken(op)),
                    results=tuple(self.numbers[r] for r in op.results),
                    line=_line(op),
                    glue=bool(_GLUE.fullmatch(op.name)),
                    pinned=index == last,
                )
                for index, op in enumerate(self.ops)
            ),
            returned=tuple(self._taken(self.ops[last])),
            types=tuple(str(value.type) for value in self.values),
        )

    def cut(self, cut: Cut, whole: bool = False) -> None:
        """Carries the cut out in place, and removes what it leaves unused."""
        from iree.compiler import ir

        bypass, splat = dict(cut.bypass), set(cut.splat)
        made = {self.numbers[r] for i in cut.keep for r in self.ops[i].results}

        def source(number: int) -> int:
            """The value that takes this one's place."""
            while number in bypass and number not in made:
                number = bypass[number]
            return number

        kept = self._with_glue(cut.keep, source)
        terminator = self.ops[-1]
        gone = [i for i in range(len(self.ops) - 1) if i not in kept]
        inside = {self.numbers[r] for i in kept for r in self.ops[i].results}
        taken = {v for i in kept for v in self._taken(self.ops[i])}
        used = {source(v) for v in taken}
        sinks = [
            self.numbers[result]
            for i in cut.keep
            for result in self.ops[i].results
            if self.numbers[result] not in used
        ]
        renewed: dict[int, Any] = {}
        for number in sorted(taken - inside):
            origin = source(number)
            if origin in inside:
                replacement = self.values[origin]
            elif origin in splat:
                replacement = self._splat(self.values[origin])
            elif self._is_argument(origin):
                replacement = self.values[origin]
            else:
                if origin not in renewed:
                    kind = self.values[origin].type
                    renewed[origin] = self.block.add_argument(kind, ir.Location.unknown())
                replacement = renewed[origin]
            if replacement != self.values[number]:
                self.values[number].replace_all_uses_with(replacement)
        for op in (terminator, *(self.ops[i] for i in reversed(gone))):
            name = op.name
            op.erase()
            if op is terminator:
                results = [self.values[s] for s in sinks]
                with ir.InsertionPoint(self.block):
                    ir.Operation.create(name, operands=results)
        self._tidy([self.values[s].type for s in sinks], whole)

    def _tidy(self, results: list[Any], whole: bool) -> None:
        """Drops unused arguments, functions and globals; gives the function its new type."""
        from iree.compiler import ir

        for number in reversed(range(len(self.block.arguments))):
            if not list(self.block.arguments[number].uses):
                self.block.erase_argument(number)
        arguments = [a.type for a in self.block.arguments]
        attributes = self.function.attributes
        attributes["function_type"] = ir.TypeAttr.get(ir.FunctionType.get(arguments, results))
        for name in ("arg_attrs", "res_attrs", "tied_operands"):
            if name in attributes:
                del attributes[name]
        _drop_unused(self.module, self.function, whole)

    def _splat(self, value: Any) -> Any:
        """A constant of ones of the value's type, at the beginning of the function."""
        from iree.compiler import ir

        kind = str(value.type)
        torch_type = re.fullmatch(r"!torch\.vtensor<\[([\d,]*)\],([\w]+)>", kind)
        with ir.InsertionPoint.at_block_begin(self.block):
            if torch_type:
                shape = "".join(f"{d}x" for d in torch_type[1].split(",") if d)
                number = _one(torch_type[2])
                text = f"dense<{number}> : tensor<{shape}{torch_type[2]}>"
                attribute = ir.Attribute.parse(text)
                return ir.Operation.create(
                    "torch.vtensor.literal", results=[value.type], attributes={"value": attribute}
                ).results[0]
            tensor = re.fullmatch(r"tensor<(?:\d+x)*([\w]+)>", kind)
            if tensor:
                attribute = ir.Attribute.parse(f"dense<{_one(tensor[1])}> : {kind}")
                return ir.Operation.create(
                    "arith.constant", results=[value.type], attributes={"value": attribute}
                ).results[0]
        raise ValueError(f"there is no splat constant of type {kind}")

    def _with_glue(self, keep: tuple[int, ...], source: Callable[[int], int]) -> set[int]:
        """The operations of a cut with the glue that they need, bypasses followed."""
        makers = {r: i for i, op in enumerate(self.ops) for r in op.results}
        kept, waiting = set(keep), list(keep)
        while waiting:
            for number in self._taken(self.ops[waiting.pop()]):
                maker = makers.get(self.values[source(number)])
                if (
                    maker is not None
                    and maker not in kept
                    and _GLUE.fullmatch(self.ops[maker].name)
                ):
                    kept.add(maker)
                    waiting.append(maker)
        return kept

    def _is_argument(self, number: int) -> bool:
        return number < self.arguments

    def _taken(self, op: Any) -> list[int]:
        return list(dict.fromkeys(self.numbers[v] for v in self._values_taken(op)))

    def _values_taken(self, op: Any) -> list[Any]:
        """Values of this body that an operation or what is nested in it takes."""
        found = [v for v in op.operands if v in self.numbers]
        for region in op.regions:
            for block in region:
                for nested in block.operations:
                    found += self._values_taken(nested.operation)
        return found


def _function(module: Any, focus: int) -> Any:
    """The function with an operation at line `focus`, else that with most operations."""
    found: list[Any] = []

    def visit(op: Any) -> None:
        for region in op.regions:
            for block in region:
                for inner in block.operations:
                    if inner.operation.name in _FUNCTIONS:
                        found.append(inner.operation)
                    else:
                        visit(inner.operation)

    visit(module.operation)
    bodies = [f for f in found if len(f.regions[0].blocks) > 0]
    if not bodies:
        raise ValueError("the program has no function with a body")

    def fits(function: Any) -> tuple[bool, int]:
        ops = [op.operation for op in function.regions[0].blocks[0].operations]
        return bool(focus) and any(_line(op) == focus for op in ops), len(ops)

    return max(bodies, key=fits)


def _drop_unused(module: Any, function: Any, whole: bool) -> None:
    """Keeps only the top-level symbols that the function (with `whole`: any function) leads to."""
    top = [op.operation for op in module.body.operations]
    named = {op.attributes["sym_name"].value: op for op in top if "sym_name" in op.attributes}
    if function not in top:
        return
    waiting = [op for op in top if op == function or (whole and op.name in _FUNCTIONS)]
    needed = {op.attributes["sym_name"].value for op in waiting}
    while waiting:
        text = waiting.pop().get_asm(enable_debug_info=False)
        for symbol in set(_SYMBOL.findall(text)):
            name = symbol.strip('"')
            if name in named and name not in needed:
                needed.add(name)
                waiting.append(named[name])
    for name, op in named.items():
        if name not in needed:
            op.erase()


def _line(op: Any) -> int:
    """The line of the text that an operation was parsed from."""
    match = re.search(r'":(\d+):\d+', str(op.location))
    return int(match[1]) if match else 0


def _one(element: str) -> str:
    return "1.0" if re.fullmatch(r"b?f\d.*|tf32", element) else "true" if element == "i1" else "1"


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
