"""Carries out the operations of a module, one after the other, on numpy arrays.

What each of them computes is in the tables of `pipeline.evaluate.dialects`. What MLIR leaves
undefined is filled with a number and noted: a function whose results depend on it has none.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
import numpy as np

from iree_pilot.pipeline.evaluate.machine import elements
from iree_pilot.pipeline.evaluate.machine.elements import Array, ElementKind, Unknown
from iree_pilot.pipeline.evaluate.machine.ir import RETURNS, Block, Operation, Type, uses
from iree_pilot.pipeline.numerics import noise

if TYPE_CHECKING:
    from iree_pilot.pipeline.evaluate.machine.module import Module

#: The values of a function by their numbers; None for what is no number.
Env = dict[int, Any]
Handler = Callable[["Machine", Operation, Env], Sequence[Any]]
#: Callback for each tensor: (the operation's position in the function, number of the result,
#: value, its element type by name).
Record = Callable[[int, int, Array, str], None]

_DEEPEST = 64
_SMALLEST = noise.smallest("f32")
#: Relative perturbation before rounding to 8 bits: see `program.Reference`.
_PERTURBATION = 2.0**-12


class Mode(msgspec.Struct, frozen=True, kw_only=True):
    """Mode of evaluating a function.

    wide: with all floats in double precision, only those of 8 bits and fewer still round.
    perturbed: what is rounded to those is first moved at random. flushing: what is below the
    smallest normal f32 becomes 0. backwards: of equal values the last is chosen, where a program
    chooses. filler: what stands where the program leaves something undefined.
    """

    wide: bool = False
    perturbed: bool = False
    flushing: bool = False
    backwards: bool = False
    filler: int = 0


class Budget(Protocol):
    """Limits of an evaluation."""

    def spend(self, elements: int) -> None:
        """Accounts for `elements` new elements. Raises Unknown if time or memory do not suffice."""


class EvaluationLimits:
    """A deadline in seconds, and the most elements of one array."""

    def __init__(self, seconds: float, most: int) -> None:
        self._end = time.monotonic() + seconds
        self._seconds = seconds
        self._most = most

    def spend(self, elements: int) -> None:
        if elements > self._most:
            raise Unknown(
                f"too much to evaluate: an array of {elements} elements, where {self._most} fit"
            )
        if time.monotonic() > self._end:
            raise Unknown(f"too much to evaluate: it takes more than {self._seconds:.0f} s")


class Ended(msgspec.Struct, frozen=True):
    """End of a block: its terminator, and the values that it passes on."""

    op: Operation | None
    values: list[Any]


class Machine:
    """One evaluation of a module's functions.

    skipped: where it is there, what is not evaluated of the function that is called is passed over:
    positions of operations, and why. used: packages that helped. rounded: whether something was
    rounded to 8 bits or fewer. unclear: what was undefined in it, as reasons.
    """

    def __init__(
        self, module: Module, operations: Mapping[str, Handler], mode: Mode, budget: Budget
    ) -> None:
        self.module = module
        self.mode = mode
        self.budget = budget
        self.skipped: dict[int, str] | None = None
        self.used: set[str] = set()
        self.rounded = self.small = False
        self.choices: dict[str, None] = {}
        self.unclear: dict[str, None] = {}
        self.globals: dict[str, Any] = {}
        #: Values that nothing was written to yet.
        self.blank: set[int] = set()
        #: Condition that guards a vectorised operation, if there is one.
        self.guard: Any = None
        #: State that a table of operations keeps between operations, by the table's name.
        self.helpers: dict[str, Any] = {}
        #: The indices of the structured operations around, innermost last.
        self.indices: list[Sequence[Array]] = []
        self._operations = operations
        self._random = np.random.default_rng(0)
        self._depth = 0

    # -- types

    def element(self, kind: Type) -> ElementKind:
        """Raises Unknown for a type without elements that are evaluated."""
        if not kind.element:
            raise Unknown(f"values of type {kind.text} are not evaluated")
        return elements.of(kind.element)

    def dtype(self, element: ElementKind) -> Any:
        """numpy's type that such elements are computed in."""
        return element.wide if self.mode.wide else element.dtype

    def held(self, values: Array, element: ElementKind) -> Array:
        """Values of the program's own type as they are computed with."""
        return values.astype(self.dtype(element), copy=False)

    def finished(self, op: Operation, made: Array) -> Array:
        """A result that was computed in a wider type, in the operation's own."""
        element = self.element(op.types[0])
        return elements.fit(made.astype(self.dtype(element)), element)

    def rounds(self, values: Array, element: ElementKind) -> Array:
        """Floats converted to another type: in double precision only narrow ones round."""
        to = self.dtype(element)
        if not self.mode.wide:
            self.rounded |= element.narrow
            return values.astype(to)
        if not element.narrow:
            return values.astype(to)
        self.rounded = True
        if self.mode.perturbed:
            values = values * (1 + _PERTURBATION * self._random.standard_normal(values.shape))
        return values.astype(element.dtype).astype(to)

    def flushed(self, value: Any, element: str) -> Any:
        """A value in double precision, watched for what a device may flush to 0."""
        if not isinstance(value, np.ndarray) or value.dtype != np.float64 or element == "f64":
            return value
        if not self.mode.flushing and self.small:
            return value
        below = (np.abs(value) < _SMALLEST) & (value != 0)
        self.small |= bool(below.any())
        return np.where(below, 0.0, value) if self.mode.flushing else value

    def undefined(self, why: str) -> int:
        """Notes what the program leaves undefined; gives what to fill it with."""
        self.unclear[why] = None
        return self.mode.filler

    def spend(self, *shape: int) -> None:
        count = 1
        for size in shape:
            if size < 0:
                raise Unknown(f"a tensor has a size of {size}")
            count *= size
        self.budget.spend(count)

    def shape(self, kind: Type, sizes: Sequence[Any]) -> list[int]:
        """A tensor's shape, whose dynamic dimensions are given in order."""
        rest = iter(sizes)
        shape = [int(next(rest)) if size is None else size for size in kind.shape or ()]
        self.spend(*shape)
        return shape

    # -- control

    def call(self, name: str, arguments: Sequence[Any], record: Record | None = None) -> list[Any]:
        """Results of a function of the module."""
        blocks, successors = self.module.function(name)
        if self._depth > _DEEPEST:
            raise Unknown("its functions call each other too deeply")
        self._depth += 1
        try:
            block, values = blocks[0], list(arguments)
            known: Env = {}
            while True:
                # More arguments than inputs are fences.
                values += [None] * (len(block.arguments) - len(values))
                known.update(zip(block.arguments, values, strict=True))
                skipped = self.skipped if self._depth == 1 else None
                ended = self.run(block, known, record, keep=len(blocks) > 1, skipped=skipped)
                if ended.op is None or ended.op.name in RETURNS:
                    return ended.values
                block, values = self._branch(ended, successors(ended.op), known)
                self.budget.spend(1)
        finally:
            self._depth -= 1

    def _branch(
        self, ended: Ended, successors: Sequence[Block], known: Env
    ) -> tuple[Block, list[Any]]:
        op = ended.op
        assert op is not None
        if op.name == "cf.br":
            return successors[0], ended.values
        if op.name == "cf.cond_br":
            first = op.integers("operandSegmentSizes")[1]
            condition, values = bool(ended.values[0]), ended.values[1:]
            if condition:
                return successors[0], values[:first]
            return successors[1], values[first:]
        raise Unknown(f"{op.name} is not evaluated")

    def run(
        self,
        block: Block,
        known: Env,
        record: Record | None = None,
        *,
        keep: bool = False,
        skipped: dict[int, str] | None = None,
    ) -> Ended:
        """Carries out a block's operations; `known` loses what is not used any more.

        keep: nothing is lost, as other blocks may use it. skipped: gets what is not evaluated.
        """
        for index, op in enumerate(block.ops):
            name = op.name
            if name in RETURNS or name in ("cf.br", "cf.cond_br", "scf.condition"):
                if skipped and any(v not in known for v in op.operands):
                    raise Unknown(next(iter(skipped.values())))
                return Ended(op, [known[v] for v in op.operands])
            if skipped and any(v not in known for v in uses(op)):
                continue
            try:
                results = self.operation(op, known)
            except Unknown as why:
                if skipped is None:
                    raise
                skipped[index] = str(why)
                continue
            for number, (value, result) in enumerate(zip(op.results, results, strict=True)):
                kind = op.types[number]
                known[value] = result = (
                    self.flushed(result, kind.element) if self.mode.wide else result
                )
                if record is not None and isinstance(result, np.ndarray) and kind.is_tensor:
                    record(index, number, result, kind.element)
            if not keep:
                for value in block.last_uses[index]:
                    known.pop(value, None)
        return Ended(None, [])

    def inside(self, block: Block, known: Env, arguments: Sequence[Any]) -> list[Any]:
        """Values that a block inside of an operation passes on."""
        return self.body(block, known, arguments).values

    def body(self, block: Block, known: Env, arguments: Sequence[Any]) -> Ended:
        inner = {value: known[value] for value in block.captured if value in known}
        inner.update(zip(block.arguments, arguments, strict=True))
        return self.run(block, inner)

    def operation(self, op: Operation, known: Env) -> Sequence[Any]:
        handler = self._operations.get(op.name) or self._operations.get(
            op.name.partition(".")[0] + ".*"
        )
        if handler is None:
            raise Unknown(f"{op.name} is not evaluated")
        own = op.name in self.module.overwriting or op.name.startswith("linalg.")
        if self.blank and not own:
            for value in op.operands:
                if value in self.blank:
                    self.undefined("what is in a tensor that nothing was written to")
        try:
            return handler(self, op, known)
        except KeyError as fault:
            raise Unknown(f"{op.name} lacks {fault}") from fault
        except (ValueError, TypeError, IndexError, AttributeError, ArithmeticError) as fault:
            raise Unknown(f"{op.name}: {fault}") from fault
        except MemoryError as fault:
            raise Unknown(f"too much to evaluate: {op.name} needs more memory") from fault


def array(values: Any) -> Array:
    """An operand that must be a number or tensor."""
    if values is None:
        raise Unknown("it takes what is no tensor")
    return values


def operands(op: Operation, known: Env) -> list[Array]:
    """The operands' values. Raises Unknown for what is no number."""
    found = [known.get(value) for value in op.operands]
    for value, kind in zip(found, op.taken, strict=True):
        if value is None:
            raise Unknown(f"{op.name} of a value of type {kind.text} is not evaluated")
    return found
