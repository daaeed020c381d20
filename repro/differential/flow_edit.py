"""Flow IR described, and modules made of its dispatches, for `repro.differential.flow_editor`.

In a child process, because the bindings can abort on IR that they do not like. Imports
`iree.compiler.ir`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from iree_pilot.repro.differential.flow import (
    MADE,
    Flow,
    FlowBatch,
    FlowBody,
    FlowCut,
    FlowStep,
    FlowValue,
    Interface,
    Lifted,
    parse_type,
)
from iree_pilot.repro.differential.lifting import lift
from iree_pilot.repro.differential.seen import (
    DISPATCH,
    EXPORT,
    HANDED_ON,
    IMPORT,
    Seen,
    handed_on,
    seen,
    symbol,
)
from iree_pilot.repro.ir import symbols
from iree_pilot.repro.ir.edit import context, parse

_AFFINITIES = ("stream.affinity.default", "stream.affinity", "hal.device.targets")
_PLACE = re.compile(r'"([^"]+)":(\d+):\d+')
#: Operations in an executable's code that do not characterise it.
_PLUMBING = re.compile(
    r"(?:flow|iree_tensor_ext)\.dispatch\..*|(?:\w+\.)?return|\w+\.\w*const\w*|tensor\.empty|arith\..*"
    r"|util\.assume.*|affine\..*"
)
_ASYNC = "$async"


def described(batch: FlowBatch, directory: Path) -> Flow:
    """The dispatches of the flow IR in the batch's file. Raises ValueError."""
    with context():
        return describe(parse(Path(batch.mlir).read_bytes()), directory)


def made(batch: FlowBatch, directory: Path) -> list[Interface]:
    """Writes a module with a function for each cut of the batch. Raises ValueError."""
    with context():
        module = parse(Path(batch.mlir).read_bytes())
        interfaces = make(module, batch)
        (directory / MADE).write_text(
            module.operation.get_asm(enable_debug_info=False), encoding="utf-8"
        )
        return interfaces


def lifted(batch: FlowBatch, directory: Path) -> Lifted:
    """Writes the batch's dispatch as a program on tensors. Raises ValueError."""
    assert batch.lift is not None, "asked for a lift"
    with context():
        module = parse(Path(batch.mlir).read_bytes())
        position, index = batch.lift
        body = next(b for b in seen(module)[0] if b.position == position)
        interface, text = lift(module, body, index)
        (directory / MADE).write_text(text, encoding="utf-8")
        return interface


def describe(module: Any, directory: Path) -> Flow:
    """The dispatches of a module in the order in which they are run.

    The code of each is written to a file of its own, without locations.
    """
    executables = {symbol(op): op for op in symbols.nested(module.operation) if _executable(op)}
    bodies, notes = seen(module)
    return Flow(
        bodies=tuple(
            FlowBody(
                name=body.name.removesuffix(_ASYNC),
                position=body.position,
                initializer=body.initializer,
                arguments=tuple(_arguments(body)),
                values=tuple(body.feedable.values()),
                returned=tuple(body.returned()),
                ends=tuple(body.ends()),
                steps=tuple(_steps(body, executables, directory)),
            )
            for body in bodies
        ),
        notes=tuple(notes),
    )


def _arguments(body: Seen) -> Iterator[FlowValue]:
    for position, holder in enumerate(body.holders):
        for op in body.ops:
            if op.name == IMPORT and op.operands[0] == holder:
                kind = parse_type(str(op.results[0].type), position)
                if kind is not None:
                    yield kind
                break


