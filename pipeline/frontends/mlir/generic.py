"""Functions and their operations, read from MLIR in its generic form (`--mlir-print-op-generic`).

That form is the same for every dialect and changes least between releases. What is read is what
signatures and the sizes of inputs depend on: names, operands, attributes as text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property

import msgspec

_FUNCTION = re.compile(r'( *)"(func|util|vm)\.func"\(\) (.*)')
_EXPORT = re.compile(
    r'"vm\.export"\(\) <\{export_name = "([^"]*)", function_ref = @("?)([^,"}]*)\2\}>(.*)'
)
_OPERATION = re.compile(
    r"\s*(?:(%[\w$.#-]+)(?::(\d+))? = )?"
    r'"([\w$.]+)"\(([^()]*)\)(?:\[[^\]]*\])?(?: <\{(.*?)\}>)?([ :(].*|$)'
)
_ARGUMENTS = re.compile(r"\s*\^bb0\((.*)\):")
_NAME = re.compile(r'sym_name = "([^"]*)"')
_TYPE = re.compile(r"function_type = ")
_CALLEE = re.compile(r'callee = @("?)([^,"}]+)\1')
_RETURNS = ("func.return", "util.return", "vm.return")


class GenericOp(msgspec.Struct, frozen=True):
    """An operation: results are `results` values named `name`, `name#1`, ...

    attributes: those between `<{` and `}>`; tail: what follows, with types and other attributes.
    """

    kind: str
    name: str
    results: int
    operands: tuple[str, ...]
    attributes: str
    tail: str

    @property
    def callee(self) -> str:
        """The function that it calls; empty for what is no call."""
        found = _CALLEE.search(self.attributes)
        return found[2] if found and "call" in self.kind else ""

    def attribute(self, name: str) -> str:
        """The text of an attribute; empty where it has none of that name."""
        start = re.search(rf"(?:^|[ {{]){name} = ", self.attributes)
        return next(iter(split(self.attributes[start.end() :])), "") if start else ""


class GenericFunction(msgspec.Struct, frozen=True, dict=True):
    """A function of a module: its name for callers, types as text, arguments and operations.

    attributes: all of the function's own, and of its export. exported: its public name; None for
    a private one. ops: those of nested regions too, in the order of the text.
    """

    name: str
    exported: str | None
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    arguments: tuple[str, ...]
    ops: tuple[GenericOp, ...]
    attributes: str

    @cached_property
    def makers(self) -> dict[str, tuple[GenericOp, int]]:
        """The operation that makes a value, and the number of its result."""
        found: dict[str, tuple[GenericOp, int]] = {}
        for op in self.ops:
            if op.name:
                found[op.name] = (op, 0)
                found |= {f"{op.name}#{number}": (op, number) for number in range(op.results)}
        return found

    @cached_property
    def returned(self) -> tuple[str, ...]:
        """Operands of the last return."""
        last = [op for op in self.ops if op.kind in _RETURNS]
        return last[-1].operands if last else ()


def functions(text: str) -> dict[str, GenericFunction]:
    """The functions of a module, by their name for callers; not those inside executables."""
    exports = {m[3]: (m[1], m[4]) for m in _EXPORT.finditer(text)}
    found: dict[str, GenericFunction] = {}
    lines = iter(text.splitlines())
    for line in lines:
        match = _FUNCTION.fullmatch(line)
        if match is None or len(match[1]) != (4 if match[2] == "vm" else 2):
            continue
        header = match[3]
        inner, tail = _region(lines, match[1]) if header.endswith("({") else ([], "")
        name, begin = _NAME.search(header), _TYPE.search(header)
        if name is None or begin is None:
            continue
        inputs, outputs = function_type(header[begin.end() :])
        exported: str | None = None if 'sym_visibility = "private"' in header else name[1]
        attributes = header + tail
        if match[2] == "vm":
            exported, more = exports.get(name[1], (None, ""))
            attributes += more
        found[name[1]] = GenericFunction(
            name[1],
            exported,
            tuple(inputs),
            tuple(outputs),
            _arguments(inner),
            tuple(_ops(inner)),
            attributes,
        )
    return found


def _region(lines: Iterator[str], indent: str) -> tuple[list[str], str]:
    inner: list[str] = []
    for line in lines:
        if line.startswith(f"{indent}}})"):
            return inner, line
        inner.append(line)
    return inner, ""


def _arguments(inner: list[str]) -> tuple[str, ...]:
    match = _ARGUMENTS.match(inner[0]) if inner else None
    return tuple(part.partition(":")[0].strip() for part in split(match[1])) if match else ()


def _ops(inner: list[str]) -> Iterator[GenericOp]:
    for line in inner:
        match = _OPERATION.fullmatch(line)
        if match:
            name, count, kind, given, attributes, tail = match.groups()
            operands = tuple(part.strip() for part in given.split(",") if part.strip())
            yield GenericOp(kind, name or "", int(count or 1), operands, attributes or "", tail)


def function_type(text: str) -> tuple[list[str], list[str]]:
    """The argument and result types of `(A, B) -> (C)`, `(A) -> C` at the start of `text`."""
    inputs, rest = parenthesised(text)
    rest = rest.removeprefix(" -> ")
    if rest.startswith("("):
        return inputs, parenthesised(rest)[0]
    return inputs, split(rest)[:1]


def parenthesised(text: str) -> tuple[list[str], str]:
    """(the parts of the list in parentheses at the start of `text`, what follows it)."""
    depth = 0
    for position, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            return split(text[1:position]), text[position + 1 :]
    raise ValueError("unbalanced parentheses in a function type")


def split(text: str) -> list[str]:
    """Splits at commas outside any brackets; `->` inside a type does not count as one."""
    parts: list[str] = []
    depth = begin = 0
    for position, character in enumerate(text):
        if character in "<([{":
            depth += 1
        elif character in ")]}" or (character == ">" and text[position - 1] != "-"):
            depth -= 1
            if depth < 0:
                return [*parts, text[begin:position].strip()]
        elif character == "," and depth == 0:
            parts.append(text[begin:position].strip())
            begin = position + 1
    last = text[begin:].strip()
    return [*parts, last] if last else parts
