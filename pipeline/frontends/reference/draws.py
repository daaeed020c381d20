"""Outputs of a program that depend on random numbers or on uninitialised memory.

The graph tells most of it; what is left (custom operators, numpy's random numbers in Python code)
shows when PyTorch is run again with another seed. Runs in children; imports torch.
"""

from __future__ import annotations

import contextlib
import copy
import random
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import OutputKind, TensorArgument
from torch.fx import GraphModule, Node
from torch.utils import _pytree as pytree

from iree_pilot.pipeline.frontends.reference.drawing import DRAWS, trained
from iree_pilot.pipeline.numerics import noise
from iree_pilot.pipeline.program.program import TORCH_ELEMENT_TYPES

#: Arguments that turn drawing off when they are 0 or False.
_SWITCHES = ("p", "dropout_p", "dropout", "train", "training")
#: Modules that compute otherwise in training mode, if the attribute is not 0 or False.
_TRAINED = (
    (torch.nn.modules.dropout._DropoutNd, "p"),
    (torch.nn.MultiheadAttention, "dropout"),
    (torch.nn.RNNBase, "dropout"),
    (torch.nn.RReLU, "training"),
    (torch.nn.modules.batchnorm._NormBase, "track_running_stats"),
)
#: Difference between PyTorch's own runs that is allowed, in roundings of an output's type:
#: threads may add up in another order.
_ROUNDINGS = 64

_UNWRITTEN = (
    "aten::empty",
    "aten::empty_like",
    "aten::empty_strided",
    "aten::empty_permuted",
    "aten::new_empty",
    "aten::new_empty_strided",
)
#: Operations of MLIR that take no more than the shape of their operands.
SHAPES_ONLY = frozenset(
    f"torch.aten.{name}"
    for name in (
        "size.int",
        "size",
        "numel",
        "fill.Scalar",
        "zeros_like",
        "ones_like",
        "full_like",
        "new_zeros",
        "new_ones",
        "new_full",
        "zero",
    )
)

TRAINING = "the model is in training mode: .eval() is missing"
AGAIN = (
    "PyTorch gives other numbers when it is run again with another seed: it draws random numbers "
    "that the graph does not show, or reads memory that nobody wrote"
)


def draws(target: Any, args: Sequence[Any], kwargs: Any) -> bool:
    """True if a call of an operator draws random numbers: not a dropout by nothing."""
    if torch.Tag.nondeterministic_seeded not in getattr(target, "tags", ()):
        return False
    for position, declared in enumerate(target._schema.arguments):
        if declared.name in _SWITCHES:
            default = declared.default_value if declared.has_default_value() else None
            given = args[position] if position < len(args) else kwargs.get(declared.name, default)
            if isinstance(given, bool | int | float) and not given:
                return False
    return True


def leaves_unwritten(target: Any) -> bool:
    """True if an operator gives memory that nobody wrote."""
    return getattr(getattr(target, "_schema", None), "name", "") in _UNWRITTEN


def why(names: Sequence[str]) -> str:
    """Reason that an output which depends on these operations cannot be compared; empty if none.

    The operations draw random numbers, or leave memory unwritten.
    """
    unwritten = [name for name in names if "empty" in name]
    drawing = [name for name in names if name not in unwritten]
    found = [f"{DRAWS}{', '.join(drawing)}"] if drawing else []
    if unwritten:
        found.append(f"it reads memory that nobody wrote: {', '.join(unwritten)}")
    return "; ".join(found)


def sources(program: ExportedProgram) -> list[tuple[str, ...]]:
    """Random operations that each tensor which the program returns depends on."""
    found = _reached(program.graph_module)
    results = next(node for node in program.graph.nodes if node.op == "output").args[0]
    return [
        found.get(result, ())
        for spec, result in zip(program.graph_signature.output_specs, results, strict=True)
        if spec.kind is OutputKind.USER_OUTPUT and isinstance(spec.arg, TensorArgument)
    ]


def _reached(module: GraphModule) -> dict[Node, tuple[str, ...]]:
    """Random operations that each node depends on, itself included."""
    found: dict[Node, tuple[str, ...]] = {}
    for node in module.graph.nodes:
        names = [name for operand in node.all_input_nodes for name in found.get(operand, ())]
        if node.op == "call_function":
            names += _own(module, node)
        if not names:
            continue
        found[node] = tuple(dict.fromkeys(names))
        schema = getattr(node.target, "_schema", None)
        for declared, operand in zip(schema.arguments if schema else (), node.args, strict=False):
            if declared.is_write and isinstance(operand, Node):
                found[operand] = tuple(dict.fromkeys((*found.get(operand, ()), *names)))
    return found


