"""Simpler shapes, types and constants, carried out on IR. Imports `iree.compiler.ir`.

A program whose shapes do not fit together fails too, and proves nothing. The bindings verify what
most dialects demand; torch's operations have no such verifier, so their shapes are inferred.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

from iree_pilot.repro.ir import symbols
from iree_pilot.repro.reducer.simplify import Aspect, Proposal, Survey

#: Shapes, as builtin types spell them and as torch's do; numbers on their own.
_SHAPE = re.compile(r"(?<=[<:])(?:(?:\d+|\?)x)+(?=[A-Za-z!])|(?<=tensor<\[)[\d,?]+(?=\])")
_TORCH_SHAPE = re.compile(r"(?<=tensor<\[)[\d,?]+(?=\])")
_NUMBER = re.compile(_SHAPE.pattern + r"|(?<![\w.%@#\"-])\d+(?![\w.\"])")
_SIZE = re.compile(r"\d+|\?")
_FLOAT = re.compile(r"(?:\b|(?<=x))(?:f64|f16|bf16)\b")
#: Attributes whose numbers are positions and not sizes.
_POSITIONS = re.compile(r"dim|perm|ax[ei]s|segment|reassociation|indices|position|ordinal|map")
_STRUCTURE = {"sym_name", "function_type", "sym_visibility", "value", "type", "initial_value"}
_FUNCTIONS = ("func.func", "util.func")
_BINDINGS = ("torch.bind_symbolic_shape",)
#: Codes of floating-point types in torch's operations, and that of f32.
_CODES, _F32 = {5, 7, 15}, 6
_CODED = ("convert_element_type", "to.dtype", "_to_copy")
#: Numbers up to this one can be codes of types or positions where no list of sizes takes them.
_CODE = 32
#: A constant of more numbers than this is hard to read.
_READABLE = 8
_INFERENCE = "builtin.module(torch-shape-refinement-pipeline)"
_FAILED_CHECK = "AssertionError"
_MARK = "iree_pilot.op"


def survey(module: Any) -> Survey:
    """Surveys what could be simpler in a module."""
    sizes: set[int] = set()
    aspects: set[Aspect] = set()
    seen: set[str] = set()
    constants = False
    for op in _walk(module.operation):
        for kind in [str(r.type) for r in op.results] + _argument_types(op):
            for shape in _shapes(kind):
                sizes |= {int(d) for d in shape if d != "?"}
                if "?" in shape:
                    aspects.add("dynamic")
            if _FLOAT.search(kind):
                aspects.add("types")
        if (size := _listed(op)) is not None:
            sizes.add(size)
        if _droppable(op):
            aspects.add("attributes")
        if _pure_constant(op):
            text = op.get_asm(enable_debug_info=False).partition("=")[2]
            if text in seen:
                aspects.add("attributes")
            seen.add(text)
        constants |= any(_has_values(attribute) for _, attribute in _attributes(op))
        if (literal := _literal(op)) is not None and not _is_splat(literal):
            aspects.add("arguments")
            if _count(str(literal.type)) > _READABLE:
                aspects.add("literals")
    return Survey(
        sizes=tuple(sorted(sizes)),
        aspects=tuple(sorted(aspects)),
        functions=symbols.lines(module),
        constants=constants,
    )


def carry_out(module: Any, proposal: Proposal) -> None:
    """Changes a module as proposed. Raises ValueError if its shapes do not fit together then."""
    before = module.operation.get_asm(print_generic_op_form=True)
    sizes = dict(proposal.sizes)
    if proposal.attributes:
        _drop_attributes(module)
        _merge_constants(module)
    if proposal.dynamic:
        _bind(module, proposal.dynamic)
    if proposal.arguments:
        _literals_to_arguments(module)
    if proposal.types:
        _recode(module)
    if sizes or proposal.dynamic or proposal.types or proposal.literals:
        _replace(module, _Change(sizes, proposal.dynamic, proposal.types), proposal.literals)
    if sizes or proposal.dynamic:
        _infer(module, before, sizes)
    _settle(module)


class _Change:
    """Change of types, and of numbers that are sizes."""

    def __init__(self, sizes: dict[int, int], dynamic: int, floats: bool) -> None:
        self.sizes = sizes
        self._sizes = {str(old): str(new) for old, new in sizes.items()}
        if dynamic:
            self._sizes["?"] = str(dynamic)
        self._floats = floats

    def type(self, text: str) -> str:
        return self._floated(_SHAPE.sub(self._resized, text))

    def numbers(self, text: str) -> str:
        """Text of an attribute, with the sizes in it replaced."""
        return self._floated(_NUMBER.sub(self._resized, text))

    def _resized(self, found: re.Match[str]) -> str:
        return _SIZE.sub(lambda m: self._sizes.get(m[0], m[0]), found[0])

    def _floated(self, text: str) -> str:
        return _FLOAT.sub("f32", text) if self._floats else text


def _replace(module: Any, change: _Change, splat: bool) -> None:
    from iree.compiler import ir

    def retyped(value: Any) -> None:
        old = str(value.type)
        new = change.type(old)
        if new != old:
            value.set_type(ir.Type.parse(new))

    for op in _walk(module.operation):
        for result in op.results:
            retyped(result)
        for region in op.regions:
            for block in region:
                for argument in block.arguments:
                    retyped(argument)
        for name, attribute in _attributes(op):
            new = _attribute(op, name, attribute, change, splat)
            if new is not None:
                op.attributes[name] = new


def _attribute(op: Any, name: str, attribute: Any, change: _Change, splat: bool) -> Any:
    """Replacement of an attribute; None if it stays."""
    from iree.compiler import ir

    old = str(attribute)
    if name in ("sym_name", "callee"):
        return None
    if old.startswith(("dense<", "dense_resource<")):
        return _constant(attribute, old, change, splat)
    match = re.fullmatch(r"(\d+) : (?:i\d+|index)", old)
    if match:
        size = int(match[1])
        if size not in change.sizes or not _is_size(op, name, size):
            return None
        return ir.Attribute.parse(old.replace(match[1], str(change.sizes[size]), 1))
    keep = _POSITIONS.search(name) is not None
    new = change.type(old) if keep else change.numbers(old)
    return None if new == old else ir.Attribute.parse(new)


def _constant(attribute: Any, old: str, change: _Change, splat: bool) -> Any:
    """A tensor constant of the new type; of fewer numbers, the first ones in each dimension."""
    from iree.compiler import ir

    kind = str(attribute.type)
    new = change.type(kind)
    one = _is_splat(attribute)
    many = not one and _count(kind) > _READABLE
    if new == kind and not (splat and many):
        return None
    body = old[: old.rindex(f" : {kind}")] if f" : {kind}" in old else old
    if one or (_count(new) == _count(kind) and not (splat and many)):
        return ir.Attribute.parse(f"{body} : {new}")
    kept = None if splat and many else _leading(body, kind, new)
    return ir.Attribute.parse(f"dense<{kept or _first(attribute, kind)}> : {new}")


def _leading(body: str, old: str, new: str) -> str | None:
    """The numbers of a written constant that a smaller shape keeps; None if they are not written,
    or a dimension is larger."""
    numbers = re.findall(r"[^\s,\[\]]+", body.removeprefix("dense<").removesuffix(">"))
    before, after = _dimensions(old), _dimensions(new)
    if len(numbers) != math.prod(before) or len(before) != len(after):
        return None
    if any(size > limit for size, limit in zip(after, before, strict=True)):
        return None

    def block(axis: int, start: int) -> str:
        if axis == len(after):
            return str(numbers[start])
        stride = math.prod(before[axis + 1 :])
        return f"[{', '.join(block(axis + 1, start + i * stride) for i in range(after[axis]))}]"

    return block(0, 0)


def _is_size(op: Any, name: str, size: int) -> bool:
    """True if an integer is a size, and not a position or a type."""
    if _POSITIONS.search(name):
        return False
    return size > _CODE or _listed(op) is not None


def _listed(op: Any) -> int | None:
    """The number that an operation makes for lists only, such as the sizes of a view."""
    from iree.compiler import ir

    if op.name != "torch.constant.int":
        return None
    users = {use.owner.operation.name for use in op.results[0].uses}
    number = ir.IntegerAttr(op.attributes["value"]).value
    return number if users == {"torch.prim.ListConstruct"} and number > 0 else None


def _infer(module: Any, before: str, sizes: dict[int, int]) -> None:
    """Gives torch's operations the shapes that their operands lead to.

    Raises ValueError if more checks of torch's own shape functions fail than in the text `before`
    of the program, and where a shape is not known to follow and an operand still says one of the
    `sizes` that were changed.
    """
    from iree.compiler import ir, passmanager

    torch = [op for op in _walk(module.operation) if op.name.startswith("torch.")]
    if not torch:
        return
    shadow = ir.Module.parse(_marked(module, torch))
    for op in _walk(shadow.operation):
        # What comes out of a list has the shape that is written: no inference leads there.
        if _MARK in op.attributes and op.operands and op.name != "torch.prim.ListUnpack":
            for result in op.results:
                kind = re.sub(r"vtensor<\[[\d,?]*\]", "vtensor<*", str(result.type))
                result.set_type(ir.Type.parse(kind))
    _settle(shadow)
    passmanager.PassManager.parse(_INFERENCE).run(shadow.operation)
    failing = str(shadow).count(_FAILED_CHECK)
    if failing and failing > _failed_checks(before):
        raise ValueError("the shapes do not fit together")
    for op in _walk(shadow.operation):
        if _MARK in op.attributes:
            original = torch[ir.IntegerAttr(op.attributes[_MARK]).value]
            for result, inferred in zip(original.results, op.results, strict=True):
                kind = _met(str(result.type), str(inferred.type))
                given = _integers(original)
                gone = {sizes[number] for number in given if number in sizes}.difference(given)
                if gone & _guessed(kind, str(inferred.type)):
                    raise ValueError(f"the shape of {original.name} comes from a number that stays")
                result.set_type(ir.Type.parse(kind))


def _integers(op: Any) -> list[int]:
    """The integers among an operation's operands: `n` of `torch.aten.fft_irfft` is one."""
    from iree.compiler import ir

    made = (v.owner for v in op.operands if not isinstance(v.owner, ir.Block))
    constants = (one for one in made if one.name == "torch.constant.int")
    return [ir.IntegerAttr(one.attributes["value"]).value for one in constants]


