"""Signatures and parameter names read from printed MLIR.

Functions are read from the generic form (`--mlir-print-op-generic`), which is the same for
`func.func` and `util.func` and changes least between releases.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from pipeline.program import ELEMENT_TYPES, Dim, Function, Parameter, Parameters, TensorType

_FUNCTION = re.compile(r'^  "(?:func|util)\.func"\(\) (.*)$', re.MULTILINE)
_TYPE = re.compile(r"function_type = ")
_NAME = re.compile(r'sym_name = "([^"]*)"')
_PARAMETER = re.compile(
    r'#(?:flow|stream|torch_c?)\.parameter\.named<"([^"]*)"::"([^"]*)">\s*:\s*(tensor<[^>]*>)'
)
_TENSOR = re.compile(r"tensor<((?:(?:\d+|\?)x)*)([\w<>]+?)(?:,.*)?>")
_TORCH_TENSOR = re.compile(r"!torch\.vtensor<\[([\d?,]*)\],([\w<>]+)>")
#: Torch's integer types carry a sign that the program's ABI does not: `si8` is passed as `i8`.
_SIGNED = {f"si{bits}": f"i{bits}" for bits in (8, 16, 32, 64)}


def functions(generic: str) -> tuple[tuple[Function, ...], tuple[str, ...]]:
    """(functions that take and return only tensors, names of the public ones that do not)."""
    usable, other = [], []
    for match in _FUNCTION.finditer(generic):
        line = match[1]
        name, begin = _NAME.search(line), _TYPE.search(line)
        if not name or not begin or 'sym_visibility = "private"' in line:
            continue
        inputs, outputs = _function_type(line[begin.end() :])
        try:
            usable.append(
                Function(
                    name=name[1],
                    inputs=tuple(_typed(inputs, "arg")),
                    outputs=tuple(_typed(outputs, "result")),
                )
            )
        except ValueError:
            other.append(name[1])
    return tuple(usable), tuple(other)


def parameters(text: str) -> Parameters | None:
    """The named parameters that a program's globals load; None if there are none.

    Raises ValueError for a parameter of an unknown type or for several scopes.
    """
    found: dict[str, Parameter] = {}
    scopes = set()
    for scope, name, type_text in _PARAMETER.findall(text):
        tensor = parse_type(type_text, name)
        shape = tuple(d for d in tensor.shape if isinstance(d, int))
        scopes.add(scope)
        found[name] = Parameter(name=name, dtype=tensor.dtype, shape=shape)
    if not found:
        return None
    if len(scopes) > 1:
        raise ValueError(f"parameters in several scopes: {', '.join(sorted(scopes))}")
    return Parameters(scope=scopes.pop(), tensors=tuple(found.values()))


def parse_type(text: str, name: str) -> TensorType:
    """`tensor<2x?xf32>` or `!torch.vtensor<[2,?],f32>` as a TensorType; else ValueError."""
    if match := _TENSOR.fullmatch(text):
        dims, element = match[1].rstrip("x").split("x"), match[2]
    elif match := _TORCH_TENSOR.fullmatch(text):
        dims, element = match[1].split(","), match[2]
    else:
        raise ValueError(f"not a tensor type: {text}")
    element = _SIGNED.get(element, element)
    if element not in ELEMENT_TYPES:
        raise ValueError(f"unknown element type {element} in {text}")
    shape = tuple(
        Dim(symbol=f"{name}_d{axis}") if size == "?" else int(size)
        for axis, size in enumerate(d for d in dims if d)
    )
    return TensorType(name=name, dtype=element, shape=shape)


def _typed(types: list[str], stem: str) -> Iterator[TensorType]:
    for index, text in enumerate(types):
        yield parse_type(text, f"{stem}{index}")


def _function_type(text: str) -> tuple[list[str], list[str]]:
    """The argument and result types of `(A, B) -> (C)`, `(A) -> C` at the start of `text`."""
    inputs, rest = _parenthesised(text)
    rest = rest.removeprefix(" -> ")
    if rest.startswith("("):
        return inputs, _parenthesised(rest)[0]
    return inputs, _split(rest)[:1]


def _parenthesised(text: str) -> tuple[list[str], str]:
    depth = 0
    for position, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            return _split(text[1:position]), text[position + 1 :]
    raise ValueError("unbalanced parentheses in a function type")


def _split(text: str) -> list[str]:
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