def _steps(body: Seen, executables: dict[str, Any], directory: Path) -> Iterator[FlowStep]:
    for index in body.computing:
        op = body.ops[index]
        results = tuple(n for r in op.results if (n := body.numbers[r]) in body.feedable)
        outside = set(body.feedable) - set(results)
        _, rests_on = body.slice((body.numbers[r] for r in op.results), outside)
        name, codes = _codes(op, executables)
        text = f"{body.position}.{index}.mlir"
        if results:
            code = "\n".join(c.get_asm(enable_debug_info=False) for c in codes)
            (directory / text).write_text(code, encoding="utf-8")
        yield FlowStep(
            index=index,
            name=name,
            results=results,
            rests_on=tuple(rests_on),
            operations=tuple(_operations(codes)),
            places=tuple(_places(codes)),
            text=text,
        )


def _codes(op: Any, executables: dict[str, Any]) -> tuple[str, list[Any]]:
    """(the dispatch's name, the executables that hold its code)."""
    named = [str(o.attributes["entry_points"]) for o in symbols.walk(op) if o.name == DISPATCH]
    found = [executables[s] for text in named for s in executables if f"@{s}::" in _plain(text)]
    if op.name == DISPATCH and found:
        exports = re.findall(r"::@([\w$.-]+)", _plain(named[0]))
        return (exports[0] if exports else symbol(found[0])), found[:1]
    return op.name, found


def _plain(text: str) -> str:
    return text.replace('"', "")


def _operations(codes: list[Any]) -> Iterator[str]:
    for code in codes:
        for function in symbols.walk(code):
            if function.name == "func.func":
                for op in symbols.operations(function):
                    if not _PLUMBING.fullmatch(op.name):
                        yield op.name


def _places(codes: list[Any]) -> list[tuple[str, int]]:
    found = {
        (match[1], int(match[2]))
        for code in codes
        for op in symbols.walk(code)
        for match in _PLACE.finditer(str(op.location))
        if match[1] != "-"  # what was printed without a location: the line of this text
    }
    return sorted(found)


def make(module: Any, batch: FlowBatch) -> list[Interface]:
    """Puts the functions of `batch` in place of the module's own, and frees it of its device."""
    from iree.compiler import ir

    _free_of_devices(module)
    bodies = {body.position: body for body in seen(module)[0]}
    made = [_function(module, cut, bodies[cut.body]) for cut in batch.cuts]
    functions = [function for function, _ in made]
    for op in list(symbols.nested(module.operation)):
        function = op.name in ("util.func", "func.func") and len(list(op.regions[0].blocks))
        if function and op not in functions:
            op.erase()
    if batch.alone:
        symbols.drop_unused(module, functions[0], False)
    try:
        module.operation.verify()
    except ir.MLIRError as fault:
        raise ValueError(f"the result does not verify: {fault}") from fault
    return [interface for _, interface in made]


def _function(module: Any, cut: FlowCut, body: Seen) -> tuple[Any, Interface]:
    from iree.compiler import ir

    slices = []
    for group in cut.groups:
        sizes = [body.numbers[d] for n in group for d in body.dims(n)]
        slices.append(body.slice([*group, *sizes], set(cut.fed) - set(group)))
    taken = {n for ops, _ in slices for i in ops for n in body.taken(i)}
    holders = [(p, h) for p, h in enumerate(body.holders) if body.numbers[h] in taken]
    fed = sorted({n for _, met in slices for n in met})
    view = ir.Type.parse("!hal.buffer_view")
    inputs = [view] * (len(holders) + len(fed))
    outputs = [view] * sum(map(len, cut.groups))
    with ir.InsertionPoint(module.body):
        function = ir.Operation.create(
            "util.func",
            attributes={
                "sym_name": ir.StringAttr.get(cut.name),
                "sym_visibility": ir.StringAttr.get("public"),
                "function_type": ir.TypeAttr.get(ir.FunctionType.get(inputs, outputs)),
                "iree.abi.stub": ir.UnitAttr.get(),
            },
            regions=1,
        )
    block = function.regions[0].blocks.append(*inputs)
    given: dict[Any, Any] = {holder: block.arguments[i] for i, (_, holder) in enumerate(holders)}
    with ir.InsertionPoint(block):
        for number, argument in zip(fed, list(block.arguments)[len(holders) :], strict=True):
            given[body.value(number)] = _import(argument, body.value(number).type)
        returned = []
        for group, (ops, _) in zip(cut.groups, slices, strict=True):
            mapping = {
                value: new for value, new in given.items() if body.numbers[value] not in group
            }
            for index in ops:
                _copy(body.ops[index], mapping)
            returned += [_export(number, body, mapping, view) for number in group]
        ir.Operation.create("util.return", operands=returned)
    return function, Interface(arguments=tuple(p for p, _ in holders), fed=tuple(fed))


