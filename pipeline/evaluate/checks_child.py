"""Makes MLIR return what it checks, in a child process: the bindings may abort.

Of each check the value comes back (of integers narrower than a byte, as bytes), and in a tensor of
booleans where what is expected of it holds: equal bit by bit but for the sign of zero and what a
NaN carries, or as near as the operation allows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from iree.compiler import ir

from iree_pilot.pipeline.evaluate.checks import CheckRewriting, CheckRewritten, Expected
from iree_pilot.pipeline.evaluate.machine import constants, elements
from iree_pilot.pipeline.evaluate.machine.elements import Unknown
from iree_pilot.pipeline.evaluate.machine.ir import read_type
from iree_pilot.pipeline.program import tensors
from iree_pilot.pipeline.toolchain import dialects
from iree_pilot.pipeline.torch_dialect import literals

_CMPI, _CMPF = ("eq", "ne"), {"oeq": 1, "ole": 5, "une": 13, "uno": 14}


def returning(rewriting: CheckRewriting, place: Path) -> CheckRewritten:
    """Rewrites the MLIR where it is."""
    mlir, directory = Path(rewriting.mlir), Path(rewriting.directory)
    dialects.complete()
    with ir.Context() as context, ir.Location.unknown():
        context.allow_unregistered_dialects = True
        raw = mlir.read_bytes()
        module = ir.Module.parse(raw if raw.startswith(b"ML\xefR") else raw.decode())
        blobs = literals.resources(module.operation.get_asm())
        found = CheckRewritten()
        added, left = {}, []
        for op in [o.operation for o in module.body.operations]:
            if op.name not in ("func.func", "util.func") or not op.regions[0].blocks:
                continue
            name = op.attributes["sym_name"].value
            try:
                made = _Function(op, directory, blobs).returned()
            except Unknown as why:
                left.append(f"what {name} checks is not compared: {why}")
                continue
            if made:
                added[name] = tuple(made)
        found = CheckRewritten(added=added, left=tuple(left))
        if added:
            module.operation.verify()
            mlir.write_text(str(module), encoding="utf-8")
    return found


class _Function:
    """One function whose checks become results."""

    def __init__(self, op: Any, directory: Path, blobs: dict[str, bytes]) -> None:
        self._op = op
        self._name = op.attributes["sym_name"].value
        self._directory = directory
        self._blobs = blobs
        self._count = 0

    def returned(self) -> list[Expected]:
        blocks = list(self._op.regions[0].blocks)
        checks = [o.operation for b in blocks for o in b.operations if _is_check(o.operation)]
        if any(_is_check(inner) for b in blocks for o in b.operations for inner in _inside(o)):
            raise Unknown("a check is inside of another operation")
        if not checks:
            return []
        if len(blocks) != 1:
            raise Unknown("it has branches")
        values: list[Any] = []
        expected: list[Expected] = []
        for number, check in enumerate(checks):
            with ir.InsertionPoint(check):
                for name, value, tensor in self._of(check):
                    values.append(value)
                    expected.append(
                        Expected(
                            name=f"check{number}.{name}", value=tensor, everywhere=name == "holds"
                        )
                    )
            check.erase()
        self._return(blocks[0], values)
        return expected

    def _return(self, block: Any, values: list[Any]) -> None:
        last = list(block.operations)[-1].operation
        results = [*last.operands, *values]
        with ir.InsertionPoint(last):
            ir.Operation.create(last.name, operands=results)
        last.erase()
        kind = ir.TypeAttr(self._op.attributes["function_type"]).value
        types = [*kind.results, *(v.type for v in values)]
        self._op.attributes["function_type"] = ir.TypeAttr.get(
            ir.FunctionType.get(list(kind.inputs), types)
        )
        if "res_attrs" in self._op.attributes:
            held = [*self._op.attributes["res_attrs"], *(ir.DictAttr.get({}) for _ in values)]
            self._op.attributes["res_attrs"] = ir.ArrayAttr.get(held)

    def _of(self, check: Any) -> list[tuple[str, Any, Any]]:
        """(name, value, what it must be if that is a constant) of what a check returns."""
        name, value = check.name.removeprefix("check.expect_"), check.operands[0]
        kind = read_type(value.type)
        if not kind.element:
            raise Unknown(f"{check.name} of a value of type {kind.text}")
        element = elements.of(kind.element)
        whole = element.family in ("int", "bool")
        if name in ("true", "false", "all_true"):
            if not kind.is_tensor:
                value = _boxed(value, element)
            zero = _number(value.type, 0)
            unequal = "ne" if whole else "une"
            return [("holds", _compare("eq" if name == "false" else unequal, value, zero), None)]
        tensor = None
        if name.endswith("_const"):
            other = check.attributes["value"]
            if "almost" not in name:
                tensor = self._saved(constants.values(other, self._blobs)[0])
        else:
            other = check.operands[1]
        found = [("value", _in_bytes(value, element), tensor)]
        if tensor is None or not whole:  # else it is exact by itself
            other = _constant(other) if name.endswith("_const") else other
            found.append(("holds", _holds(check, value, other, whole), None))
        return found

    def _saved(self, values: Any) -> Any:
        self._count += 1
        file = f"data/{self._name}.expected{self._count}.bin"
        return tensors.save(values, self._directory, file)


def _holds(check: Any, value: Any, other: Any, whole: bool) -> Any:
    """True, for each element or the whole, if a value is as expected."""
    if "almost" in check.name:
        return _near(value, other, *(check.attributes[n].value for n in ("atol", "rtol")))
    if whole:
        return _compare("eq", value, other)
    nan = [_compare("uno", one, one) for one in (value, other)]
    both = _create("arith.andi", nan, nan[0].type)
    return _create("arith.ori", [_compare("oeq", value, other), both], both.type)


def _is_check(op: Any) -> bool:
    return bool(op.name.startswith("check.expect_"))


def _inside(op: Any) -> list[Any]:
    """The operations in the regions of one, at any depth."""
    found = []
    for region in op.operation.regions:
        for block in region.blocks:
            for inner in block.operations:
                found += [inner.operation, *_inside(inner)]
    return found


def _create(name: str, operands: list[Any], kind: Any, **attributes: Any) -> Any:
    op = ir.Operation.create(name, results=[kind], operands=operands, attributes=attributes)
    return op.results[0]


def _constant(attribute: Any) -> Any:
    return _create("arith.constant", [], attribute.type, value=attribute)


def _boxed(value: Any, element: Any) -> Any:
    """A number as a tensor of rank 0; a boolean as a byte."""
    if element.family == "bool":
        value = _create("arith.extui", [value], ir.IntegerType.get_signless(8))
    return _create("tensor.from_elements", [value], ir.RankedTensorType.get([], value.type))


def _number(kind: Any, value: float) -> Any:
    """A constant of a type, the same in each element."""
    shaped = isinstance(kind, ir.RankedTensorType)
    element = kind.element_type if shaped else kind
    if isinstance(element, ir.FloatType):
        one: Any = ir.FloatAttr.get(element, float(value))
    else:
        one = ir.IntegerAttr.get(element, int(value))
    if not shaped:
        return _constant(one)
    if not kind.has_static_shape:
        raise Unknown(f"a check of a tensor of dynamic shape {kind}")
    return _constant(ir.DenseElementsAttr.get_splat(kind, one))


def _compare(predicate: str, a: Any, b: Any) -> Any:
    boolean = ir.IntegerType.get_signless(1)
    if isinstance(a.type, ir.RankedTensorType):
        boolean = ir.RankedTensorType.get(a.type.shape, boolean)
    floats = predicate in _CMPF
    number = _CMPF[predicate] if floats else _CMPI.index(predicate)
    attribute = ir.IntegerAttr.get(ir.IntegerType.get_signless(64), number)
    name = "arith.cmpf" if floats else "arith.cmpi"
    return _create(name, [a, b], boolean, predicate=attribute)


def _near(a: Any, b: Any, atol: float, rtol: float) -> Any:
    """|a - b| <= atol + rtol * |b|, or both the same infinity or NaN."""
    kind = a.type
    far = _create("math.absf", [_create("arith.subf", [a, b], kind)], kind)
    size = _create("math.absf", [b], kind)
    allowed = _create("arith.mulf", [size, _number(kind, rtol)], kind)
    allowed = _create("arith.addf", [allowed, _number(kind, atol)], kind)
    near = _compare("ole", far, allowed)
    same = _compare("oeq", a, b)
    nan = _create("arith.andi", [_compare("uno", a, a), _compare("uno", b, b)], near.type)
    return _create("arith.ori", [_create("arith.ori", [near, same], near.type), nan], near.type)


def _in_bytes(value: Any, element: Any) -> Any:
    """Integers narrower than a byte as bytes: they are passed in and out so."""
    if element.family != "int" or element.bits >= 8:
        return value
    kind = ir.RankedTensorType.get(value.type.shape, ir.IntegerType.get_signless(8))
    return _create("arith.extsi", [value], kind)
