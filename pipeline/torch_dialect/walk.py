"""Over the operations of a function in the torch dialect, in order: what each of them is.

What becomes of them is up to who walks: text for `writer`, values for `evaluator`.
"""

from __future__ import annotations

import abc
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from iree_pilot.pipeline.torch_dialect import calls
from iree_pilot.pipeline.torch_dialect.calls import CannotWrite

TENSOR = re.compile(r"!torch\.v?tensor<\[([\d?,]*)\],(.+)>")
_BUILTIN = re.compile(r"tensor<((?:(?:\d+|\?)x)*)(.+)>")
#: The integer types of MLIR carry no sign; those of torch do.
_SIGNED = {f"i{bits}": f"si{bits}" for bits in (8, 16, 32, 64)}
#: Operations that return their operand: Python needs none, and the tracer adds them again.
TRANSPARENT = {
    "torch_c.from_builtin_tensor",
    "torch_c.to_builtin_tensor",
    "torch.copy.to_vtensor",
    "torch.copy.to_tensor",
    "torch.derefine",
    "torch.tensor_static_info_cast",
    "torch.aten.Int.bool",
    "torch.aten.Float.bool",
    "torch.aten.Float.Scalar",
    "torch.prim.NumToTensor.Scalar",
}
#: Checks that the tracer adds by itself, and facts about shapes that the inputs carry.
_DROPPED = {
    "torch.aten._assert_tensor_metadata",
    "torch.symbolic_int",
    "torch.bind_symbolic_shape",
    "torch.runtime.assert",
}
#: Operations that depend on a tensor's strides in PyTorch. In MLIR a tensor has none.
VIEWS = {"torch.aten.view", "torch.aten._unsafe_view", "torch.aten.view.dtype"}


class TorchTensorType(msgspec.Struct, frozen=True):
    """A tensor's type: sizes (None: dynamic) and torch's dtype."""

    shape: tuple[int | None, ...]
    dtype: Any


class Walk(abc.ABC):
    """State of a walk over a function's operations: the values known so far.

    blobs: the module's resources, see `literals.resources`.
    """

    def __init__(self, blobs: Mapping[str, bytes]) -> None:
        from iree.compiler.extras import fx_importer

        self.blobs = blobs
        self.dtypes = {text: d for d, text in fx_importer.TORCH_DTYPE_TO_MLIR_TYPE_ASM.items()}
        #: Contents of MLIR values: numbers, None, text, lists of these, and stand-ins for tensors.
        self.values: dict[Any, Any] = {}

    def operation(self, op: Any) -> None:
        """Meets one operation. Raises CannotWrite where PyTorch has no counterpart."""
        name = op.attributes["name"].value if op.name == "torch.operator" else op.name
        if len(op.regions):
            raise CannotWrite(name, "it has a body of its own")
        if name in _DROPPED:
            return
        operands = [self.values[v] for v in op.operands]
        if name == "func.return":
            self.give_back(op)
        elif name == "torch.constant.device":
            self.values[op.results[0]] = self.device(op.attributes["value"].value)
        elif name.startswith("torch.constant."):
            self.values[op.results[0]] = _constant(op)
        elif name == "torch.vtensor.literal":
            self.values[op.results[0]] = self.literal(op)
        elif name == "util.global.load":
            self.values[op.results[0]] = self.load(op)
        elif name == "util.global.store":
            self.store(op, operands[0])
        elif name == "torch.overwrite.tensor.contents":
            self.overwrite(op.operands[1], operands[0])
        elif name in TRANSPARENT:
            self.values[op.results[0]] = self.passed(op, operands[0])
        elif name == "torch.prim.ListConstruct":
            self.values[op.results[0]] = operands
        elif name == "torch.prim.ListUnpack":
            self.unpack(op, operands[0])
        elif name in calls.SCALAR:
            self.scalar(op, name, operands)
        elif name.startswith("torch."):
            operator = calls.overload(name)
            schema = operator._schema
            if len(operands) != len(schema.arguments) or len(op.results) != len(schema.returns):
                raise CannotWrite(name, f"this release of torch has it as {schema}")
            self.call(op, name, operator, operands)
        else:
            raise CannotWrite(name, "it is not an operation of PyTorch")

    def passed(self, op: Any, value: Any) -> Any:
        """Result of an operation that only changes MLIR's view of a value."""
        return value

    @abc.abstractmethod
    def device(self, name: str) -> Any: ...

    @abc.abstractmethod
    def literal(self, op: Any) -> Any: ...

    @abc.abstractmethod
    def load(self, op: Any) -> Any: ...

    @abc.abstractmethod
    def store(self, op: Any, value: Any) -> None: ...

    @abc.abstractmethod
    def overwrite(self, target: Any, value: Any) -> None:
        """target: the MLIR value of the tensor that is written over."""

    @abc.abstractmethod
    def unpack(self, op: Any, packed: Any) -> None: ...

    @abc.abstractmethod
    def scalar(self, op: Any, name: str, operands: list[Any]) -> None:
        """A computation on sizes and numbers, one of `calls.SCALAR`."""

    @abc.abstractmethod
    def call(self, op: Any, name: str, operator: Any, operands: list[Any]) -> None:
        """A call of torch's `operator`, whose schema has as many arguments and results."""

    @abc.abstractmethod
    def give_back(self, op: Any) -> None: ...

    def tensor(self, type_: Any) -> TorchTensorType:
        """Raises CannotWrite for what is not a tensor of known rank and element type."""
        if match := TENSOR.fullmatch(str(type_)):
            sizes, element = match[1].split(","), match[2]
        elif match := _BUILTIN.fullmatch(str(type_)):
            sizes, element = match[1].split("x"), _SIGNED.get(match[2], match[2])
        else:
            raise CannotWrite(f"a value of type {type_}", "it is not a tensor of known rank")
        if element not in self.dtypes:
            raise CannotWrite(f"a value of type {type_}", "PyTorch has no such dtype")
        shape = tuple(None if size == "?" else int(size) for size in sizes if size)
        return TorchTensorType(shape, self.dtypes[element])


def symbol(op: Any) -> str:
    """The global that an operation loads or stores."""
    name: str = op.attributes["global"].value
    return name


def _constant(op: Any) -> Any:
    if "value" not in op.attributes:
        return None
    value = op.attributes["value"].value
    return bool(value) if op.name == "torch.constant.bool" else value
