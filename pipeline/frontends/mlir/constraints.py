"""Constraints of a function on its sizes and numbers, and inputs that satisfy them.

A program states its demands as assertions over the dimensions of its arguments (`cf.assert`,
`torch.runtime.assert`), as what may be assumed of them (`util.assume.int`), and by tying shapes
(`flow.tensor.tie_shape`). They are read from the generic form, evaluated as numbers, and solved by
trying the constants that they are compared with.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Sequence

import msgspec

from iree_pilot.pipeline.frontends.inputs.examples import DYNAMIC, size
from iree_pilot.pipeline.frontends.mlir.generic import GenericFunction, GenericOp
from iree_pilot.pipeline.program.program import Dim, Function, MadeUp

#: The size of a dimension of an argument, or (None) the number that an argument is.
Unknown = tuple[int, int | None]
Values = dict[Unknown, int]

_INTEGER = re.compile(r"-?\d+")
_ASSERTIONS = {"cf.assert": "msg", "torch.runtime.assert": "message"}
_ASSUMED = re.compile(r"(umin|umax|udiv) = (\d+)")
#: Operations that give back the tensor that they take.
_SAME = re.compile(
    r"tensor\.cast|hal\.tensor\.import|flow\.tensor\.(tie_shape|transfer)|util\.optimization_barrier"
    r"|torch_c\.(to|from)_builtin_tensor|torch\.copy\.to_(v)?tensor|torch\.tensor_static_info_cast"
)
_COPIES = re.compile(
    r"arith\.(index_cast(ui)?|ext[su]i|trunci)|torch_c\.(to|from)_i(64|1)|util\.assume\.int"
)
_SIZES = ("tensor.dim", "hal.buffer_view.dim", "torch.aten.size.int")
_COMPARE: tuple[Callable[[int, int], bool], ...] = (
    lambda a, b: a == b,
    lambda a, b: a != b,
    *[lambda a, b: a < b, lambda a, b: a <= b, lambda a, b: a > b, lambda a, b: a >= b] * 2,
)
_BINARY: dict[str, Callable[[int, int], int]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a // b,
    "rem": lambda a, b: a % b,
    "max": max,
    "min": min,
    "and": lambda a, b: a & b,
    "or": lambda a, b: a | b,
    "xor": lambda a, b: a ^ b,
    "eq": lambda a, b: int(a == b),
    "ne": lambda a, b: int(a != b),
    "lt": lambda a, b: int(a < b),
    "le": lambda a, b: int(a <= b),
    "gt": lambda a, b: int(a > b),
    "ge": lambda a, b: int(a >= b),
}
_BINARY_NAMES = re.compile(
    r"arith\.(?P<arith>add|sub|mul|max|min|and|or|xor|rem|div|ceildiv|floordiv)(s|u)?i"
    r"|torch\.aten\.(?P<torch>add|sub|mul|eq|ne|lt|le|gt|ge|floordiv|remainder)\.int"
)
_TORCH_NAMES = {"floordiv": "div", "remainder": "rem"}
#: Sizes that are tried: up to this, and so many.
_LARGEST = 1 << 16
_MOST_SIZES = 48
_MOST_TRIES = 20_000


class Demand(msgspec.Struct, frozen=True, kw_only=True):
    """A constraint on the inputs: holds(values) is None if that is unknown.

    unknowns: what it depends on; nothing for one that no input changes. constants: those in it.
    """

    message: str
    unknowns: frozenset[Unknown]
    constants: frozenset[int]
    holds: Callable[[Values], bool | None]


def demands(body: GenericFunction) -> tuple[Demand, ...]:
    """All that a function demands of its inputs before it computes with them."""
    reader = _ConstraintReader(body)
    return tuple(reader.demands())


#: Operations that index a tensor by numbers of another one, and the dimensions that those are for.
_INDEXED = {"iree_linalg_ext.gather": 0, "tosa.gather": 1, "torch.aten.embedding": 0}
_OWN_INDICES = ("linalg.index", "arith.constant", "affine.apply")
_SHAPED = re.compile(r"(?:tensor<((?:[\d?]+x)*)|!torch\.vtensor<\[([\d?,]*)\])")


def index_limit(body: GenericFunction) -> int | None:
    """The smallest dimension that numbers of an input may index; None where none do.

    Out of it what is read is nobody's promise, so numbers that are made up must stay within.
    """
    found: list[int] = []
    for op in body.ops:
        shape = _SHAPED.search(op.tail)
        if shape is None:
            continue
        words = [w for w in re.split("[x,]", shape[1] or shape[2] or "") if w]
        sizes = [DYNAMIC if word == "?" else int(word) for word in words]
        if op.kind == "tensor.extract":
            pairs = zip(sizes, op.operands[1:], strict=False)
            found += [size for size, value in pairs if not _is_own(body, value)]
        elif op.kind in _INDEXED and len(sizes) > _INDEXED[op.kind]:
            found.append(sizes[_INDEXED[op.kind]])
    return min(found, default=None)


def _is_own(body: GenericFunction, value: str) -> bool:
    """True if an index is that of the iteration, and not one that was read."""
    op, _ = body.makers.get(value, (None, 0))
    return op is not None and op.kind in _OWN_INDICES


def stated(bodies: dict[str, GenericFunction], name: str) -> GenericFunction | None:
    """The function that states the demands: the asynchronous form where there are two."""
    return bodies.get(f"{name}$async") or bodies.get(name)


def solve(body: GenericFunction, function: Function, known: MadeUp | None = None) -> MadeUp | None:
    """Sizes and numbers for which all demands hold that can be evaluated.

    None where those that are `known` (or usual) do already, or none are found.
    """
    known = known or MadeUp()
    wanted = [d for d in demands(body) if d.unknowns]
    symbols = _symbols(function)
    free = [u for u in dict.fromkeys(u for d in wanted for u in ordered(d)) if u in symbols]
    values = _start(function, known)
    if not wanted or not free or _violated(wanted, values) == 0:
        return None
    sizes = _candidates(wanted, values)
    found = _search(wanted, free, values, sizes)
    if found is None:
        return None
    dims = {symbols[u]: found[u] for u in free if u[1] is not None}
    numbers = {symbols[u]: found[u] for u in free if u[1] is None}
    return msgspec.structs.replace(known, sizes=known.sizes | dims, numbers=known.numbers | numbers)


def ordered(demand: Demand) -> list[Unknown]:
    """The unknowns of a demand in a fixed order."""
    return sorted(demand.unknowns, key=lambda u: (u[0], -1 if u[1] is None else u[1]))


def _symbols(function: Function) -> dict[Unknown, str]:
    """The name of each unknown that may be chosen."""
    found: dict[Unknown, str] = {}
    for index, want in enumerate(function.inputs):
        if want.passed == "scalar":
            found[index, None] = want.name
        found |= {
            (index, axis): d.symbol for axis, d in enumerate(want.shape) if isinstance(d, Dim)
        }
    return found


def _start(function: Function, known: MadeUp) -> Values:
    """The sizes of the inputs as they would be made."""
    values: Values = {}
    for index, want in enumerate(function.inputs):
        if want.name in known.numbers:
            values[index, None] = known.numbers[want.name]
        values |= {(index, axis): size(d, known) for axis, d in enumerate(want.shape)}
    return values


def _violated(wanted: Sequence[Demand], values: Values) -> int:
    # A number on its own is not known before it is chosen: a demand on it counts as violated.
    return sum(d.holds(values) is False or any(u not in values for u in d.unknowns) for d in wanted)


def _candidates(wanted: Sequence[Demand], values: Values) -> list[int]:
    """Values to try for an unknown, the constants of the demands first, 0 last: a tensor without
    elements has nothing to compare."""
    stated = sorted({c for d in wanted for c in d.constants})
    near = [c + step for c in stated for step in (0, 1, -1)]
    products = [a * b for a, b in itertools.combinations_with_replacement(stated, 2)]
    own = list(values.values())
    usual = [2 * one for one in own] + [1, 2, 4, 8, 16, 32, 64, 3, 5, 6, 12]
    tried = dict.fromkeys([*near, *own, *usual, *products])
    return [*[one for one in tried if 0 < one <= _LARGEST][:_MOST_SIZES], 0]


def _search(
    wanted: Sequence[Demand], free: Sequence[Unknown], values: Values, sizes: Sequence[int]
) -> Values | None:
    """Changes one unknown at a time, or two, as long as fewer demands are violated."""
    left, tries = _violated(wanted, values), 0
    while left:
        best: tuple[int, Values] | None = None
        for changed in _changes(wanted, free, sizes):
            tries += 1
            if tries > _MOST_TRIES:
                return None
            trial = values | changed
            count = _violated(wanted, trial)
            if count < left and (best is None or count < best[0]):
                best = count, trial
                if count == 0:
                    break
        if best is None:
            return None
        left, values = best
    return values


def _changes(
    wanted: Sequence[Demand], free: Sequence[Unknown], sizes: Sequence[int]
) -> Iterator[Values]:
    involved = [u for u in free if any(u in d.unknowns for d in wanted)]
    for unknown in involved:
        yield from ({unknown: one} for one in sizes)
    for one, two in itertools.combinations(involved, 2):
        yield from ({one: a, two: b} for a in sizes for b in sizes)


class _ConstraintReader:
    def __init__(self, body: GenericFunction) -> None:
        self._body = body
        self._arguments = {value: index for index, value in enumerate(body.arguments)}

    def demands(self) -> Iterator[Demand]:
        for op in self._body.ops:
            if op.kind in _ASSERTIONS and op.operands:
                message = op.attribute(_ASSERTIONS[op.kind]).strip('"')
                yield self._demand(message, op.operands[0], lambda got: bool(got))
            elif op.kind == "util.assume.int":
                yield from self._assumed(op)
            elif op.kind == "flow.tensor.tie_shape":
                yield from self._tied(op)

    def _demand(self, message: str, value: str, right: Callable[[int], bool]) -> Demand:
        unknowns: set[Unknown] = set()
        constants: set[int] = set()
        self._leaves(value, unknowns, constants, set())

        def holds(values: Values) -> bool | None:
            got = self._value(value, values, {})
            return None if got is None else right(got)

        return Demand(
            message=message,
            unknowns=frozenset(unknowns),
            constants=frozenset(constants),
            holds=holds,
        )

    def _assumed(self, op: GenericOp) -> Iterator[Demand]:
        groups = re.findall(r"\[([^\[\]]*)\]", op.attributes)
        for value, group in zip(op.operands, groups, strict=False):
            bounds = {name: int(number) for name, number in _ASSUMED.findall(group)}
            low, high = bounds.get("umin", 0), bounds.get("umax", _LARGEST)
            factor = bounds.get("udiv", 1) or 1
            made = self._demand(
                f"assumed: {low} to {high}, a multiple of {factor}",
                value,
                lambda got, a=low, b=high, f=factor: a <= got <= b and got % f == 0,  # type: ignore[misc]
            )
            more = {low, high, factor, -(-low // factor) * factor}
            yield msgspec.structs.replace(made, constants=made.constants | more)

    def _tied(self, op: GenericOp) -> Iterator[Demand]:
        """A tied tensor has the sizes that are given beside it."""
        at = self._argument(op.operands[0])
        shape = re.search(r"tensor<((?:[\d?]+x)*)", op.tail)
        if at is None or shape is None:
            return
        axes = [axis for axis, d in enumerate(shape[1].split("x")[:-1]) if d == "?"]
        for axis, value in zip(axes, op.operands[1:], strict=False):
            own: Unknown = (at, axis)
            made = self._demand("shapes are tied", value, bool)

            def holds(values: Values, value: str = value, own: Unknown = own) -> bool | None:
                got = self._value(value, values, {})
                return None if got is None or own not in values else got == values[own]

            yield msgspec.structs.replace(made, unknowns=made.unknowns | {own}, holds=holds)

    def _argument(self, value: str) -> int | None:
        """The argument that a tensor is."""
        while value not in self._arguments:
            op, _ = self._body.makers.get(value, (None, 0))
            if op is None or not op.operands or not _SAME.fullmatch(op.kind):
                return None
            value = op.operands[0]
        return self._arguments[value]

    def _size(self, op: GenericOp) -> Unknown | None:
        """The dimension that an operation asks for."""
        at = self._argument(op.operands[0])
        axis = (
            self._value(op.operands[1], {}, {})
            if len(op.operands) > 1
            else _number(op.attribute("index"))
        )
        return None if at is None or axis is None else (at, axis)

    def _leaves(
        self, value: str, unknowns: set[Unknown], constants: set[int], seen: set[str]
    ) -> None:
        """All that a value is computed from: data of tensors counts as the tensor's own number."""
        if value in seen:
            return
        seen.add(value)
        if value in self._arguments:
            unknowns.add((self._arguments[value], None))
            return
        op, _ = self._body.makers.get(value, (None, 0))
        if op is None:
            return
        if op.kind in _SIZES:
            size = self._size(op)
            if size is not None:
                unknowns.add(size)
                return
        number = _constant(op)
        if number is not None:
            constants.add(number)
        for operand in op.operands:
            self._leaves(operand, unknowns, constants, seen)

    def _value(self, value: str, values: Values, memo: dict[str, int | None]) -> int | None:
        if value not in memo:
            memo[value] = self._computed(value, values, memo)
        return memo[value]

    def _computed(self, value: str, values: Values, memo: dict[str, int | None]) -> int | None:
        if value in self._arguments:
            return values.get((self._arguments[value], None))
        op, number = self._body.makers.get(value, (None, 0))
        if op is None:
            return None
        if (constant := _constant(op)) is not None:
            return constant
        if op.kind in _SIZES:
            size = self._size(op)
            return values.get(size) if size is not None else None
        if _COPIES.fullmatch(op.kind):
            return self._value(op.operands[number], values, memo)
        given = [self._value(operand, values, memo) for operand in op.operands]
        if op.kind == "arith.select" and len(given) == 3 and given[0] is not None:
            return given[1] if given[0] else given[2]
        known = [g for g in given if g is not None]
        if len(known) != 2 or len(given) != 2:
            return None
        return _combined(op, known[0], known[1])


def _combined(op: GenericOp, a: int, b: int) -> int | None:
    if op.kind == "arith.cmpi":
        predicate = _number(op.attribute("predicate"))
        return None if predicate is None else int(_COMPARE[predicate](a, b))
    match = _BINARY_NAMES.fullmatch(op.kind)
    name = (match["arith"] or match["torch"]) if match else ""
    name = _TORCH_NAMES.get(name, name)
    if name in ("div", "rem", "ceildiv") and b == 0:
        return None
    if name == "ceildiv":
        return -(-a // b)
    combine = _BINARY.get(name)
    return combine(a, b) if combine else None


def _constant(op: GenericOp) -> int | None:
    if op.kind not in ("arith.constant", "torch.constant.int", "torch.constant.bool"):
        return None
    text = op.attribute("value")
    if text.startswith(("true", "false")):
        return int(text.startswith("true"))
    return _number(text)


def _number(text: str) -> int | None:
    match = _INTEGER.match(text)
    return int(match[0]) if match and not text.startswith("dense") else None
