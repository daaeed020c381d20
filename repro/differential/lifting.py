"""A dispatch as the program that it was before: linalg on tensors, in a function of its own.

A program like that compiles from the start, for any target and with any release that knows its
operations, where flow IR is for one release. Imports `iree.compiler.ir`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from iree_pilot.repro.differential.flow import FlowValue, Lifted, parse_type
from iree_pilot.repro.differential.seen import DISPATCH, Seen, symbol
from iree_pilot.repro.ir import symbols

FUNCTION = "main"
_HELD = re.compile(r"!\w+\.dispatch\.tensor<(readonly|readwrite|writeonly):(tensor<.*>)>")
_SLICE = ("static_offsets", "static_sizes", "static_strides")


def lift(module: Any, body: Seen, index: int) -> tuple[Lifted, str]:
    """(inputs of the program, its text).

    Raises ValueError for a dispatch that has dynamic sizes or numbers among its operands.
    """
    from iree.compiler import ir

    dispatch = body.ops[index]
    if dispatch.name != DISPATCH:
        raise ValueError(f"{dispatch.name} is no dispatch")
    code = _code(module, dispatch)
    holders = [_held(a.type) for a in code.regions[0].blocks[0].arguments]
    operands = _operands(dispatch, body)
    results = _results(dispatch, holders)
    given = [kind for access, kind in holders if access != "writeonly"]
    if len(given) != len(operands):
        raise ValueError("it is given other things than its code takes")
    made = ir.Module.create()
    kinds = [ir.Type.parse(kind) for kind in given]
    returned = [ir.Type.parse(holders[number][1]) for number in results]
    with ir.InsertionPoint(made.body):
        function = ir.Operation.create(
            "func.func",
            attributes={
                "sym_name": ir.StringAttr.get(FUNCTION),
                "function_type": ir.TypeAttr.get(ir.FunctionType.get(kinds, returned)),
            },
            regions=1,
        )
    block = function.regions[0].blocks.append(*kinds)
    with ir.InsertionPoint(block):
        _body(code, holders, list(block.arguments), results)
    try:
        made.operation.verify()
    except ir.MLIRError as fault:
        raise ValueError(f"the result does not verify: {fault}") from fault
    return Lifted(operands=tuple(operands)), str(made.operation.get_asm(enable_debug_info=False))


def _code(module: Any, dispatch: Any) -> Any:
    """The function of the executable that a dispatch calls."""
    named = re.findall(r'@("[^"]*"|[\w$.-]+)', str(dispatch.attributes["entry_points"]))
    executable, export = (name.strip('"') for name in named[:2])
    for op in symbols.nested(module.operation):
        if op.name == "flow.executable" and symbol(op) == executable:
            for inner in symbols.walk(op):
                if inner.name == "func.func" and symbol(inner) == export:
                    if len(list(inner.regions[0].blocks)) > 1:
                        raise ValueError("its code has branches")
                    return inner
    raise ValueError(f"there is no {executable}::{export}")


def _held(kind: Any) -> tuple[str, str]:
    """(access of a binding, the type of its tensor)."""
    match = _HELD.fullmatch(str(kind))
    if match is None or parse_type(match[2], 0) is None or "?" in match[2]:
        raise ValueError(f"it takes {kind}")
    return match[1], match[2]


def _operands(dispatch: Any, body: Seen) -> list[FlowValue]:
    workload, arguments, *_ = list(dispatch.attributes["operandSegmentSizes"])
    found = []
    for operand in list(dispatch.operands)[workload : workload + arguments]:
        kind = parse_type(str(operand.type), body.numbers[operand])
        if kind is None or None in kind.shape:
            raise ValueError(f"it is given {operand.type}")
        found.append(kind)
    return found


def _results(dispatch: Any, holders: Sequence[tuple[str, str]]) -> list[int]:
    """The binding that each result comes from: the operand it is tied to, or one of its own."""
    workload = next(iter(dispatch.attributes["operandSegmentSizes"]))
    own = [n for n, (access, _) in enumerate(holders) if access == "writeonly"]
    tied = [-1] * len(list(dispatch.results))
    if "tied_operands" in dispatch.attributes:
        tied = [int(str(a).split(" ")[0]) for a in dispatch.attributes["tied_operands"]]
    found = [number - workload if number >= 0 else own.pop(0) for number in tied]
    if own:
        raise ValueError("its code writes more than it returns")
    return found


def _body(
    code: Any, holders: Sequence[tuple[str, str]], given: list[Any], results: Sequence[int]
) -> None:
    from iree.compiler import ir

    bindings = list(code.regions[0].blocks[0].arguments)
    places = {binding: number for number, binding in enumerate(bindings)}
    content: dict[int, Any] = {}
    for number, (access, _) in enumerate(holders):
        if access != "writeonly":
            content[number] = given[len(content)]
    mapping: dict[Any, Any] = {}
    for op in symbols.operations(code):
        if op.name.endswith(".dispatch.tensor.load"):
            place = places[op.operands[0]]
            if place not in content:
                raise ValueError("its code reads what it has not written")
            mapping[op.results[0]] = _loaded(op, content[place])
        elif op.name.endswith(".dispatch.tensor.store"):
            place = places[op.operands[1]]
            content[place] = _stored(op, mapping[op.operands[0]], content.get(place))
        elif op.name not in ("func.return", "return"):
            copy = op.clone()
            for inner in symbols.walk(copy):
                for number, operand in enumerate(list(inner.operands)):
                    if operand in places:
                        raise ValueError(f"its code has {inner.name}")
                    if operand in mapping:
                        inner.operands[number] = mapping[operand]
            mapping.update(zip(op.results, copy.results, strict=True))
    if any(number not in content for number in results):
        raise ValueError("its code does not write what it returns")
    ir.Operation.create("func.return", operands=[content[number] for number in results])


def _loaded(op: Any, content: Any) -> Any:
    from iree.compiler import ir

    if op.results[0].type == content.type:
        return content
    made = ir.Operation.create(
        "tensor.extract_slice",
        results=[op.results[0].type],
        operands=[content],
        attributes=_slice(op, [1, 0, 0, 0]),
    )
    return made.results[0]


def _stored(op: Any, value: Any, content: Any) -> Any:
    from iree.compiler import ir

    _, held = _held(op.operands[1].type)
    if str(value.type) == held:
        return value
    if content is None:
        raise ValueError("its code writes a part of what it returns")
    made = ir.Operation.create(
        "tensor.insert_slice",
        results=[content.type],
        operands=[value, content],
        attributes=_slice(op, [1, 1, 0, 0, 0]),
    )
    return made.results[0]


def _slice(op: Any, segments: list[int]) -> dict[str, Any]:
    from iree.compiler import ir

    if len(list(op.operands)) > 1 + op.name.endswith("store"):
        raise ValueError(f"its code has {op.name} of dynamic sizes")
    sizes = {name: op.attributes[name] for name in _SLICE}
    return {**sizes, "operandSegmentSizes": ir.DenseI32ArrayAttr.get(segments)}
