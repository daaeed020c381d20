"""Evaluates functions of a module: in the types of the program, in float64, and perturbed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np

from iree_pilot.pipeline.evaluate.dialects import (
    control,
    dispatches,
    linalg_ext,
    onnx_ops,
    stablehlo,
    stablehlo_reductions,
    structured,
    tensor,
    torch_ops,
    tosa,
)
from iree_pilot.pipeline.evaluate.machine import elements
from iree_pilot.pipeline.evaluate.machine.elements import Array, Unknown
from iree_pilot.pipeline.evaluate.machine.machine import (
    Budget,
    EvaluationLimits,
    Handler,
    Machine,
    Mode,
    Record,
)
from iree_pilot.pipeline.evaluate.machine.module import Module

__all__ = ["Interpreter", "InterpreterOutcome", "Unknown"]

OPERATIONS: Mapping[str, Handler] = {
    **structured.OPERATIONS,
    **linalg_ext.OPERATIONS,
    **tensor.OPERATIONS,
    **torch_ops.OPERATIONS,
    **onnx_ops.OPERATIONS,
    **tosa.OPERATIONS,
    **stablehlo.OPERATIONS,
    **stablehlo_reductions.OPERATIONS,
    **dispatches.OPERATIONS,
    **control.OPERATIONS,
}
_OVERWRITING = (
    structured.OVERWRITING | linalg_ext.OVERWRITING | tensor.OVERWRITING | control.OVERWRITING
)
#: Limits of an evaluation; there are two or three of each function.
_SECONDS = 60.0
_MOST_ELEMENTS = 1 << 27
_OTHER_FILLER = 1


class InterpreterOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """Result of an evaluation: see `Machine` for used, rounded, small and choices."""

    outputs: list[Array]
    used: frozenset[str]
    rounded: bool
    small: bool = False
    choices: tuple[str, ...] = ()


class Interpreter:
    """A module, ready to be evaluated. Raises Unknown for what cannot be parsed."""

    def __init__(
        self,
        file: Path,
        archives: Sequence[str] = (),
        scopes: Mapping[str, Sequence[str]] | None = None,
        *,
        seconds: float = _SECONDS,
    ) -> None:
        self._module = Module(file, archives, scopes)
        self._seconds = seconds

    def run(
        self,
        function: str,
        inputs: Sequence[Array | None],
        mode: Mode | None = None,
        record: Record | None = None,
        skipped: dict[int, str] | None = None,
    ) -> InterpreterOutcome:
        """Results of a function. Raises Unknown, with the operation and the reason.

        skipped: gets the operations that are not evaluated, by position, and why; what does not
        depend on them is computed all the same.
        Where something is undefined, it is filled in two ways: what comes out must be the same.
        """
        mode = mode or Mode()
        machine, outputs = self.once(function, inputs, mode, record, skipped)
        if machine.unclear and not mode.wide:
            other = msgspec.structs.replace(mode, filler=_OTHER_FILLER)
            _, again = self.once(function, inputs, other, None, skipped)
            if any(not same(a, b) for a, b in zip(outputs, again, strict=True)):
                reasons = ", ".join(machine.unclear)
                raise Unknown(f"its results depend on what MLIR leaves undefined: {reasons}")
        return InterpreterOutcome(
            outputs=outputs,
            used=frozenset(machine.used),
            rounded=machine.rounded,
            small=machine.small,
            choices=tuple(machine.choices),
        )

    def once(
        self,
        function: str,
        inputs: Sequence[Array | None],
        mode: Mode,
        record: Record | None,
        skipped: dict[int, str] | None = None,
    ) -> tuple[Machine, list[Array]]:
        """(machine of one evaluation, results of the function)."""
        from iree.compiler import ir

        module = self._module
        module.overwriting = _OVERWRITING
        budget: Budget = EvaluationLimits(self._seconds, _MOST_ELEMENTS)
        with module.context, ir.Location.unknown(), np.errstate(all="ignore"):
            machine = Machine(module, OPERATIONS, mode, budget)
            machine.skipped = skipped
            name = module.entry(function)
            types = module.function(name)[0][0].types
            faults = control.initial(machine)
            try:
                given = [
                    _given(values, types[i].element if i < len(types) else "", machine)
                    for i, values in enumerate(inputs)
                ]
                outputs = machine.call(name, given, record)
            except Unknown as why:
                if faults:
                    raise Unknown(f"{why} (an initializer: {faults[0]})") from why
                raise
        return machine, [np.asarray(v) for v in outputs if v is not None]


def _given(values: Array | None, element: str, machine: Machine) -> Array | None:
    """An input as IR takes it, whose integers have no sign unless their type says so."""
    if values is None:
        return None
    unsigned = element.startswith("ui")
    if values.dtype.kind == ("i" if unsigned else "u"):
        values = values.view(f"{'u' if unsigned else ''}int{values.itemsize * 8}")
    if values.dtype.kind in "iu" and element:
        return elements.fit(values, elements.of(element))
    if machine.mode.wide and values.dtype.kind == "c":
        return values.astype(np.complex128)
    if machine.mode.wide and elements.is_float(values):
        own = "f64" if values.dtype == np.float64 else element
        return machine.flushed(values.astype(np.float64), own)
    return values


def same(a: Array, b: Array) -> bool:
    """True if two results are the same, bit by bit but for what a NaN carries."""
    if a.shape != b.shape:
        return False
    if a.tobytes() == b.tobytes():
        return True
    if a.dtype.kind in "biu":
        return False
    kind = np.complex128 if a.dtype.kind == "c" else np.float64
    return bool(np.array_equal(a.astype(kind), b.astype(kind), equal_nan=True))
