"""Calls on constants alone, of operations that IREE has no lowering for: computed at the trace.

transformers' Gemma3n has `Normal(0, 1).icdf(torch.tensor(0.95))` in each layer, so an `erfinv`.

Runs in the tracing child; imports torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch._ops import OpOverload
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, InputSpec, TensorArgument

from iree_pilot.pipeline.frontends.reference import draws

PRICE = "its operands are constants, so its value is computed at the trace"
#: Elements of a value that is computed: what is larger makes the program larger.
_MOST = 2**16


def calls(program: ExportedProgram) -> list[torch.fx.Node]:
    """Calls that return one tensor and whose operands are all computed from the program's constant
    tensors, and from nothing else: no parameters, buffers, inputs, sizes,
    random numbers or memory that nobody wrote."""
    constants = program.graph_signature.inputs_to_lifted_tensor_constants
    known: set[torch.fx.Node] = set()
    found = []
    for node in program.graph.nodes:
        if node.name in constants and node.op == "placeholder":
            known.add(node)
        elif node.op == "call_function" and _pure(node.target) and known >= {*node.all_input_nodes}:
            known.add(node)
            value = node.meta.get("val")
            called = isinstance(node.target, OpOverload) and node.all_input_nodes
            if called and isinstance(value, torch.Tensor) and _small(value):
                found.append(node)
    return found


def compute(program: ExportedProgram, nodes: list[torch.fx.Node]) -> None:
    """Replaces these of the `calls` of a program by constants, in place."""
    if not nodes:
        return
    graph, signature = program.graph, program.graph_signature
    names = signature.inputs_to_lifted_tensor_constants
    made: dict[torch.fx.Node, Any] = {}

    def value(node: torch.fx.Node) -> Any:
        if node not in made:
            if node.op == "placeholder":
                made[node] = program.constants[names[node.name]]
            else:
                args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), value)
                with torch.no_grad():
                    made[node] = node.target(*args, **kwargs)  # type: ignore[operator]
        return made[node]

    for node in nodes:
        at = next(
            (n for n, s in enumerate(signature.input_specs) if s.kind == InputKind.USER_INPUT),
            len(signature.input_specs),
        )
        with graph.inserting_before(list(graph.nodes)[at]):
            constant = graph.placeholder(f"c_computed_{node.name}")
        constant.meta = {"val": node.meta["val"]}
        argument, target = TensorArgument(name=constant.name), f"computed_{node.name}"
        spec = InputSpec(InputKind.CONSTANT_TENSOR, argument, target, persistent=False)
        signature.input_specs.insert(at, spec)
        program.constants[target] = value(node).contiguous()
        node.replace_all_uses_with(constant)
    graph.eliminate_dead_code()
    program.graph_module.recompile()


def _pure(target: Callable[..., Any] | str) -> bool:
    if not isinstance(target, OpOverload):
        return getattr(target, "__name__", "") == "getitem"
    random = torch.Tag.nondeterministic_seeded in target.tags
    return not (random or target._schema.is_mutable or draws.leaves_unwritten(target))


def _small(value: torch.Tensor) -> bool:
    return all(isinstance(n, int) for n in value.shape) and math.prod(value.shape) <= _MOST
