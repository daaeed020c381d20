"""Makes operations of the torch dialect beside those of a program. Uses `iree.compiler.ir`."""

from __future__ import annotations

import math
import re
import struct
from typing import Any

#: torch's numbers for its element types, by the types' names in MLIR.
CODES = {
    "f16": 5,
    "f32": 6,
    "f64": 7,
    "bf16": 15,
    "si32": 3,
    "si64": 4,
    "si16": 2,
    "si8": 1,
    "ui8": 0,
    "f8E4M3FNUZ": 26,
    "f8E5M2FNUZ": 25,
}
_VTENSOR = re.compile(r"!torch\.vtensor<\[([\d,?]*)\],(\w+)>")


class NotPossible(Exception):
    """The program has what the rewrite cannot deal with; the message says what."""


class Before:
    """Makes torch operations in front of one that is to be replaced."""

    def __init__(self, op: Any) -> None:
        from iree.compiler import ir

        self.op = op
        self._point = ir.InsertionPoint(op)

    def make(self, name: str, operands: list[Any], result: str) -> Any:
        from iree.compiler import ir

        kind = ir.Type.parse(result)
        with self._point, self.op.location:
            return ir.Operation.create(f"torch.{name}", results=[kind], operands=operands).results[
                0
            ]

    def _constant(self, name: str, kind: str, attributes: dict[str, str]) -> Any:
        from iree.compiler import ir

        with self._point, self.op.location:
            return ir.Operation.create(
                f"torch.constant.{name}",
                results=[ir.Type.parse(kind)],
                attributes={key: ir.Attribute.parse(text) for key, text in attributes.items()},
            ).results[0]

    def integer(self, value: int) -> Any:
        return self._constant("int", "!torch.int", {"value": f"{value} : i64"})

    def number(self, value: float) -> Any:
        text = f"{value:.17e}" if math.isfinite(value) else f"0x{_bits(value):016X}"
        return self._constant("float", "!torch.float", {"value": f"{text} : f64"})

    def boolean(self, value: bool) -> Any:
        return self._constant("bool", "!torch.bool", {"value": "true" if value else "false"})

    def none(self) -> Any:
        return self._constant("none", "!torch.none", {})

    def convert(self, value: Any, element: str) -> Any:
        """The tensor in another element type."""
        shape, own = tensor(value)
        if own == element:
            return value
        code = self.integer(CODES[element])
        return self.make("prims.convert_element_type", [value, code], vtensor(shape, element))

    def times(self, value: Any, factor: float) -> Any:
        shape, element = tensor(value)
        number = self.number(factor)
        return self.make("aten.mul.Scalar", [value, number], vtensor(shape, element))

    def replace(self, *values: Any) -> None:
        for result, value in zip(self.op.results, values, strict=True):
            result.replace_all_uses_with(value)
        self.op.erase()


def _bits(value: float) -> int:
    """The bits of a float64."""
    bits: int = struct.unpack("<Q", struct.pack("<d", value))[0]
    return bits


def tensor(value: Any) -> tuple[list[str], str]:
    """(dimensions, element type) of a torch tensor. Raises NotPossible for another value."""
    match = _VTENSOR.fullmatch(str(value.type))
    if match is None:
        raise NotPossible(f"{value.type} is no tensor of known rank")
    return [d for d in match[1].split(",") if d], match[2]


def vtensor(shape: list[str], element: str) -> str:
    return f"!torch.vtensor<[{','.join(shape)}],{element}>"


def element_of(value: Any) -> str:
    match = _VTENSOR.fullmatch(str(value.type))
    return match[2] if match else ""


def maker_of(value: Any) -> Any:
    """The operation that makes a value; None for an argument."""
    from iree.compiler import ir

    owner = value.owner
    return None if isinstance(owner, ir.Block) else getattr(owner, "operation", owner)


def literal(value: Any) -> Any:
    """The constant that a value is: None, a bool or a number. Raises NotPossible otherwise."""
    op = maker_of(value)
    if op is None or not op.name.startswith("torch.constant."):
        raise NotPossible("an argument that has to be a constant is computed by the program")
    if op.name == "torch.constant.none":
        return None
    return op.attributes["value"].value


class After(Before):
    """Makes torch operations behind one."""

    def __init__(self, op: Any) -> None:
        from iree.compiler import ir

        self.op = op
        block = op.parent.regions[0].blocks[0]
        behind = [inner.operation for inner in block.operations]
        self._point = ir.InsertionPoint(behind[behind.index(op) + 1])

    def cast(self, result: Any, own: str, wide: str) -> None:
        """The result becomes one of a wider type, and its users take it in its own."""
        from iree.compiler import ir

        shape, _ = tensor(result)
        uses = list(result.uses)
        result.set_type(ir.Type.parse(vtensor(shape, wide)))
        narrow = self.convert(result, own)
        for use in uses:
            use.owner.operands[use.operand_number] = narrow
