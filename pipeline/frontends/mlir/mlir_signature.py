"""Signatures of an MLIR program's entry functions, read from its generic form.

A function of tensors says so in its type. From phase `abi` on functions take buffer views; what
those hold is said by the declaration that IREE keeps for reflection, else by the operations that
import and export them.
"""

from __future__ import annotations

import re

import msgspec

from iree_pilot.pipeline.frontends.mlir import mlir_text
from iree_pilot.pipeline.frontends.mlir.generic import (
    GenericFunction,
    GenericOp,
    functions,
    parenthesised,
)
from iree_pilot.pipeline.program.program import Dim, Function, TensorType

_DECLARATION = re.compile(
    r'iree\.abi\.declaration = "\w*sync func @(?:[^"(]|\\")*(\((?:[^"\\]|\\.)*)"'
)
#: The runtime's tools give such a function its fences when they are told so in its reflection.
_FENCED = re.compile(r'iree\.reflection = \{.*iree\.abi\.model = "coarse-fences"')
#: Attribute with the type of a buffer's contents, by the operation that takes the buffer;
#: without one it is the result's type.
_IMPORTS = {
    "hal.tensor.import": "target_encoding",
    "stream.tensor.import": "result_encoding",
    "hal.tensor.alias": "",
}
_EXPORTS = ("hal.tensor.export", "stream.tensor.export")
_VIEWS = ("!hal.buffer_view", "!vm.ref<!hal.buffer_view>")
_BUFFERS = ("!hal.buffer", "!vm.ref<!hal.buffer>")
_FENCES = ("!hal.fence", "!vm.ref<!hal.fence>")
#: `iree_hal_element_type_t`: a kind of number in the upper byte, its bits in the lowest.
_KINDS = {0x10: "i", 0x11: "si", 0x12: "ui", 0x21: "f", 0x22: "bf"}
_CODES = {
    0x13000008: "i1",
    0x23000040: "complex<f32>",
    0x23000080: "complex<f64>",
    0x24000008: "f8E5M2",
    0x25000008: "f8E4M3FN",
    0x26000008: "f8E5M2FNUZ",
    0x27000008: "f8E4M3FNUZ",
    0x28000008: "f8E8M0FNU",
}
_CONSTANT = re.compile(r"arith\.constant|vm\.const\.i(32|64)(\.zero)?")
_NUMBER = re.compile(r"-?\d+")


class Signatures(msgspec.Struct, frozen=True, kw_only=True):
    """The entry functions that the runtime's tools can call, and why they cannot call others."""

    functions: tuple[Function, ...] = ()
    others: dict[str, str] = {}


def read(generic: str) -> Signatures:
    """The signatures of a module's public functions."""
    return of_bodies(functions(generic))


def of_bodies(bodies: dict[str, GenericFunction]) -> Signatures:
    """The signatures of the public functions among these.

    A function beside its own asynchronous form (`main` and `main$async`) stands for both.
    """
    found: list[Function] = []
    others: dict[str, str] = {}
    public = {body.exported: body for body in bodies.values() if body.exported is not None}
    for name, body in public.items():
        if name.startswith("__") or name.removesuffix("$async") in public.keys() - {name}:
            continue
        try:
            found.append(_SignatureReader(body, bodies).function(name))
        except ValueError as why:
            others[name] = str(why)
    return Signatures(functions=tuple(found), others=others)


class _SignatureReader:
    def __init__(self, body: GenericFunction, bodies: dict[str, GenericFunction]) -> None:
        self._body = body
        self._bodies = bodies
        stated = _DECLARATION.search(body.attributes)
        self._declared = declared(stated[1].replace('\\"', '"')) if stated else ([], [])

    def function(self, name: str) -> Function:
        """Raises ValueError for types that the runtime's tools cannot pass."""
        body = self._body
        inputs = body.inputs
        if _FENCED.search(body.attributes):
            inputs = tuple(t for t in inputs if t not in _FENCES)
        return Function(
            name=name,
            inputs=tuple(self._input(i, text) for i, text in enumerate(inputs)),
            outputs=tuple(self._output(i, text) for i, text in enumerate(body.outputs)),
        )

    def _input(self, index: int, text: str) -> TensorType:
        name = f"arg{index}"
        if text in _FENCES:
            return TensorType(name=name, dtype="i1", shape=(), passed="null")
        return self._type(text, name, "takes", self._declared[0], index)

    def _output(self, index: int, text: str) -> TensorType:
        return self._type(text, f"result{index}", "returns", self._declared[1], index)

    def _type(self, text: str, name: str, does: str, declared: list[str], index: int) -> TensorType:
        stated = declared[index] if index < len(declared) else ""
        if text in (*_VIEWS, *_BUFFERS):
            find = of_argument if does == "takes" else of_result
            held = _tensor(stated, name) or find(self._body, index, name, self._bodies)
            if text in _VIEWS:
                unknown = TensorType(
                    name=name, dtype="ui8", shape=(Dim(symbol=name),), passed="opaque"
                )
                return held or unknown
            if held:
                return msgspec.structs.replace(held, passed="buffer")
            raise ValueError(f"it {does} a {text} of no stated size")
        kind = mlir_text.scalar(stated, name) or mlir_text.scalar(text, name)
        kind = kind or _tensor(text, name)
        if kind is None:
            raise ValueError(f"it {does} {text}, which iree-run-module cannot pass")
        return kind


