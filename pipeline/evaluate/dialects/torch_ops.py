"""Operations of the torch dialect beside others: carried out by PyTorch.

Between the passes of `convert-torch-to-linalg`, and beside operations of ONNX, functions hold both.
torch is imported when the first of them is met.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from iree_pilot.pipeline.evaluate.machine import elements
from iree_pilot.pipeline.evaluate.machine.elements import Array, Unknown
from iree_pilot.pipeline.evaluate.machine.ir import Operation
from iree_pilot.pipeline.evaluate.machine.machine import Env, Handler, Machine

_KEY = "torch"
_NUMBERS = ("!torch.int", "!torch.float", "!torch.bool")


class _Blobs:
    """Resources of a module, as PyTorch's evaluator needs them."""

    def __init__(self, blobs: dict[str, bytes]) -> None:
        self.blobs = blobs


def _constant(machine: Machine, op: Operation, known: Env) -> list[Any]:
    if "value" not in op.attributes:
        return [None]
    value = op.attributes["value"].value
    return [bool(value) if op.name == "torch.constant.bool" else value]


def carry_out(machine: Machine, op: Operation, known: Env) -> list[Any]:
    """An operation of torch's, by its operator."""
    import torch

    from iree_pilot.pipeline.frontends.reference import draws
    from iree_pilot.pipeline.frontends.reference.widening import NotEvaluable
    from iree_pilot.pipeline.torch_dialect.calls import CannotWrite

    walk = _walk(machine)
    for number, raw, kind in zip(op.operands, op.raw.operands, op.taken, strict=True):
        value = known[number]
        if kind.text in _NUMBERS and isinstance(value, np.ndarray | np.generic):
            value = value.item()
        walk.values[raw] = _to_torch(value)
    try:
        with torch.no_grad():
            walk.operation(op.raw)
    except CannotWrite as fault:
        raise Unknown(f"{fault.what}: {fault.why}") from fault
    except NotEvaluable as fault:
        raise Unknown(str(fault)) from fault
    if names := [name for raw in op.raw.results for name in walk.drawn(raw)]:
        raise Unknown(draws.why(names))
    machine.used.add(f"torch {torch.__version__}")
    found = [_from_torch(walk.values.get(raw)) for raw in op.raw.results]
    walk.values.clear()
    return found


def _walk(machine: Machine) -> Any:
    if _KEY not in machine.helpers:
        from iree_pilot.pipeline.frontends.reference.widening import Widening
        from iree_pilot.pipeline.torch_dialect.evaluator import FunctionEvaluation, How

        mode = machine.mode
        widening = Widening(perturbed=mode.perturbed) if mode.wide else None
        machine.helpers[_KEY] = FunctionEvaluation(
            _Blobs(dict(machine.module.blobs)), How(widening)
        )
    return machine.helpers[_KEY]


def _to_torch(value: Any) -> Any:
    import torch

    if isinstance(value, list | tuple):
        return [_to_torch(one) for one in value]
    if not isinstance(value, np.ndarray | np.generic):
        return value
    values = np.ascontiguousarray(value)
    dtype = getattr(torch, values.dtype.name)
    if not values.size:
        return torch.empty(np.shape(value), dtype=dtype)
    raw = torch.from_numpy(np.frombuffer(values.tobytes(), np.uint8).copy())
    return raw.view(dtype).reshape(np.shape(value))


def _from_torch(value: Any) -> Any:
    import torch

    if isinstance(value, list | tuple):
        return [_from_torch(one) for one in value]
    if not isinstance(value, torch.Tensor):
        return value
    word = str(value.dtype).removeprefix("torch.")
    dtype = next(
        (elements.of(name).dtype for name, held in elements.FLOATS.items() if held == word), None
    ) or np.dtype(word)
    raw = value.detach().contiguous().reshape(-1).view(torch.uint8).numpy()
    return raw.view(dtype).reshape(tuple(value.shape))


def _cross(machine: Machine, op: Operation, known: Env) -> list[Array]:
    """Between tensors of torch's and MLIR's own types, whose integers have no sign."""
    values = known[op.operands[0]]
    element = machine.element(op.types[0])
    if element.family == "int" and values.dtype.kind in "iu":
        values = values.view(element.dtype)
    return [values]


def _number(machine: Machine, op: Operation, known: Env) -> list[Array]:
    value = known[op.operands[0]]
    return [np.asarray(value).astype(machine.dtype(machine.element(op.types[0])))]


def _python(machine: Machine, op: Operation, known: Env) -> list[Any]:
    return [np.asarray(known[op.operands[0]]).item()]


OPERATIONS: dict[str, Handler] = {
    **dict.fromkeys(
        (f"torch.constant.{kind}" for kind in ("int", "float", "bool", "str", "none", "device")),
        _constant,
    ),
    "torch.*": carry_out,
    "torch_c.from_builtin_tensor": _cross,
    "torch_c.to_builtin_tensor": _cross,
    "torch_c.to_f64": _number,
    "torch_c.to_i64": _number,
    "torch_c.to_i1": _number,
    "torch_c.from_f64": _python,
    "torch_c.from_i64": _python,
    "torch_c.from_i1": _python,
}
