"""Traces one module as the product does; an exception's frames say what was being traced.

Runs in the tracing child; imports torch.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import Node

from iree_pilot.pipeline.failures import diagnostics
from iree_pilot.pipeline.failures.diagnostics import Failure
from iree_pilot.pipeline.frontends.pytorch import exporting, torch_export
from iree_pilot.repro.tracing.writing import WrittenCall

#: An export's notes of what it saw, which compute nothing.
_NOTES = ("aten._assert_tensor_metadata.default",)
#: Number of nested operations on the stack that are tried.
_NESTED = 3


@dataclass(frozen=True, kw_only=True)
class TraceAttempt:
    """Result of a trace. exported: torch.export passed. strict: in which mode."""

    failure: Failure | None
    fault: BaseException | None = None
    exported: bool = False
    strict: bool = False


def attempt(
    entry: Any, root: torch.nn.Module, *, inline: bool, read: ExportedProgram | None = None
) -> TraceAttempt:
    """Traces an entry of the frontend's (`models.traceable.Entry`) up to MLIR.

    root: what its parameters are named after. read: it is exported already.
    """
    exported, strict = read, False
    try:
        if exported is None:
            exported, strict, _ = exporting.export(entry)
        programs = {entry.name: exported}
        if not inline:
            torch_export.externalize(root, programs, None)
        torch_export.to_mlir(programs)
    except (Exception, SystemExit) as fault:  # noqa: BLE001 - a model may raise anything
        return TraceAttempt(
            failure=failure_of(fault), fault=fault, exported=exported is not None, strict=strict
        )
    return TraceAttempt(failure=None, exported=True, strict=strict)


def failure_of(fault: BaseException) -> Failure:
    """An exception as the failure to trace that it is reported as."""
    own = str(Path(__file__).parent)
    frames = [
        f for f in traceback.extract_tb(fault.__traceback__) if not f.filename.startswith(own)
    ]
    return diagnostics.trace_failure(
        type(fault).__name__,
        str(fault) or type(fault).__name__,
        [(f.filename, f.lineno or 0, f.name) for f in frames],
    )


def module_at_work(fault: BaseException, root: torch.nn.Module) -> str | None:
    """The path in `root` of the innermost module whose code was running."""
    paths = {id(module): path for path, module in root.named_modules()}
    found: str | None = None
    for frame in _frames(fault):
        own = frame.f_locals.get("self")
        if isinstance(own, torch.nn.Module) and id(own) in paths:
            found = paths[id(own)]
    if found is not None:
        return found
    node = _node(fault)
    stack = node.meta.get("nn_module_stack") if node is not None else None
    names: list[str] = [path for path, _ in stack.values()] if stack else []
    known = set(paths.values())
    return next((name for name in reversed(names) if name in known), None)


def operations_at_work(fault: BaseException) -> list[WrittenCall]:
    """The operations that were being traced or imported, the most likely one first."""
    node = _node(fault)
    if node is not None:
        held = _held(fault, node)
        return [_call(one, held) for one in _computing(node)]
    calls: list[WrittenCall] = []
    for frame in _frames(fault):
        values = dict(frame.f_locals)
        target, args = values.get("func"), values.get("args")
        if not isinstance(target, torch._ops.OpOverload) or not isinstance(args, tuple):
            continue
        kwargs = values.get("kwargs")
        call = WrittenCall(
            target=target, args=args, kwargs=kwargs if isinstance(kwargs, Mapping) else {}
        )
        if all(call.target is not known.target for known in calls):
            calls.append(call)
    return calls[: -_NESTED - 1 : -1]


def _frames(fault: BaseException) -> Iterator[FrameType]:
    """Outermost first."""
    for frame, _ in traceback.walk_tb(fault.__traceback__):
        yield frame


def _node(fault: BaseException) -> Node | None:
    """The node that an importer, or an interpreter of a graph, was at."""
    found = None
    for frame in _frames(fault):
        values = dict(frame.f_locals)
        for name in ("node", "n"):
            node = values.get(name)
            if isinstance(node, Node) and node.op == "call_function":
                found = node
    return found


def _computing(node: Node) -> list[Node]:
    """The node, or what computes with the operands of one that only notes something."""
    if str(node.target) not in _NOTES:
        return [node]
    users = [user for operand in node.all_input_nodes for user in operand.users]
    return [u for u in users if u.op == "call_function" and str(u.target) not in _NOTES]


def _call(node: Node, held: Mapping[str, str]) -> WrittenCall:
    return WrittenCall(target=node.target, args=node.args, kwargs=node.kwargs, held=held)


def _held(fault: BaseException, node: Node) -> Mapping[str, str]:
    """The nodes that stand for what the model holds, in the program that a node is of."""
    for frame in _frames(fault):
        for value in dict(frame.f_locals).values():
            if isinstance(value, ExportedProgram) and value.graph is node.graph:
                signature = value.graph_signature
                return {
                    **signature.inputs_to_parameters,
                    **signature.inputs_to_buffers,
                    **signature.inputs_to_lifted_tensor_constants,
                }
    return {}