def _export(number: int, body: Seen, mapping: dict[Any, Any], view: Any) -> Any:
    from iree.compiler import ir

    value = mapping[body.value(number)]
    made = ir.Operation.create(
        EXPORT,
        results=[view],
        operands=[value, *(mapping[d] for d in body.dims(number))],
        attributes={"source_encoding": ir.TypeAttr.get(value.type)},
    )
    return made.results[0]


def _import(given: Any, kind: Any) -> Any:
    """A tensor of a buffer view, with the sizes that this has."""
    from iree.compiler import ir

    index = ir.IndexType.get()
    value = parse_type(str(kind), 0)
    sizes = value.shape if value else ()
    dims = [
        ir.Operation.create(
            "hal.buffer_view.dim",
            results=[index],
            operands=[given],
            attributes={"index": ir.IntegerAttr.get(index, axis)},
        ).results[0]
        for axis, size in enumerate(sizes)
        if size is None
    ]
    made = ir.Operation.create(
        IMPORT,
        results=[kind],
        operands=[given, *dims],
        attributes={
            "target_encoding": ir.TypeAttr.get(kind),
            "operandSegmentSizes": ir.DenseI32ArrayAttr.get([1, len(dims), 0, 0]),
        },
    )
    return made.results[0]


def _copy(op: Any, mapping: dict[Any, Any]) -> None:
    """Copies an operation to where one is being made, with operands that were made already.

    An argument's import does not wait for a fence any more. Memory that holds nothing holds zeros,
    or what is not written would differ from side to side.
    """
    if op.name == IMPORT:
        mapping[op.results[0]] = _import(mapping[op.operands[0]], op.results[0].type)
        return
    if op.name in HANDED_ON:
        mapping.update((result, mapping[handed_on(op, result)]) for result in op.results)
        return
    if op.name == "flow.tensor.empty" and (zeros := _zeros(op, mapping)) is not None:
        mapping[op.results[0]] = zeros
        return
    copy = op.clone()
    symbols.rewire(copy, mapping)
    mapping.update(zip(op.results, copy.results, strict=True))


def _zeros(op: Any, mapping: dict[Any, Any]) -> Any:
    from iree.compiler import ir

    kind = ir.RankedTensorType(op.results[0].type)
    element = kind.element_type
    if isinstance(element, ir.FloatType):
        zero: Any = ir.FloatAttr.get(element, 0.0)
    elif isinstance(element, ir.IntegerType):
        zero = ir.IntegerAttr.get(element, 0)
    else:
        return None
    constant = ir.Operation.create(
        "arith.constant", results=[element], attributes={"value": zero}
    ).results[0]
    dims = [mapping[d] for d in op.operands]
    made = ir.Operation.create("flow.tensor.splat", results=[kind], operands=[constant, *dims])
    return made.results[0]


def _free_of_devices(module: Any) -> None:
    """Takes away what ties the module to a device: the next compile's flags name another."""
    for op in [module.operation, *symbols.nested(module.operation)]:
        for name in _AFFINITIES:
            if name in op.attributes:
                del op.attributes[name]
    for op in list(symbols.nested(module.operation)):
        if op.name == "util.global" and str(op.attributes["type"]) == "!hal.device":
            op.erase()


def _executable(op: Any) -> bool:
    return bool(op.name == "flow.executable")