def _tensor(text: str, name: str) -> TensorType | None:
    try:
        return mlir_text.parse_type(text, name)
    except ValueError:
        return None


def declared(text: str) -> tuple[list[str], list[str]]:
    """The types of `(%input0: tensor<4xf32>) -> (%output0: i32)`."""
    inputs, rest = parenthesised(text)
    rest = rest.removeprefix(" -> ")
    outputs = parenthesised(rest)[0] if rest.startswith("(") else []
    return [_after_name(t) for t in inputs], [_after_name(t) for t in outputs]


def _after_name(text: str) -> str:
    return text.partition(": ")[2].partition(" {")[0]


def of_argument(
    body: GenericFunction, index: int, name: str, bodies: dict[str, GenericFunction]
) -> TensorType | None:
    """Type of the buffer view in an argument, inferred from its uses; None if unknown."""
    if index >= len(body.arguments):
        return None
    value = body.arguments[index]
    for op in body.ops:
        if value not in op.operands:
            continue
        if op.kind in _IMPORTS:
            text = op.attribute(_IMPORTS[op.kind]) or op.tail.rpartition("-> ")[2]
            found = _tensor(text, name)
        elif _does(op, "hal.buffer_view.assert") and op.operands[0] == value:
            # In the VM a message comes first.
            found = _view(body, op.operands[2 if op.kind.startswith("vm") else 1 :], name)
        elif op.callee in bodies and op.callee != body.name:
            inner = bodies[op.callee]
            found = of_argument(inner, op.operands.index(value), name, bodies)
        else:
            continue
        if found is not None:
            return found
    return None


def of_result(
    body: GenericFunction, index: int, name: str, bodies: dict[str, GenericFunction]
) -> TensorType | None:
    """Type of the buffer view that is returned there; None if it cannot be inferred."""
    if index >= len(body.returned):
        return None
    value = body.returned[index]
    if value in body.arguments:
        return of_argument(body, body.arguments.index(value), name, bodies)
    op, number = body.makers.get(value, (None, 0))
    if op is None:
        return None
    if op.kind in _EXPORTS:
        return _tensor(op.attribute("source_encoding"), name)
    if _does(op, "hal.buffer_view.create"):
        return _view(body, op.operands[3:], name)
    if op.callee in bodies and op.callee != body.name:
        return of_result(bodies[op.callee], number, name, bodies)
    return None


def _does(op: GenericOp, name: str) -> bool:
    return op.kind == name or op.callee == name


def _view(body: GenericFunction, operands: tuple[str, ...], name: str) -> TensorType | None:
    """A type of (element type, encoding, sizes...) as operands."""
    if len(operands) < 2:
        return None
    element = _element(body, operands[0])
    sizes = [constant(body, value) for value in operands[2:]]
    try:
        return mlir_text.tensor(element, ["?" if s is None else str(s) for s in sizes], name)
    except ValueError:
        return None


def _element(body: GenericFunction, value: str) -> str:
    op, _ = body.makers.get(value, (None, 0))
    if op is not None and op.kind == "hal.element_type":
        return op.attribute("type")
    code = constant(body, value)
    if code is None:
        return ""
    return _CODES.get(code) or f"{_KINDS.get(code >> 24, '?')}{code & 0xFF}"


def constant(body: GenericFunction, value: str) -> int | None:
    """The integer that a value always is; None for what is not constant."""
    op, _ = body.makers.get(value, (None, 0))
    if op is None or not _CONSTANT.fullmatch(op.kind):
        return None
    found = _NUMBER.match(op.attribute("value"))
    return int(found[0]) if found else 0 if op.kind.endswith(".zero") else None