def _guessed(given: str, inferred: str) -> set[int]:
    """The sizes of a torch type that shape inference does not know."""
    found, known = _TORCH_SHAPE.search(given), _TORCH_SHAPE.search(inferred)
    if found is None:
        return set()
    sizes = found[0].split(",")
    dimensions = known[0].split(",") if known else ["?"] * len(sizes)
    unknown = (size for size, one in zip(sizes, dimensions, strict=False) if one == "?")
    return {int(size) for size in unknown if size.isdigit()}


def _marked(module: Any, ops: list[Any]) -> str:
    """The module's text, with each of these operations marked by its number."""
    from iree.compiler import ir

    number = ir.IntegerType.get_signless(64)
    for index, op in enumerate(ops):
        op.attributes[_MARK] = ir.IntegerAttr.get(number, index)
    text: str = module.operation.get_asm(print_generic_op_form=True, assume_verified=True)
    for op in ops:
        del op.attributes[_MARK]
    return text


def _met(given: str, inferred: str) -> str:
    """A torch type with the sizes that were inferred, and the given ones where nothing was."""
    new, old = _TORCH_SHAPE.search(inferred), _TORCH_SHAPE.search(given)
    if new is None or old is None:
        return given
    sizes, before = new[0].split(","), old[0].split(",")
    if len(sizes) == len(before):
        sizes = [o if s == "?" else s for s, o in zip(sizes, before, strict=True)]
    return given[: old.start()] + ",".join(sizes) + given[old.end() :]


