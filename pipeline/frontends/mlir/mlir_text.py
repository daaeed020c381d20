"""Types and parameter names read from printed MLIR."""

from __future__ import annotations

import re

from iree_pilot.pipeline.program.program import (
    ELEMENT_TYPES,
    Dim,
    Parameter,
    Parameters,
    TensorType,
)

_PARAMETER = re.compile(
    r'#(?:flow|stream|torch_c?)\.parameter\.named<(?:"([^"]*)"::)?"([^"]*)">'
    r"\s*:\s*((?:tensor|vector)<(?:[^<>]|<[^<>]*>)*>)"
)
_TENSOR = re.compile(r"tensor<((?:(?:\d+|\?)x)*)([\w<>]+?)(?:,.*)?>")
_TORCH_TENSOR = re.compile(r"!torch\.v?tensor<\[([\d?,]*)\],([\w<>]+)>")
#: A tensor of integers with a sign is passed as one without: `si8` as `i8`.
_SIGNED = {f"si{bits}": f"i{bits}" for bits in (2, 4, 8, 16, 32, 64)}
#: Numbers on their own. torch's float is f64, which IREE demotes by default.
_SCALARS = {name: name for name in ("i1", "i2", "i4", "i8", "i16", "i32", "i64")} | {
    "index": "i64",
    "f16": "f16",
    "bf16": "bf16",
    "f32": "f32",
    "f64": "f64",
    "!torch.int": "i64",
    "!torch.float": "f32",
    "!torch.bool": "i1",
}

_LOADS = re.compile(
    r'"(?:io_parameters|stream[\w.]*\.parameter)\.\w+"\(([^()]*)\)'
    r'|"vm\.call[\w.]*"\(([^()]*)\)(?:\[[^\]]*\])? <\{callee = @io_parameters\.\w+'
)
_TEXT = re.compile(
    r'(%\w+) = "(?:util\.buffer\.constant"\(\) <\{[^\n]*?value = "([^"]*)"'
    r'|vm\.const\.ref\.rodata"\(\) <\{rodata = @(\w+))'
)
_RODATA = re.compile(r'"vm\.rodata"\(\) <\{[^\n]*?sym_name = "([^"]*)"[^\n]*?value = "([^"\n]*)"')


def parameters(text: str) -> Parameters | None:
    """The named parameters that a program's globals load; None if there are none.

    Of types that are not known, the name is kept, and nothing is checked.
    """
    found: dict[tuple[str, str], Parameter] = {}
    for scope, name, type_text in _PARAMETER.findall(text):
        try:
            tensor = parse_type(type_text.replace("vector<", "tensor<"), name)
            dtype, shape = tensor.dtype, tuple(d for d in tensor.shape if isinstance(d, int))
        except ValueError:
            dtype, shape = type_text, ()
        found[scope, name] = Parameter(name=name, dtype=dtype, shape=shape, scope=scope)
    if not found:
        return None
    first = next(iter(found))[0]
    # The scope is said once where there is only one.
    one = all(scope == first for scope, _ in found)
    tensors = (
        Parameter(name=p.name, dtype=p.dtype, shape=p.shape, scope=None if one else p.scope)
        for p in found.values()
    )
    return Parameters(scope=first, tensors=tuple(tensors))


def parse_type(text: str, name: str) -> TensorType:
    """`tensor<2x?xf32>` or `!torch.vtensor<[2,?],f32>` as a TensorType; else ValueError."""
    if match := _TENSOR.fullmatch(text):
        dims, element = match[1].rstrip("x").split("x"), match[2]
    elif match := _TORCH_TENSOR.fullmatch(text):
        dims, element = match[1].split(","), match[2]
    else:
        raise ValueError(f"not a tensor type: {text}")
    return tensor(element, [d for d in dims if d], name)


def tensor(element: str, dims: list[str], name: str) -> TensorType:
    """A tensor's type of an element type and sizes as text, `?` for a dynamic one."""
    element = _SIGNED.get(element, element)
    if element not in ELEMENT_TYPES:
        raise ValueError(f"unknown element type {element}")
    shape = tuple(
        Dim(symbol=f"{name}_d{axis}") if size == "?" else int(size)
        for axis, size in enumerate(dims)
    )
    return TensorType(name=name, dtype=element, shape=shape)


def scalar(text: str, name: str) -> TensorType | None:
    """The type of a number that is passed on its own; None for what is none."""
    dtype = _SCALARS.get(text)
    return TensorType(name=name, dtype=dtype, shape=(), passed="scalar") if dtype else None


def loaded_scopes(text: str) -> tuple[str, ...]:
    """The scopes from which a program loads parameters in the forms of the phases after flow.

    There the names are operands: the first text that a load takes is its scope.
    """
    constants = dict(_RODATA.findall(text))
    known: dict[str, str] = {}
    found: dict[str, None] = {}
    for line in text.splitlines():
        if value := _TEXT.search(line):
            known[value[1]] = value[2] or constants.get(value[3] or "", "")
        elif load := _LOADS.search(line):
            operands = [part.strip() for part in (load[1] or load[2] or "").split(",")]
            found |= dict.fromkeys([known[o] for o in operands if known.get(o)][:1])
    return tuple(found)
