"""Reference outputs of a traced program: PyTorch's own, and the same in double precision.

Runs in the tracing child; imports torch.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from functools import partial
from operator import getitem
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import psutil
import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import OutputKind, TensorArgument
from torch.fx import GraphModule, Interpreter, Node
from torch.utils import _pytree as pytree

from iree_pilot.pipeline.frontends.reference import choices as choosing
from iree_pilot.pipeline.frontends.reference import conversions
from iree_pilot.pipeline.frontends.reference.choices import WAYS, Choices, OperatorCall, Pointing
from iree_pilot.pipeline.frontends.reference.widening import (
    NotEvaluable,
    Widening,
    rounding,
    unit_of,
)
from iree_pilot.pipeline.program import torch_tensors
from iree_pilot.pipeline.program.program import (
    ELEMENT_TYPES,
    TORCH_ELEMENT_TYPES,
    Jitter,
    Reference,
    Tensor,
)
from iree_pilot.pipeline.program.torch_tensors import TensorFiles

#: Share of an output's integers that ties and roundings may make others in the traced program.
_FEW = 1 / 16
#: Number of perturbations by a rounding each, if one moves an output by so many roundings.
_JITTERS, _ROUNDINGS = 3, 64


def eager(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    """The module's tensor outputs, flattened, run as PyTorch runs it, without gradients.

    A module in training mode changes its buffers when run, so a copy of it is run.
    """
    if any(m.training for m in module.modules()):
        module = copy.deepcopy(module)
    with torch.no_grad():
        return tensors(module(*args, **kwargs))


class EvaluatedOutputs(NamedTuple):
    """A program's tensor outputs, and for each where its elements point to, if they are indices.

    units: a rounding of each in the program's own types, where these are known.
    """

    outputs: list[torch.Tensor]
    points: list[Pointing | None]
    units: tuple[float, ...] = ()


#: Evaluates a program once; without a widening in its own types.
Evaluate = Callable[[Widening | None, Choices | None], EvaluatedOutputs]


def graph(program: ExportedProgram, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Evaluate:
    """A graph that evaluates an exported program for these arguments."""

    kinds = (getattr(node.meta.get("val"), "dtype", None) for node in program.graph.nodes)
    doubles = torch.float64 in kinds

    def evaluate(widening: Widening | None, choices: Choices | None) -> EvaluatedOutputs:
        if widening is not None:
            widening.doubles = doubles
        hold = widening.held if widening is not None else _as_it_is
        flat = iter([a for a in pytree.tree_leaves((args, kwargs)) if a is not None])
        signature = program.graph_signature
        state = {**program.state_dict, **program.constants}
        needed, free = 8 * sum(v.numel() for v in tensors(state)), psutil.virtual_memory().available
        if widening is not None and needed > free:
            raise NotEvaluable(
                f"its weights take {needed / 1e9:.1f} GB of memory so, and {free / 1e9:.1f} GB is "
                "free"
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
            values.append(hold(state[source] if source else next(flat)))
        interpreter = _Graph(program.graph_module, widening, choices)
        try:
            with torch.random.fork_rng(devices=[]), torch.no_grad():
                torch.manual_seed(0)  # what it draws is the same in each evaluation
                results = interpreter.run(*values)
        except (RuntimeError, TypeError, ValueError, IndexError, ArithmeticError) as fault:
            raise NotEvaluable(f"{type(fault).__name__}: {str(fault).splitlines()[0]}") from fault
        nodes = next(node for node in program.graph.nodes if node.op == "output").args[0]
        found = [
            (result, interpreter.points.get(node), unit_of(node.meta.get("val")))
            for spec, result, node in zip(signature.output_specs, results, nodes, strict=True)
            if spec.kind is OutputKind.USER_OUTPUT and isinstance(result, torch.Tensor)
        ]
        results, points, units = zip(*found, strict=True) if found else ((), (), ())
        return EvaluatedOutputs([*results], [*points], units)

    return evaluate


def reached(program: ExportedProgram) -> tuple[tuple[str, ...], ...]:
    """The element types of floats that each tensor which the program returns is computed from."""
    found: dict[Node, frozenset[str]] = {}
    for node in program.graph.nodes:
        own = _floats(node.meta.get("val"))
        if node.op == "get_attr":  # the body of a control flow operation
            body = getattr(program.graph_module, str(node.target), None)
            if isinstance(body, GraphModule):
                own = own.union(*(_floats(inner.meta.get("val")) for inner in body.graph.nodes))
        found[node] = own.union(*(found[operand] for operand in node.all_input_nodes))
    results = next(node for node in program.graph.nodes if node.op == "output").args[0]
    return tuple(
        tuple(sorted(found[result]))
        for spec, result in zip(program.graph_signature.output_specs, results, strict=True)
        if spec.kind is OutputKind.USER_OUTPUT and isinstance(spec.arg, TensorArgument)
    )


def _floats(value: Any) -> frozenset[str]:
    dtypes = {str(leaf.dtype).removeprefix("torch.") for leaf in tensors(value)}
    names = {TORCH_ELEMENT_TYPES[name] for name in dtypes if name in TORCH_ELEMENT_TYPES}
    return frozenset(name for name in names if ELEMENT_TYPES[name].family == "float")


def undefined(program: ExportedProgram, evaluate: Evaluate) -> list[str]:
    """Reason for each output that PyTorch leaves it undefined, empty if it does not."""
    if not any(map(_converts, program.graph.nodes)):
        return []

    def again() -> list[torch.Tensor] | None:
        try:
            return evaluate(None, None).outputs
        except NotEvaluable:
            return None

    with conversions.Conversions() as watched:
        own = again()
    if own is None or not watched.met:
        return []
    return conversions.undefined(own, again)


def _converts(node: Node) -> bool:
    """True if a node makes integers of floats."""
    source = node.args[0] if node.args else None
    values = source.meta.get("val") if isinstance(source, Node) else None
    return conversions.converts(node.target, values, node.meta.get("val"))


def unlike(
    own: Sequence[torch.Tensor], traced: EvaluatedOutputs, made: Reference, directory: Path
) -> list[str]:
    """Reason for each output that the exported program is not the model, empty where it is.

    own: PyTorch's results of the model itself; traced: of the program, in its own types. Where they
    differ by more than half the digits, and by far more than roundings explain, the trace took
    another path than the model (`torch.compiler.is_exporting()`, a fused kernel for a case of its
    own, hooks), and a device that agrees with the one does not agree with the other.
    """
    found = []
    for index, (model, program) in enumerate(zip(own, traced.outputs, strict=False)):
        pointed = traced.points[index] is not None
        precise = made.precise[index] if index < len(made.precise) else None
        wide = None if precise is None else torch_tensors.load(precise, directory)
        by = 0.0 if pointed else _apart(model, program, wide)
        found.append(f"{NOT_THE_MODEL} {by:.2g} (relative L2)" if by else "")
    return found


NOT_THE_MODEL = "the exported program is not the model: PyTorch's results of the two differ by"
#: Error of a program in its own types, so many times: what else it may be off by.
_EVALUATED = 16


def _apart(model: torch.Tensor, program: torch.Tensor, precise: torch.Tensor | None) -> float:
    """How far results of the model are from those of its program; 0 if roundings explain it."""
    if model.shape != program.shape:
        return math.inf
    one, other = (_numbers(value) for value in (model, program))
    norm = float(other.nan_to_num(0.0, 0.0, 0.0).norm()) or 1.0
    apart = _distance(one, other) / norm
    if not (model.is_floating_point() or model.is_complex()):
        many = float((one != other).double().mean()) if one.numel() else 0.0
        return apart if many > _FEW else 0.0
    half = math.sqrt(rounding(model.dtype))
    if precise is not None:
        half = max(half, _EVALUATED * _distance(other, _numbers(precise)) / norm)
    return apart if apart > half else 0.0


def _numbers(value: torch.Tensor) -> torch.Tensor:
    return (torch.view_as_real(value) if value.is_complex() else value).detach().double()


def _distance(values: torch.Tensor, others: torch.Tensor) -> float:
    """The norm of what two results differ by; infinite where one alone is no number."""
    same = (values == others) | (values.isnan() & others.isnan())
    return float(torch.where(same, 0.0, values - others).nan_to_num(nan=math.inf).norm())


def _as_it_is(value: Any) -> Any:
    return value.detach() if isinstance(value, torch.Tensor) else value


def with_precise(
    reference: Reference,
    evaluate: Evaluate,
    files: TensorFiles,
    own: Sequence[Pointing | None],
    choices: Choices,
    *,
    jitter: Jitter = "none",
) -> Reference:
    """The reference with what float64 gives, and the forms of it that are as right.

    files: where what they give goes. own: where the outputs
    point to in the program's own types; choices: followed there. jitter: also where values cancel,
    or where sums are rounded at each step.
    """
    widening = Widening(watching=True)
    choices.start(wide=True)
    precise = evaluate(widening, choices)
    found: dict[str, Any] = {
        "precise": files.save(precise.outputs, "precise"),
        "precise_dtype": "f64",
    }

    def saved(other: EvaluatedOutputs, name: str) -> tuple[Tensor, ...]:
        """Files of other results; none where their sizes, which depend on data, are others."""
        alike = all(a.shape == b.shape for a, b in zip(precise.outputs, other.outputs, strict=True))
        return files.save(other.outputs, name) if alike else ()

    if widening.rounded:
        found["perturbed"] = saved(evaluate(Widening(perturbed=True), None), "perturbed")
    if widening.small:
        found["flushed"] = saved(evaluate(Widening(flushing=True), None), "flushed")
    jittered: list[tuple[Tensor, ...]] = []
    sums = jitter == "sums"
    moving = jitter == "values" or (sums and widening.steps)
    # One that tips an element to the next 8-bit float explains anything: see `perturbed`.
    for seed in range(_JITTERS if moving and not widening.rounded else 0):
        jitters = Widening(jitter=seed, sums=sums)
        moved = evaluate(jitters, None)
        least = 0 if sums else _ROUNDINGS
        if not jittered and not jitters.summed and not _moves(precise, moved.outputs, least):
            break  # nothing cancels, or hardly
        jittered.append(saved(moved, f"jittered{seed}-"))
    found["jittered"] = tuple(filter(None, jittered))
    tipped = []
    for tilt in (-1, 1) if choices.roundings.tips else ():
        choices.start(wide=True, tilt=tilt)
        tipped.append(saved(evaluate(Widening(), choices), f"tipped{tilt}-"))
    found["tipped"] = tuple(filter(None, tipped))
    retied = []
    for way in WAYS if choices.ties else ():
        choices.start(wide=True, way=way)
        retied.append(saved(evaluate(Widening(), choices), way))
    found["retied"] = tuple(filter(None, retied))
    found["ties"] = tuple(dict.fromkeys(choices.ties))
    found["indexed"] = tuple(
        choosing.save(index, (once, wide), files, tied=choices.changed(wide))
        for index, (once, wide) in enumerate(zip(own, precise.points, strict=False))
        if once is not None and wide is not None
    )
    return msgspec.structs.replace(reference, note="", **found)


def _moves(precise: EvaluatedOutputs, moved: Sequence[torch.Tensor], roundings: int) -> bool:
    """True if an element of an output moves by more than so many of its type's roundings."""
    for unit, base, other in zip(precise.units, precise.outputs, moved, strict=True):
        if base.shape != other.shape:
            return True
        if base.dtype is not torch.float64 or not base.numel():
            continue
        size = base.abs() + base.square().mean().sqrt()
        size = torch.where(size.isfinite(), size, base.abs())
        limit = roundings * unit * size
        # Also where one of them is no number.
        near = ((other - base).abs() <= limit) | (other == base) | (other.isnan() & base.isnan())
        if not bool(near.all()):
            return True
    return False


