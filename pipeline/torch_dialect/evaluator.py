"""A function in the torch dialect carried out by PyTorch, operation by operation. Imports torch.

Runs in `pipeline.torch_dialect.torch_child`: the bindings may abort on IR that they do not like.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.utils import _pytree as pytree

from iree_pilot.pipeline.frontends.mlir import mlir_text
from iree_pilot.pipeline.frontends.reference import choices as choosing
from iree_pilot.pipeline.frontends.reference import conversions, draws
from iree_pilot.pipeline.frontends.reference.choices import Choices, OperatorCall, Pointing
from iree_pilot.pipeline.frontends.reference.widening import (
    NotEvaluable,
    Widening,
    rounding,
    widen,
)
from iree_pilot.pipeline.program import archive, torch_tensors
from iree_pilot.pipeline.torch_dialect import calls, literals
from iree_pilot.pipeline.torch_dialect.calls import CannotWrite
from iree_pilot.pipeline.torch_dialect.walk import TENSOR, TRANSPARENT, VIEWS, Walk, symbol

#: Numbers that a function takes or returns on its own; IREE passes torch's float in f32.
_NUMBERS = {"!torch.int": torch.int64, "!torch.float": torch.float32, "!torch.bool": torch.bool}
_TENSORS = ("!torch.vtensor<", "!torch.tensor<", "tensor<")
#: Operations whose results the program does not compute.
_GIVE = ("torch.vtensor.literal", "util.global.load")
_DOUBLE = re.compile(r"tensor<[^>]*\bf64>")
#: Exceptions of PyTorch for operands that do not fit.
_REFUSALS = (RuntimeError, NotImplementedError, TypeError, ValueError, IndexError, ArithmeticError)

#: Callback for each tensor: (the operation's position in the function, number of result, value).
Record = Callable[[int, int, torch.Tensor], None]


class How(NamedTuple):
    """Mode of evaluating a function.

    widening: computes in its stead, in double precision. choices: follow it. skipped: gets the
    operations that PyTorch does not know or carry out, by position, and why.
    """

    widening: Widening | None = None
    choices: Choices | None = None
    skipped: dict[int, str] | None = None


class Returned(NamedTuple):
    """Results of a function, the pointing of those that are indices, and the operations that draw
    random numbers for each."""

    outputs: list[torch.Tensor]
    points: list[Pointing | None]
    drawn: list[tuple[str, ...]]


class TorchModule:
    """A module of MLIR, and the archives that hold its parameters. doubles: it has tensors of f64.

    Raises NotEvaluable for what the bindings cannot parse.
    """

    def __init__(self, file: Path, archives: Sequence[str]) -> None:

        try:
            self.module, text = literals.parsed(file)
        except ValueError as fault:
            raise NotEvaluable(str(fault)) from fault
        self.blobs = literals.resources(text)
        self.doubles = bool(_DOUBLE.search(text))
        self.held = {n: (Path(a), e) for a in archives for n, e in archive.read(Path(a)).items()}
        self.globals: dict[str, Any] = {}
        self.functions: dict[str, Any] = {}
        for op in (o.operation for o in self.module.body.operations):
            if "sym_name" in op.attributes:
                found = self.globals if op.name == "util.global" else self.functions
                found[op.attributes["sym_name"].value] = op

    def run(
        self,
        function: str,
        inputs: Sequence[torch.Tensor],
        record: Record,
        how: How,
    ) -> Returned:
        """Results of the function. Random numbers are the same in each run.

        What does not depend on operations that are skipped is computed all the same. Raises
        NotEvaluable with the first of them where there is no list of them, and where what is
        returned depends on one.
        """
        walk = FunctionEvaluation(self, how)
        torch.manual_seed(0)
        try:
            with torch.no_grad():
                return walk.run(self._block(function), inputs, record)
        except CannotWrite as fault:
            raise NotEvaluable(f"{fault.what}: {fault.why}") from fault

    def _block(self, function: str) -> Any:
        op = self.functions.get(function)
        if op is None or op.name != "func.func" or not len(op.regions[0].blocks):
            what = f"there is no func.func {function} in it"
            raise NotEvaluable(f"{what}: other dialects are not evaluated")
        blocks = list(op.regions[0].blocks)
        if len(blocks) != 1:
            raise NotEvaluable(f"{function} is not one block of operations")
        return blocks[0]

    def parameter(self, name: str, walk: Walk) -> torch.Tensor:
        """The value that a global begins with."""
        declared = self.globals[name]
        if "initial_value" not in declared.attributes:
            raise CannotWrite(f"the global {name}", "it has no value to begin with")
        value = declared.attributes["initial_value"]
        parameters = mlir_text.parameters(str(value))
        if parameters is None:
            return _constant(value, declared.attributes["type"].value, walk)
        (wanted,) = parameters.tensors
        if wanted.name not in self.held:
            raise NotEvaluable(f"the values of its parameter {wanted.name} are not at hand")
        file, entry = self.held[wanted.name]
        if entry.offset is None:
            raise NotEvaluable(f"{file} does not write out its parameter {wanted.name}")
        return torch_tensors.mapped(file, wanted.dtype, wanted.shape, entry.offset)


def _constant(value: Any, type_: Any, walk: Walk) -> torch.Tensor:
    """A constant of MLIR as a tensor of that type. Raises CannotWrite."""
    tensor = walk.tensor(type_)
    shape, dtype = [d or 0 for d in tensor.shape], tensor.dtype
    one = literals.splat(value)
    if one is not None and not dtype.is_complex:
        # PyTorch fills narrow types only by conversion.
        return torch.full(shape, one, dtype=_fillable(dtype)).to(dtype)
    try:
        return literals.values(value, dtype, walk.blobs).reshape(shape)  # type: ignore[no-any-return]
    except (KeyError, *_REFUSALS) as fault:
        raise CannotWrite(f"a constant {value.type}", "its values cannot be read") from fault


def _fillable(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype.is_floating_point and dtype.itemsize == 1 else dtype


class FunctionEvaluation(Walk):
    """One evaluation of a function: its values are tensors, numbers, None, text, lists of these.

    A tensor keeps its own type until it is used, so that few are held in double precision at once.
    """

    def __init__(self, module: Any, how: How) -> None:
        super().__init__(module.blobs)
        self._widening, self._choices, self._skipped = how
        self._module = module
        self._globals: dict[str, torch.Tensor] = {}
        self._returned = Returned([], [], [])
        #: Target of each MLIR value that is an index, and the random operations that values depend
        #: on; these by the names of globals too.
        self._points: dict[Any, Pointing] = {}
        self._drawn: dict[Any, tuple[str, ...]] = {}
        self._given: set[Any] = set()

    def run(self, block: Any, inputs: Sequence[torch.Tensor], record: Record) -> Returned:
        ops = [op.operation for op in block.operations]
        last = {value: index for index, op in enumerate(ops) for value in op.operands}
        for argument, value in zip(block.arguments, inputs, strict=True):
            held = value if self._widening is None else self._widening.moved(value)
            self.values[argument] = value.item() if str(argument.type) in _NUMBERS else held
            self._given.add(argument)
        for index, op in enumerate(ops):
            if not self._carried(index, op):
                continue
            self._pass_on(op)
            for number, result in enumerate(op.results):
                if result in self.values and str(result.type).startswith(_TENSORS):
                    record(index, number, self._tensor(result))
            for value in (*op.operands, *op.results):
                if last.get(value, index) <= index:
                    self.values.pop(value, None)
        return self._returned

    def _carried(self, index: int, op: Any) -> bool:
        """Carries an operation out; False for one that is skipped, or takes what one would give."""
        if self._widening is not None and len(op.results):
            self._widening.unit = self._rounding(op.results[0].type)
        if self._skipped is None:
            self.operation(op)
            return True
        if op.name != "func.return" and any(value not in self.values for value in op.operands):
            return False
        try:
            self.operation(op)
        except (CannotWrite, NotEvaluable) as fault:
            said = f"{fault.what}: {fault.why}" if isinstance(fault, CannotWrite) else str(fault)
            self._skipped[index] = said
            return False
        except KeyError:
            (first, *_) = self._skipped.values()
            raise NotEvaluable(first) from None
        return True

    def _rounding(self, type_: Any) -> float:
        return rounding(self.tensor(type_).dtype if TENSOR.fullmatch(str(type_)) else None)

    def drawn(self, value: Any) -> tuple[str, ...]:
        """The operations that draw random numbers which a value of MLIR depends on."""
        return self._drawn.get(value, ())

    def device(self, name: str) -> torch.device:
        return torch.device(name)

    def literal(self, op: Any) -> torch.Tensor:
        return _constant(op.attributes["value"], op.results[0].type, self)

    def load(self, op: Any) -> torch.Tensor:
        name = symbol(op)
        if name in self._globals:
            return self._globals[name]
        found: torch.Tensor = self._module.parameter(name, self)
        return found

    def store(self, op: Any, value: Any) -> None:
        self._globals[symbol(op)] = value

    def overwrite(self, target: Any, value: Any) -> None:
        self.values[target] = value

    def passed(self, op: Any, value: Any) -> Any:
        """Same value; integers of a signless type are reinterpreted in torch's type."""
        if not isinstance(value, torch.Tensor) or value.dtype.is_floating_point:
            return value
        wanted = self.tensor(op.results[0].type).dtype
        same = wanted == value.dtype or wanted.itemsize != value.dtype.itemsize
        return value if same or wanted == torch.bool else value.view(wanted)

    def unpack(self, op: Any, packed: Any) -> None:
        self.values.update(zip(op.results, packed, strict=True))

    def scalar(self, op: Any, name: str, operands: list[Any]) -> None:
        self.values[op.results[0]] = self._asked(name, lambda: calls.compute(name, operands))

    def call(self, op: Any, name: str, operator: Any, operands: list[Any]) -> None:
        if operator._schema.is_mutable:
            raise CannotWrite(name, "it writes into a tensor")
        if name in VIEWS:
            operands = [operands[0].contiguous(), *operands[1:]]
        args, kwargs = calls.arguments(operator, operands)
        if draws.draws(operator, args, kwargs) or draws.leaves_unwritten(operator):
            own = (name.removeprefix("torch.").removesuffix(".memory_format"),)
            self._drawn.update(dict.fromkeys(op.results, own))
        found, points = self._asked(name, lambda: self._chosen(op, operator, args, kwargs))
        results = [found] if len(op.results) == 1 else list(found)
        self._points.update((op.results[at], pointing) for at, pointing in points.items())
        for result, value in zip(op.results, results, strict=True):
            self.values[result] = value
            if self._widening is None:
                self._check(name, result, value)

    def _chosen(
        self, op: Any, operator: Any, args: list[Any], kwargs: dict[str, Any]
    ) -> tuple[Any, dict[int, Pointing]]:
        """(results of a call, the targets of those that are indices)."""

        def run(*args: Any, **kwargs: Any) -> Any:
            return self._carried_out(operator, args, kwargs)

        if self._choices is None:
            return run(*args, **kwargs), {}
        call = OperatorCall(operator, run, args, kwargs)
        followed = choosing.chooses(call) or conversions.rounds(operator)
        if self._widening is not None and followed:
            call = call._replace(args=pytree.tree_map(self._widening.given, args))
        first = op.operands[0] if len(op.operands) else None
        given = first in self._given
        found, points = self._choices.carried_out(call, given=given)
        if (known := choosing.passed_on(call, self._points.get(first))) is not None:
            points = {0: known}
        if given and choosing.moves(operator):
            self._given.update(op.results)
        return found, points

    def _pass_on(self, op: Any) -> None:
        """Notes which of an operation's results depend on random numbers, or are given."""
        transparent = op.name in TRANSPARENT and len(op.operands)
        if op.name in _GIVE or (transparent and op.operands[0] in self._given):
            self._given.update(op.results)
        if transparent and op.operands[0] in self._points:
            self._points[op.results[0]] = self._points[op.operands[0]]
        if op.name in draws.SHAPES_ONLY:
            return
        names = [name for value in op.operands for name in self._drawn.get(value, ())]
        if op.name == "util.global.load":
            names += self._drawn.get(symbol(op), ())
        if not names:
            return
        written: list[Any] = list(op.results)
        if op.name == "util.global.store":
            written = [symbol(op)]
        elif op.name == "torch.overwrite.tensor.contents":
            written = [op.operands[1]]
        for value in written:
            self._drawn[value] = tuple(dict.fromkeys((*self._drawn.get(value, ()), *names)))

    def _carried_out(self, operator: Any, args: Any, kwargs: Any) -> Any:
        if operator is torch.ops.prims.convert_element_type.default:
            # The same without Python's share in it, which begins with an import of seconds.
            operator, args, kwargs = torch.ops.aten._to_copy.default, args[:1], {"dtype": args[1]}
        if self._widening is None:
            return operator(*args, **kwargs)
        given = pytree.tree_map(self._widening.given, (args, kwargs))
        return self._widening(operator, operator, *given)

    def _asked(self, name: str, ask: Callable[[], Any]) -> Any:
        try:
            return ask()
        except _REFUSALS as fault:
            first = str(fault).splitlines()[:1] or [type(fault).__name__]
            raise CannotWrite(name, f"PyTorch says {first[0]}") from fault

    def _check(self, name: str, result: Any, value: Any) -> None:
        """PyTorch's result must be of the program's type, or the two mean different things."""
        if not isinstance(value, torch.Tensor) or not TENSOR.fullmatch(str(result.type)):
            return
        wanted = self.tensor(result.type)
        fits = len(wanted.shape) == value.dim() and all(
            size in (None, own) for size, own in zip(wanted.shape, value.shape, strict=True)
        )
        if not fits or wanted.dtype != value.dtype:
            own = f"{list(value.shape)} of {value.dtype}"
            raise CannotWrite(name, f"PyTorch gives {own} where the program has {result.type}")

    def give_back(self, op: Any) -> None:
        self._returned = Returned(
            [self._tensor(value) for value in op.operands],
            [self._points.get(value) for value in op.operands],
            [self.drawn(value) for value in op.operands],
        )

    def _tensor(self, value: Any) -> torch.Tensor:
        """Current tensor of a value that has a tensor's type."""
        known = self.values[value]
        if str(value.type) in _NUMBERS:  # returned on its own
            return torch.tensor(known, dtype=_NUMBERS[str(value.type)])
        if not isinstance(known, torch.Tensor):  # a number that stands for a tensor
            known = torch.tensor(known, dtype=self.tensor(value.type).dtype)
        return known if self._widening is None else widen(known)
