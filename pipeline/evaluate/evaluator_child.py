"""Evaluates functions with numpy, in a child process: see `pipeline.torch_dialect.evaluate`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from iree_pilot.pipeline.errors import UsageError
from iree_pilot.pipeline.evaluate.interpreter import Interpreter
from iree_pilot.pipeline.evaluate.machine.elements import Array, Unknown
from iree_pilot.pipeline.evaluate.machine.machine import Mode
from iree_pilot.pipeline.program import tensors
from iree_pilot.pipeline.program.program import ELEMENT_TYPES, Reference, Tensor
from iree_pilot.pipeline.torch_dialect.evaluate import (
    UNFINISHED,
    Evaluation,
    EvaluationWork,
    Stage,
    made_place,
    paired,
)

EVALUATOR = f"numpy {np.__version__}, operation by operation"
Key = tuple[int, int]


def evaluated(works: list[EvaluationWork], directory: Path) -> Iterator[Stage]:
    """Evaluates functions one after the other; each stage of each outlives what ends the child."""
    for number, work in enumerate(works):
        for evaluation in stages(work):
            yield Stage(number, evaluation)


def stages(work: EvaluationWork) -> Iterator[Evaluation]:
    """Evaluations of a function so far: in its own types, then in float64, then perturbed if it
    rounds to 8-bit floats."""
    made_place(work)
    own, precise = _Evaluated(work, "out"), _Evaluated(work, "precise")
    try:
        interpreter = Interpreter(Path(work.mlir), work.archives, work.scopes)
        own.evaluate(interpreter, Mode())
    except (Unknown, UsageError) as why:
        yield Evaluation(why=str(why), values=paired(own.values, {}), skipped=own.passed)
        return
    reference = Reference(outputs=own.outputs, evaluator=own.evaluator, note=UNFINISHED)
    first = next(iter((own.skipped or {}).values()), "")
    done = Evaluation(
        reference=reference, values=paired(own.values, {}), skipped=own.passed, why=first
    )
    yield done
    try:
        precise.evaluate(interpreter, Mode(wide=True))
        found = _forms(interpreter, work, precise)
    except Unknown as fault:
        note = f"no double-precision reference: {fault}"
        reference = msgspec.structs.replace(reference, note=note)
        yield msgspec.structs.replace(done, reference=reference)
        return
    reference = msgspec.structs.replace(
        reference, precise=precise.outputs, precise_dtype="f64", note="", **found
    )
    values = paired(own.values, precise.values)
    yield msgspec.structs.replace(done, reference=reference, values=values)


def _forms(interpreter: Interpreter, work: EvaluationWork, precise: _Evaluated) -> dict[str, Any]:
    """Other results that are as correct as the precise one, if there are any: see `Reference`."""
    unwatched = msgspec.structs.replace(work, values=())

    def once(name: str, mode: Mode) -> tuple[Tensor, ...]:
        other = _Evaluated(unwatched, name)
        other.evaluate(interpreter, mode)
        return other.outputs

    found: dict[str, Any] = {}
    if precise.rounded:
        found["perturbed"] = once("perturbed", Mode(wide=True, perturbed=True))
    if precise.small:
        found["flushed"] = once("flushed", Mode(wide=True, flushing=True))
    if precise.choices:
        found["retied"] = (once("backwards", Mode(wide=True, backwards=True)),)
        found["ties"] = precise.choices
    return found


class _Evaluated:
    """One evaluation: the function's outputs and the values wanted, in files of a name.

    skipped: where all values are wanted, what was passed over as it is not evaluated, and why.
    """

    def __init__(self, work: EvaluationWork, name: str) -> None:
        self._work = work
        self._place = Path(work.place)
        self._name = name
        self._wanted = None if work.values is None else set(work.values)
        self.skipped: dict[int, str] | None = {} if self._wanted is None else None
        self.values: dict[Key, Tensor] = {}
        self.outputs: tuple[Tensor, ...] = ()
        self.evaluator = EVALUATOR
        self.rounded = self.small = False
        self.choices: tuple[str, ...] = ()

    @property
    def passed(self) -> tuple[int, ...]:
        return tuple(self.skipped or ())

    def evaluate(self, interpreter: Interpreter, mode: Mode) -> None:
        """Raises Unknown."""
        work, name = self._work, self._name
        given = [_loaded(tensor) for tensor in work.inputs]
        made = interpreter.run(work.function, given, mode, self._record, self.skipped)
        self.rounded, self.small, self.choices = made.rounded, made.small, made.choices
        helpers = "".join(f", with {name}" for name in sorted(made.used))
        self.evaluator = f"{EVALUATOR}{helpers}"
        types = work.outputs or (None,) * len(made.outputs)
        if len(types) != len(made.outputs):
            raise Unknown(f"it returns {len(made.outputs)} tensors where {len(types)} are known of")
        self.outputs = tuple(
            tensors.save(_outward(v, dtype), self._place, f"data/{work.function}.{name}{i}.bin")
            for i, (v, dtype) in enumerate(zip(made.outputs, types, strict=True))
        )

    def _record(self, op: int, result: int, value: Array, element: str) -> None:
        if self._wanted is None or (op, result) in self._wanted:
            file = f"values/{op}.{result}.{self._name}.bin"
            narrow = element if element in ELEMENT_TYPES else None
            self.values[op, result] = tensors.save(_outward(value, narrow), self._place, file)


def _loaded(tensor: Tensor) -> Array | None:
    """An input; None for a null reference."""
    if tensor.passed == "null":
        return None
    values = tensors.load(Path(), tensor)
    return values.astype(np.int8) if ELEMENT_TYPES[tensor.dtype].bits else values


def _outward(value: Array, dtype: str | None) -> Array:
    """An output as its type is: IR has no signs, and holds narrow integers in bytes."""
    value = np.ascontiguousarray(value).reshape(value.shape)
    if dtype is None or ELEMENT_TYPES[dtype].family != "int":
        return value
    if ELEMENT_TYPES[dtype].bits:
        mask = (1 << ELEMENT_TYPES[dtype].bits) - 1
        value = value & mask if dtype.startswith("u") else value
        return value.astype(tensors.numpy_dtype(dtype))
    return value.view(tensors.numpy_dtype(dtype))
