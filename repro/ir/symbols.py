"""The functions of a module, wherever they are nested, and the symbols that one leads to.

Imports no bindings: it works on what it is given.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

#: Operations whose bodies are run: functions, and initializers of globals.
FUNCTIONS = ("func.func", "util.func", "util.initializer", "llvm.func", "spirv.func")
_SYMBOL = re.compile(r'@([\w$.-]+|"[^"]*")')
_STORED = re.compile(r'util\.global\.store[^@\n]*@([\w$.-]+|"[^"]*")')
#: Operations that hold an executable's code; the rest of a compiled program is host code.
_EXECUTABLE = re.compile(r"(?:flow|stream|hal)\.executable")


def functions(module: Any) -> list[Any]:
    """The functions with a body, those with most operations first."""
    return sorted(_bodies(module.operation), key=lambda function: -len(operations(function)))


def function_at(module: Any, focus: int) -> Any:
    """The function with an operation at line `focus`, else that with most operations.

    Raises ValueError where there is none.
    """
    bodies = functions(module)
    if not bodies:
        raise ValueError("the program has no function with a body")
    fitting = [f for f in bodies if focus and any(line(op) == focus for op in operations(f))]
    return (fitting or bodies)[0]


def lines(module: Any) -> tuple[tuple[str, int], ...]:
    """Name and a line of each function, those with most operations first.

    A function without a name is called by its operation and its number among those.
    """
    counts: dict[str, int] = {}
    names: dict[Any, str] = {}
    for function in _bodies(module.operation):
        counts[function.name] = counts.get(function.name, 0) + 1
        names[function] = _name(function) or f"{function.name} {counts[function.name]}"
    return tuple((names[f], line(operations(f)[0])) for f in functions(module))


def operations(function: Any) -> list[Any]:
    """Operations of its first block."""
    return [op.operation for op in function.regions[0].blocks[0].operations]


def is_dispatch(function: Any) -> bool:
    """True if it is the code of an executable, whose signature others rely on."""
    return any(_EXECUTABLE.fullmatch(holder.name) for holder in _holders(function))


def is_named_elsewhere(module: Any, function: Any) -> bool:
    """True if something outside a function refers to it."""
    name = _name(function)

    def names(op: Any) -> bool:
        if op == function:
            return False
        if any(op == outer for outer in _holders(function)):
            return any(names(inner) for inner in nested(op))
        return name in {s.strip('"') for s in _SYMBOL.findall(_text(op))} and _name(op) != name

    return bool(name) and names(module.operation)


def _holders(op: Any) -> Iterator[Any]:
    while op.parent is not None:
        op = op.parent
        yield op


def line(op: Any) -> int:
    """The line of the text that an operation was parsed from."""
    match = re.search(r'":(\d+):\d+', str(op.location))
    return int(match[1]) if match else 0


def drop_unused(module: Any, function: Any, whole: bool) -> None:
    """Keeps only the symbols that the function (with `whole`: any function) leads to.

    On each level from the function outwards. What has no name stays, but for initializers of
    globals that are not needed.
    """
    inner = function
    while inner.parent is not None:
        _drop_siblings(inner, whole)
        inner = inner.parent
        if inner == module.operation:
            return


def _drop_siblings(kept: Any, whole: bool) -> None:
    holder = kept.parent
    siblings = list(nested(holder))
    named = {name: op for op in siblings if (name := _name(op))}
    roots = [
        op
        for op in siblings
        if op == kept
        or (whole and (op.name in FUNCTIONS or _EXECUTABLE.fullmatch(op.name)))
        or (not _name(op) and op.name != "util.initializer")
    ]
    initializers = [op for op in siblings if op.name == "util.initializer" and op not in roots]
    needed = {name for op in roots if (name := _name(op))}
    texts = [_text(op) for op in roots] + [
        str(holder.attributes[name]) for name in holder.attributes
    ]
    while texts:
        symbols = {s.strip('"') for s in _SYMBOL.findall(texts.pop())}
        fresh = {s for s in symbols if s in named and s not in needed}
        needed |= fresh
        texts += [_text(named[s]) for s in fresh]
        for op in list(initializers):
            text = _text(op)
            if needed.intersection(s.strip('"') for s in _STORED.findall(text)):
                initializers.remove(op)
                texts.append(text)
    for op in [*initializers, *(op for name, op in named.items() if name not in needed)]:
        op.erase()


def _bodies(op: Any) -> Iterator[Any]:
    for inner in nested(op):
        if inner.name in FUNCTIONS:
            if len(inner.regions[0].blocks) > 0:
                yield inner
        else:
            yield from _bodies(inner)


def nested(op: Any) -> Iterator[Any]:
    """The operations in the regions of one."""
    for region in op.regions:
        for block in region:
            for inner in block.operations:
                yield inner.operation


def walk(op: Any) -> Iterator[Any]:
    """An operation and those in its regions, at any depth."""
    yield op
    for inner in nested(op):
        yield from walk(inner)


def rewire(op: Any, known: Mapping[Any, Any]) -> None:
    """Gives an operation, and what is nested in it, the values that stand for those it takes."""
    for inner in walk(op):
        for number, operand in enumerate(list(inner.operands)):
            if operand in known:
                inner.operands[number] = known[operand]


def _name(op: Any) -> str:
    return op.attributes["sym_name"].value if "sym_name" in op.attributes else ""


def _text(op: Any) -> str:
    text: str = op.get_asm(enable_debug_info=False)
    return text
