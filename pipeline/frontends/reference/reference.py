"""Reference outputs of a traced program: PyTorch's own, and the same in double precision.

Runs in the tracing child; imports torch.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial
from operator import getitem
from typing import Any, NamedTuple

import msgspec
import psutil
import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import OutputKind
from torch.fx import Interpreter, Node
from torch.utils import _pytree as pytree

from iree_pilot.pipeline.frontends.reference import choices as choosing
from iree_pilot.pipeline.frontends.reference import conversions
from iree_pilot.pipeline.frontends.reference.choices import WAYS, Choices, OperatorCall, Pointing
from iree_pilot.pipeline.frontends.reference.widening import NotEvaluable, Widening, unit_of
from iree_pilot.pipeline.program.program import Jitter, Reference, Tensor
from iree_pilot.pipeline.program.torch_tensors import TensorFiles

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
    if widening.rounded:
        moved = evaluate(Widening(perturbed=True), None)
        found["perturbed"] = files.save(moved.outputs, "perturbed")
    if widening.small:
        flushed = evaluate(Widening(flushing=True), None)
        found["flushed"] = files.save(flushed.outputs, "flushed")
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
        jittered.append(files.save(moved.outputs, f"jittered{seed}-"))
    found["jittered"] = tuple(jittered)
    if widening.tips and any(_exact(output) for output in precise.outputs):
        found["tipped"] = tuple(
            files.save(evaluate(Widening(tilt=tilt), None).outputs, f"tipped{tilt}-")
            for tilt in (-1, 1)
        )
    retied = []
    for way in WAYS if choices.ties else ():
        choices.start(wide=True, way=way)
        retied.append(files.save(evaluate(Widening(), choices).outputs, way))
    found["retied"], found["ties"] = tuple(retied), tuple(dict.fromkeys(choices.ties))
    found["indexed"] = tuple(
        choosing.save(index, (once, wide), files, tied=choices.changed(wide))
        for index, (once, wide) in enumerate(zip(own, precise.points, strict=False))
        if once is not None and wide is not None
    )
    return msgspec.structs.replace(reference, note="", **found)


def _exact(output: torch.Tensor) -> bool:
    return not (output.is_floating_point() or output.is_complex())


def _moves(precise: EvaluatedOutputs, moved: Sequence[torch.Tensor], roundings: int) -> bool:
    """True if an element of an output moves by more than so many of its type's roundings."""
    for unit, base, other in zip(precise.units, precise.outputs, moved, strict=True):
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