def tensors(value: Any) -> list[torch.Tensor]:
    """The tensors among the leaves of a nested value, in order."""
    return [leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, torch.Tensor)]


class _Graph(Interpreter):
    """Runs a graph, with a widening in float64. points: where nodes' values point to."""

    def __init__(
        self, graph: torch.fx.GraphModule, widening: Widening | None, choices: Choices | None
    ) -> None:
        super().__init__(graph)
        self.points: dict[Node, Pointing] = {}
        self._widening, self._choices = widening, choices
        self._several: dict[Node, dict[int, Pointing]] = {}
        self._given = {node for node in graph.graph.nodes if node.op == "placeholder"}

    def run_node(self, node: Node) -> Any:
        if self._widening is not None:
            self._widening.unit = unit_of(node.meta.get("val"))
        if node.op != "call_function" or self._choices is None:
            return super().run_node(node)
        args, kwargs = self.fetch_args_kwargs_from_env(node)
        call = OperatorCall(node.target, partial(self._called, node.target), args, kwargs)
        first = node.args[0] if node.args and isinstance(node.args[0], Node) else None
        result, points = self._choices.carried_out(call, given=first in self._given)
        if isinstance(result, tuple | list):
            self._several[node] = points
        elif points:
            self.points[node] = points[0]
        if first is not None:
            known = choosing.passed_on(call, self.points.get(first))
            if node.target is getitem:
                known = self._several.get(first, {}).get(args[1])
            if known is not None:
                self.points[node] = known
            if first in self._given and choosing.moves(node.target):
                self._given.add(node)
        return result

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return self._called(target, *args, **kwargs)

    def _called(self, target: Any, *args: Any, **kwargs: Any) -> Any:
        if self._widening is None:
            return target(*args, **kwargs)
        return self._widening(target, target, args, kwargs)