def _failed_checks(program: str) -> int:
    """Number of checks of torch's shape functions that cannot be shown to hold."""
    from iree.compiler import ir, passmanager

    shadow = ir.Module.parse(program)
    passmanager.PassManager.parse(_INFERENCE).run(shadow.operation)
    return str(shadow).count(_FAILED_CHECK)


def _settle(module: Any) -> None:
    """Gives functions the types that their bodies now have."""
    from iree.compiler import ir

    for op in _walk(module.operation):
        if op.name not in _FUNCTIONS or not len(op.regions[0].blocks):
            continue
        block = op.regions[0].blocks[0]
        results = [v.type for v in list(op.regions[0].blocks[-1].operations)[-1].operands]
        kind = ir.FunctionType.get([a.type for a in block.arguments], results)
        op.attributes["function_type"] = ir.TypeAttr.get(kind)


def _drop_attributes(module: Any) -> None:
    for op in _walk(module.operation):
        for name in _droppable(op):
            del op.attributes[name]


def _droppable(op: Any) -> list[str]:
    """Attributes that no dialect's own: those whose name begins with another dialect's."""
    own = op.name.partition(".")[0]
    return [
        name
        for name, _ in _attributes(op)
        if "." in name and name.partition(".")[0] != own and name not in _STRUCTURE
    ]


def _merge_constants(module: Any) -> None:
    """Leaves one of several constants that are the same."""
    first: dict[tuple[int, str], Any] = {}
    for op in list(_walk(module.operation)):
        if _pure_constant(op) and op.name.startswith("torch.constant."):
            text = op.get_asm(enable_debug_info=False).partition("=")[2]
            kept = first.setdefault((hash(op.parent), text), op)
            if kept is not op:
                op.results[0].replace_all_uses_with(kept.results[0])
                op.erase()


