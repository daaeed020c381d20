"""Reference outputs of a traced program: PyTorch's own, and the same in double precision.

Runs in the tracing child; imports torch.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import psutil
import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import OutputKind
from torch.fx import Interpreter
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

_WIDENED = (torch.float32, torch.float16, torch.bfloat16)
#: Element types that a program rounds to on purpose.
NARROW = (
    torch.float8_e4m3fn,
    torch.float8_e4m3fnuz,
    torch.float8_e5m2,
    torch.float8_e5m2fnuz,
)


_PERTURBATION = 2.0**-12


class NotEvaluable(Exception):
    """The program cannot be evaluated in double precision; the message says why."""


def eager(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    """The module's tensor outputs, flattened, run as PyTorch runs it, without gradients.

    A module in training mode changes its buffers when run, so a copy of it is run.
    """
    if any(m.training for m in module.modules()):
        module = copy.deepcopy(module)
    with torch.no_grad():
        return tensors(module(*args, **kwargs))


def rounds_to_8_bits(program: ExportedProgram) -> bool:
    """Whether the program itself casts to an 8-bit float."""
    return any(_narrow_cast(node.args, node.kwargs) for node in program.graph.nodes)


def precise(
    program: ExportedProgram,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    perturbed: bool = False,
) -> list[torch.Tensor]:
    """The exported program's user outputs with all floating-point computation in float64.

    Casts to 8-bit floats are part of what a program means, so they still round; casts to f16,
    bf16 and f32 are not carried out. Raises NotEvaluable with the reason when an operation has no
    double-precision form or reads a tensor's bits.

    perturbed: what is rounded to 8 bits is first moved by a relative 2**-12 at random. An
    8-bit float has few values, so a difference far below the program's own precision can tip an
    element to the next one (6% to 12% away); two right implementations differ by as much.
    """
    flat = [a for a in pytree.tree_leaves((args, kwargs)) if a is not None]
    inputs = iter(flat)
    signature = program.graph_signature
    state = {**program.state_dict, **program.constants}
    needed, free = 8 * sum(v.numel() for v in tensors(state)), psutil.virtual_memory().available
    if needed > free:
        raise NotEvaluable(
            f"its weights take {needed / 1e9:.1f} GB of memory so, and {free / 1e9:.1f} GB is free"
        )
    values: list[Any] = []
    for node in program.graph.nodes:
        if node.op != "placeholder":
            continue
        source = (
            signature.inputs_to_parameters.get(node.name)
            or signature.inputs_to_buffers.get(node.name)
            or signature.inputs_to_lifted_tensor_constants.get(node.name)
        )
        values.append(widen(state[source]) if source else widen(next(inputs)))
    interpreter = _Precise(program.graph_module, perturbed=perturbed)
    try:
        with torch.no_grad():
            results = interpreter.run(*values)
    except (RuntimeError, NotImplementedError, TypeError, ValueError) as fault:
        raise NotEvaluable(f"{type(fault).__name__}: {str(fault).splitlines()[0]}") from fault
    return [
        result
        for spec, result in zip(signature.output_specs, results, strict=True)
        if spec.kind is OutputKind.USER_OUTPUT and isinstance(result, torch.Tensor)
    ]


def tensors(value: Any) -> list[torch.Tensor]:
    """The tensors among the leaves of a nested value, in order."""
    return [leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, torch.Tensor)]


def widen(value: Any) -> Any:
    """A floating-point tensor in float64; any other value as it is."""
    if isinstance(value, torch.Tensor) and value.dtype in (*_WIDENED, *NARROW):
        return value.detach().to(torch.float64)
    return value


def _wide_dtype(value: Any) -> Any:
    return torch.float64 if isinstance(value, torch.dtype) and value in _WIDENED else value


def _narrow_cast(args: Any, kwargs: Any) -> bool:
    return any(leaf in NARROW for leaf in pytree.tree_leaves((args, kwargs)) if _is_dtype(leaf))


def _is_dtype(value: Any) -> bool:
    return isinstance(value, torch.dtype)


class Widening:
    """Carries operations out in float64, whatever type their floating-point tensors have.

    perturbed: as for `precise`. rounded: whether something was rounded to an 8-bit float so far.
    """

    def __init__(self, *, perturbed: bool = False) -> None:
        self.rounded = False
        self._perturbation = _PERTURBATION if perturbed else 0.0
        self._generator = torch.Generator().manual_seed(0)

    def __call__(self, run: Callable[..., Any], target: Any, args: Any, kwargs: Any) -> Any:
        """`run(*args, **kwargs)` so, where it carries out `target`."""
        if target is torch.ops.aten._assert_tensor_metadata.default:
            return None  # export's note of the dtypes it saw, which are widened here
        if target in (torch.ops.aten.view.dtype, torch.ops.aten._scaled_mm.default):
            raise NotEvaluable(f"{target} depends on the tensor's own dtype")
        if args and _narrow_cast(args[1:], kwargs):
            self.rounded = True
            if self._perturbation:
                args = (self._perturb(args[0]), *args[1:])
        args, kwargs = pytree.tree_map(_wide_dtype, (args, kwargs))
        return pytree.tree_map(widen, run(*args, **kwargs))

    def _perturb(self, value: torch.Tensor) -> torch.Tensor:
        noise = torch.randn(value.shape, generator=self._generator, dtype=torch.float64)
        return value * (1 + self._perturbation * noise)


class _Precise(Interpreter):
    """Runs a graph with every floating-point tensor held in float64."""

    def __init__(self, graph: torch.fx.GraphModule, *, perturbed: bool) -> None:
        super().__init__(graph)
        self._widening = Widening(perturbed=perturbed)

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        def run(*args: Any, **kwargs: Any) -> Any:
            return Interpreter.call_function(self, target, args, kwargs)

        return self._widening(run, target, args, kwargs)


class Precisely(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Within, what PyTorch computes it computes in float64, as `precise` does with a program.

    perturbed: as there. rounded: whether something was rounded to an 8-bit float so far. Raises
    NotEvaluable out of what is computed, also where a narrower tensor would have to be changed.
    """

    def __init__(self, *, perturbed: bool = False) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._widening = Widening(perturbed=perturbed)

    @property
    def rounded(self) -> bool:
        return self._widening.rounded

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        written = [a for a, s in zip(args, func._schema.arguments, strict=False) if s.is_write]
        if any(isinstance(a, torch.Tensor) and a.dtype in _WIDENED for a in written):
            raise NotEvaluable(f"{func} writes into a tensor of {written[0].dtype}")
        return self._widening(func, func, *pytree.tree_map(widen, (args, kwargs or {})))
