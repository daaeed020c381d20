"""The low-precision intermediates of a program, and a copy of it that returns them too.

In a child process: the compiler's bindings may abort on IR that they do not like. Imports
`iree.compiler.ir`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec

from iree_pilot.repro.ir import edit, symbols
from iree_pilot.repro.ir.body import Body
from iree_pilot.repro.ir.graph import Graph, Op
from iree_pilot.repro.ranges.measure import NARROW

COPY = "watched.mlir"

_TENSOR = re.compile(r"!torch\.vtensor<\[[\d?,]*\],(\w+)>")
_ELSEWHERE = re.compile(rf"tensor<(?:[\d?]+x)*(?:{'|'.join(NARROW)})[,>]")
#: Operations that move numbers: theirs are those of an operand.
_MOVES = re.compile(
    r"util\.global\.load|torch_c\..*|torch\.(copy\.to_vtensor|tensor_static_info_cast"
    r"|aten\.(_unsafe_view|alias|as_strided|broadcast_to|cat|chunk|clone|constant_pad_nd"
    r"|contiguous|detach|embedding|expand|flatten|flip|gather|index|index_select|movedim|narrow"
    r"|permute|repeat|reshape|roll|select|slice|split|split_with_sizes|squeeze|stack|t|tile"
    r"|transpose|unbind|unflatten|unsqueeze|view)(\..*)?)"
)
#: Operations of other dialects that move values or give scalars.
_MOVES_ELSEWHERE = re.compile(
    r"(util|torch_c|builtin|func|cf|hal)\..*|arith\.constant|flow\.tensor\..*"
    r"|linalg\.(broadcast|copy|fill|transpose)"
    r"|tensor\.(cast|collapse_shape|concat|empty|expand_shape|extract_slice|insert_slice|pad|reshape)"
)
_CASTS = re.compile(r"torch\.(prims\.convert_element_type|aten\.(to|_to_copy|type_as)(\..*)?)")
_CLAMPS = re.compile(r"torch\.aten\.(clamp|clamp_min|clamp_max|hardtanh)(\..*)?")

Key = tuple[int, int]


class Watched(msgspec.Struct, frozen=True, kw_only=True):
    """One intermediate of low precision that an operation rounds to.

    op, result: the operation's position in its function, the number of its result. line: of the
    program's text. truth: the value that has, in double precision, the numbers that were to be
    held: that of a cast's operand, before it is clamped to the type's range; else the same. fed:
    whether another intermediate that is watched leads to it, by its number among these.
    """

    op: int
    result: int
    name: str
    line: int
    dtype: str
    truth: Key
    fed: tuple[int, ...] = ()


class Watching(msgspec.Struct, frozen=True, kw_only=True):
    """Values watched in each function. unseen: the operations of other dialects than torch that
    compute in low precision too, by name, each as often as it is there."""

    functions: dict[str, tuple[Watched, ...]]
    unseen: tuple[str, ...] = ()


def unseen(graph: Graph) -> tuple[str, ...]:
    """The operations of other dialects than torch that give low-precision numbers of their own."""
    return tuple(
        op.name
        for op in graph.ops
        if not op.name.startswith("torch.") and not _MOVES_ELSEWHERE.fullmatch(op.name)
        if any(_ELSEWHERE.search(graph.types[value]) for value in op.results)
    )


def choose(graph: Graph) -> tuple[Watched, ...]:
    """Chooses the values to watch in a function in the torch dialect."""
    keys: dict[int, Key] = {}
    makers: dict[int, Op] = {}
    behind: dict[int, frozenset[int]] = {}
    found: list[Watched] = []
    for op in graph.ops:
        led = frozenset[int]().union(*(behind.get(v, frozenset()) for v in op.operands))
        for number, value in enumerate(op.results):
            keys[value], makers[value] = (op.index, number), op
            behind[value] = led
            dtype = _narrow(graph.types[value])
            if dtype is None or op.glue or op.pinned or _MOVES.fullmatch(op.name):
                continue
            true = _origin(op, value, makers)
            # PyTorch computes nothing in 8-bit floats, and one that is an argument is given.
            if true not in keys:
                continue
            behind[value] = led | {len(found)}
            found.append(
                Watched(
                    op=op.index,
                    result=number,
                    name=op.name,
                    line=op.line,
                    dtype=dtype,
                    truth=keys[true],
                    fed=tuple(sorted(led)),
                )
            )
    return tuple(found)


def _narrow(type_: str) -> str | None:
    match = _TENSOR.fullmatch(type_)
    return match[1] if match and match[1] in NARROW else None


def _origin(op: Op, value: int, makers: dict[int, Op]) -> int:
    """The value whose numbers a result was to hold."""
    if not _CASTS.fullmatch(op.name):
        return value
    source = op.operands[0]
    while source in makers and _CLAMPS.fullmatch(makers[source].name):
        source = makers[source].operands[0]
    return source


def watch(text: bytes) -> tuple[Watching, str]:
    """(watched values, the program with these as outputs after its own).

    Raises ValueError for a program that there is no such copy of.
    """
    from iree.compiler import ir

    found: dict[str, tuple[Watched, ...]] = {}
    others: list[str] = []
    with edit.context():
        module = edit.parse(text)
        for name, line in symbols.lines(module):
            body = Body(module, line)
            if body.function.name != "func.func" or body.fixed:
                continue
            graph = body.graph()
            found[name] = choose(graph)
            others += unseen(graph)
            if found[name]:
                _return_too(body, [body.ops[w.op].results[w.result] for w in found[name]])
        try:
            module.operation.verify()
        except ir.MLIRError as fault:
            raise ValueError(f"the copy does not verify: {fault}") from fault
        copy = str(module.operation.get_asm(enable_debug_info=False))
        if not any(found.values()) and _ELSEWHERE.search(copy) and "torch." not in copy:
            raise ValueError("it computes in 8-bit or 16-bit floats in other dialects than torch")
        return Watching(functions=found, unseen=tuple(others)), copy


def _return_too(body: Body, values: list[Any]) -> None:
    from iree.compiler import ir

    end = body.ops[-1]
    results = [*end.operands, *values]
    with ir.InsertionPoint(end):
        ir.Operation.create(end.name, operands=results)
    end.erase()
    attributes = body.function.attributes
    inputs = [a.type for a in body.block.arguments]
    attributes["function_type"] = ir.TypeAttr.get(
        ir.FunctionType.get(inputs, [r.type for r in results])
    )
    if "res_attrs" in attributes:
        del attributes["res_attrs"]


def watching(program: str, directory: Path) -> Watching:
    """Writes the copy of the program in a file; what is watched of it.

    Raises ValueError.
    """
    found, copy = watch(Path(program).read_bytes())
    (directory / COPY).write_text(copy, encoding="utf-8")
    return found