def _bind(module: Any, size: int) -> None:
    """Takes away what says of dynamic dimensions how they belong together."""
    from iree.compiler import ir

    for op in list(_walk(module.operation)):
        if op.name in _BINDINGS:
            op.erase()
    for op in list(_walk(module.operation)):
        if op.name == "torch.symbolic_int":
            if list(op.results[0].uses):
                number = ir.IntegerAttr.get(ir.IntegerType.get_signless(64), size)
                with ir.InsertionPoint(op):
                    constant = ir.Operation.create(
                        "torch.constant.int",
                        results=[op.results[0].type],
                        attributes={"value": number},
                    )
                op.results[0].replace_all_uses_with(constant.results[0])
            op.erase()


def _literals_to_arguments(module: Any) -> None:
    from iree.compiler import ir

    for op in list(_walk(module.operation)):
        literal = _literal(op)
        if literal is None or _is_splat(literal) or op.parent.name not in _FUNCTIONS:
            continue
        block = op.parent.regions[0].blocks[0]
        argument = block.add_argument(op.results[0].type, ir.Location.unknown())
        op.results[0].replace_all_uses_with(argument)
        op.erase()
        for name in ("arg_attrs", "res_attrs"):
            if name in block.owner.attributes:
                del block.owner.attributes[name]


def _recode(module: Any) -> None:
    """Codes of floating-point types become that of f32."""
    from iree.compiler import ir

    number = ir.IntegerType.get_signless(64)
    for op in list(_walk(module.operation)):
        if not any(name in op.name for name in _CODED):
            continue
        for index, operand in enumerate(op.operands):
            maker = operand.owner
            if getattr(maker, "name", "") != "torch.constant.int":
                continue
            if ir.IntegerAttr(maker.attributes["value"]).value in _CODES:
                with ir.InsertionPoint(op):
                    constant = ir.Operation.create(
                        "torch.constant.int",
                        results=[operand.type],
                        attributes={"value": ir.IntegerAttr.get(number, _F32)},
                    )
                op.operands[index] = constant.results[0]


def _walk(op: Any) -> Iterator[Any]:
    """Operations nested in an operation, in order."""
    for region in op.regions:
        for block in region:
            for inner in list(block.operations):
                yield inner.operation
                yield from _walk(inner.operation)


def _attributes(op: Any) -> list[tuple[str, Any]]:
    return [(name, op.attributes[name]) for name in op.attributes]


def _argument_types(op: Any) -> list[str]:
    return [
        str(argument.type)
        for region in op.regions
        for block in region
        for argument in block.arguments
    ]


def _dimensions(kind: str) -> list[int]:
    """The sizes of a static type; () for anything else."""
    sizes = next(_shapes(kind), [])
    return [int(size) for size in sizes] if "?" not in sizes else []


def _shapes(kind: str) -> Iterator[list[str]]:
    for match in _SHAPE.finditer(kind):
        yield _SIZE.findall(match[0])


def _has_values(attribute: Any) -> bool:
    """True for the numbers of a constant that is no splat, of a function or a global."""
    return str(attribute).startswith("dense<") and not _is_splat(attribute)


def _pure_constant(op: Any) -> bool:
    return str(op.name).startswith("torch.constant.") or op.name == "arith.constant"


def _literal(op: Any) -> Any:
    """The attribute of a tensor constant; None for any other operation."""
    if op.name not in ("torch.vtensor.literal", "arith.constant") or "value" not in op.attributes:
        return None
    attribute = op.attributes["value"]
    return attribute if str(attribute).startswith(("dense<", "dense_resource<")) else None


def _is_splat(attribute: Any) -> bool:
    return bool(getattr(attribute, "is_splat", False))


def _count(kind: str) -> int:
    """The number of elements of a type; of a dynamic one, those of its static dimensions."""
    product = 1
    for shape in _shapes(kind):
        for size in shape:
            product *= int(size) if size.isdigit() else 1
    return product


def _first(attribute: Any, kind: str) -> str:
    """A constant's first number, as MLIR spells it; 1 where the bindings cannot read it."""
    element = re.split(r"[x<]", kind)[-1].rstrip(">")
    flag = element == "i1"
    try:
        value = attribute[0]
    except (TypeError, IndexError, RuntimeError, ValueError):
        value = 1.0 if re.match(r"b?f\d|tf32", element) else True if flag else 1
    return str(bool(value)).lower() if flag else repr(value)