def _own(module: GraphModule, node: Node) -> list[str]:
    """Random operations of a node: itself, or in the bodies that a control flow operation takes."""
    if draws(node.target, node.args, node.kwargs):
        return [str(node.target).removesuffix(".default")]
    names: list[str] = []
    for operand in node.all_input_nodes:
        body = _body(module, operand)
        for inner in body.graph.nodes if body is not None else ():
            if inner.op == "call_function":
                assert body is not None
                names += _own(body, inner)
    return names


def _body(module: GraphModule, node: Node) -> GraphModule | None:
    if node.op != "get_attr":
        return None
    value: Any = module
    for name in str(node.target).split("."):
        value = getattr(value, name, None)
    return value if isinstance(value, GraphModule) else None


def trains(module: torch.nn.Module) -> bool:
    """True if a part of the module is in training mode, and computes otherwise for it."""
    return any(
        isinstance(part, kind) and getattr(part, switch)
        for part in module.modules()
        if part.training
        for kind, switch in _TRAINED
    )


def copied(module: torch.nn.Module, changed: Collection[str] = ()) -> torch.nn.Module:
    """The module with state of its own, but for its parameters: those that no run changes.

    changed: names of the others.
    """
    kept = {
        id(p): p for name, p in module.named_parameters(remove_duplicate=False) if name in changed
    }
    shared = {id(p): p for p in module.parameters() if id(p) not in kept}
    try:
        return copy.deepcopy(module, shared)
    except Exception:  # noqa: BLE001 - what a module holds may refuse in any way
        return module


def run(module: torch.nn.Module, args: Any, kwargs: Any, *, seed: int) -> list[torch.Tensor]:
    """The module's results where all that Python code draws from starts at `seed`, and memory that
    nobody wrote holds NaN or the largest integer."""
    with _seeded(seed), torch.no_grad():
        found = module(*args, **kwargs)
    return [leaf for leaf in pytree.tree_leaves(found) if isinstance(leaf, torch.Tensor)]


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    strict = torch.are_deterministic_algorithms_enabled()
    warned = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)
    torch.use_deterministic_algorithms(True, warn_only=True)  # it fills what is not written
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(strict, warn_only=warned)
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])
        random.setstate(states[2])


def differing(once: Sequence[torch.Tensor], again: Sequence[torch.Tensor]) -> list[bool]:
    """Results of two runs that differ by more than threads explain."""
    if len(once) != len(again):
        return [True] * len(once)
    return [not _alike(a, b) for a, b in zip(once, again, strict=True)]


def _alike(a: torch.Tensor, b: torch.Tensor) -> bool:
    if (a.shape, a.dtype) != (b.shape, b.dtype):
        return False
    if not (a.is_floating_point() or a.is_complex()):
        return torch.equal(a, b)
    wide = torch.complex128 if a.is_complex() else torch.float64
    one, other = a.to(wide), b.to(wide)
    same = (one == other) | (one.isnan() & other.isnan())
    error = torch.where(same, 0.0, (one - other).abs()).nan_to_num(nan=torch.inf)
    size = one.abs().nan_to_num(nan=0.0, posinf=0.0)
    root = size.square().mean().sqrt() if size.numel() else 0.0
    known = TORCH_ELEMENT_TYPES[str(a.dtype).removeprefix("torch.")]
    return bool((error <= _ROUNDINGS * noise.unit(known) * (size + root)).all())


def reasons(program: ExportedProgram, unstable: Sequence[bool], *, training: bool) -> list[str]:
    """Reason for each output that it cannot be compared, empty if it can.

    unstable: which outputs differed when PyTorch was run again. training: the model computes
    something else in training mode; that is named where it can be the cause.
    """
    found = []
    for names, differs in zip(sources(program), unstable, strict=False):
        reason = why(names) or (AGAIN if differs else "")
        caused = training and reason and (not names or any(map(trained, names)))
        found.append(f"{reason} ({TRAINING})" if caused else reason)
    return found
