"""Rewrites operations on symbolic scalars that the FX importer does not know into those it does.

Sizes and values that depend on data are numbers of Python in an exported program; torch.export
writes `torch.sym_not`, `torch.sym_ite`, `operator.or_` between them, mostly for its assertions. The
importer's own tables say which it takes. Each rewrite computes exactly the same.

Runs in the tracing child; imports torch and the compiler's bindings.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import Any

import torch
from iree.compiler.extras import fx_importer
from torch._ops import HigherOrderOperator, OpOverload
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node

from iree_pilot.pipeline.program.program import Decomposed

_aten, _prim = torch.ops.aten, torch.ops.prim
_REASON = "the importer takes no such operation on scalars"
#: Types of scalars, and the symbolic ones that stand for them; a bool is an int to Python.
_KINDS: tuple[tuple[type, tuple[type, ...]], ...] = (
    (bool, (bool, torch.SymBool)),
    (int, (int, torch.SymInt)),
    (float, (float, torch.SymFloat)),
)


def rewritten(
    program: ExportedProgram, leave: Callable[[str], bool] = lambda name: False
) -> tuple[Decomposed, ...]:
    """Rewrites a program's scalar operations in place, and returns what was, once each.

    leave: true for the name of an operation that is to stay. An operation without a rewrite stays:
    the import tells of it.
    """
    done: dict[str, Decomposed] = {}
    for module in program.graph_module.modules():
        if isinstance(module, GraphModule) and any(map(_unknown, module.graph.nodes)):
            _rewrite(module, leave, done)
    return tuple(done.values())


def names(program: ExportedProgram) -> set[str]:
    """Names of the operations that `rewritten` is about: `torch.sym_not`, `operator.mod`."""
    return {
        name(node.target)
        for module in program.graph_module.modules()
        if isinstance(module, GraphModule)
        for node in module.graph.nodes
        if _unknown(node)
    }


def name(target: Any) -> str:
    """A function's name, `torch.sym_not`; an operation's without `torch.`, `aten.item`."""
    if isinstance(target, OpOverload):
        return str(target).removesuffix(".default")
    return f"{target.__module__.lstrip('_')}.{target.__name__}"


def _rewrite(
    module: GraphModule, leave: Callable[[str], bool], done: dict[str, Decomposed]
) -> None:
    for node in [*module.graph.nodes]:
        if not _unknown(node) or leave(name(node.target)):
            continue
        known = node.meta.get("val")
        if isinstance(known, bool | int | float):  # the tracer has proved it
            made: Any = known
        elif (rewrite := _REWRITES.get(node.target)) is not None:
            with module.graph.inserting_before(node):
                made = rewrite(_ScalarGraph(module.graph, node), *node.args)
        else:
            continue
        if made is None:
            continue
        node.replace_all_uses_with(made)
        module.graph.erase_node(node)
        one = Decomposed(
            op=name(node.target), by="iree-pilot", reason=_REASON, price="", message=""
        )
        done.setdefault(one.op, one)
    for node in [*module.graph.nodes]:
        if node.target is _aten._assert_scalar.default and node.args[0] is True:
            module.graph.erase_node(node)
    module.recompile()


def _unknown(node: Node) -> bool:
    """True for an operation on scalars that the importer does not import, or not as Python means
    it."""
    target: Any = node.target
    if node.op != "call_function" or target is operator.getitem:
        return False
    if target in (_aten.item.default, _aten._local_scalar_dense.default):
        return _kind(node) is bool  # the torch dialect's item returns numbers only
    if isinstance(target, OpOverload | HigherOrderOperator) or node.meta.get("val") is None:
        return False
    value = node.meta["val"]
    if not fx_importer.is_symbolic(value):
        return isinstance(value, bool | int | float)
    if not fx_importer.is_builtin_function_or_method(target):
        return True
    packet = fx_importer.PY_BUILTIN_TO_TORCH_OP.get(target.__name__)
    kinds = {_kind(arg) for arg in node.args}
    if packet is None or bool in kinds:
        return True
    if kinds != {int}:
        return False  # the importer chooses among overloads
    overload = getattr(packet, "int", None)
    if overload is None:
        return True
    returned = str(overload._schema.returns[0].type)
    return returned != getattr(_kind(value), "__name__", "")


def _kind(value: Any) -> type | None:
    """bool, int or float: what a node, or a value, is in Python."""
    value = value.meta.get("val") if isinstance(value, Node) else value
    return next((kind for kind, types in _KINDS if isinstance(value, types)), None)


class _ScalarGraph:
    """A graph at the place of a node that is replaced."""

    def __init__(self, graph: torch.fx.Graph, node: Node) -> None:
        self._graph, self._node = graph, node

    def call(self, op: OpOverload, *args: Any) -> Any:
        """A call of an operation of the torch dialect on scalars; computed where all are known."""
        if not any(isinstance(arg, Node) for arg in args):
            return op(*args)
        made = self._graph.call_function(op, args)
        made.meta = {k: v for k, v in self._node.meta.items() if k != "unbacked_bindings"}
        made.meta["val"] = self._value(op)
        return made

    def _value(self, op: OpOverload) -> Any:
        """A symbolic value of the type that the operation returns; its expression is of no use to
        the importer."""
        value = self._node.meta["val"]
        env, kind = value.node.shape_env, str(op._schema.returns[0].type)
        made = {"int": env.create_unbacked_symint, "float": env.create_unbacked_symfloat}
        return made.get(kind, env.create_unbacked_symbool)()

    def as_int(self, value: Any) -> Any:
        """A bool as 0 or 1; an int as it is."""
        return self.call(_aten.Int.bool, value) if _kind(value) is bool else value


def _truth(graph: _ScalarGraph, value: Any) -> Any:
    return graph.call(_aten.Bool.Tensor, value)


def _not(graph: _ScalarGraph, value: Any) -> Any:
    return graph.call(_aten.eq.int, graph.as_int(value), 0)


def _and(graph: _ScalarGraph, *values: Any) -> Any:
    return _on_bools(graph, _aten.mul.int, values)


def _or(graph: _ScalarGraph, *values: Any) -> Any:
    return _on_bools(graph, _aten.add.int, values)


def _on_bools(graph: _ScalarGraph, op: OpOverload, values: Sequence[Any]) -> Any:
    """An operation on bools as 0 and 1; IREE 3.13 does not lower `__not__` of the torch dialect."""
    if {_kind(one) for one in values} != {bool}:
        return None
    return graph.call(_aten.ne.int, graph.call(op, *map(graph.as_int, values)), 0)


def _ite(graph: _ScalarGraph, condition: Any, then: Any, otherwise: Any) -> Any:
    """`otherwise + condition * (then - otherwise)`, exact for ints and bools."""
    if not {_kind(then), _kind(otherwise)} <= {int, bool}:
        return None
    holds, a, b = map(graph.as_int, (condition, then, otherwise))
    step = graph.call(_aten.sub.int, a, b)
    chosen = graph.call(_aten.add.int, b, graph.call(_aten.mul.int, holds, step))
    bools = _kind(then) is bool and _kind(otherwise) is bool
    return graph.call(_aten.ne.int, chosen, 0) if bools else chosen


def _sum(graph: _ScalarGraph, values: Sequence[Any]) -> Any:
    if {_kind(one) for one in values} != {int}:
        return None
    return reduce(lambda a, b: graph.call(_aten.add.int, a, b), values)


def _mod(graph: _ScalarGraph, *values: Any) -> Any:
    """Python's %, with the sign of the divisor: IREE 3.13 gives `aten.remainder.int` that of the
    dividend."""
    if not {_kind(one) for one in values} <= {int, bool}:
        return None
    value, divisor = map(graph.as_int, values)
    quotient = graph.call(_aten.floordiv.int, value, divisor)
    return graph.call(_aten.sub.int, value, graph.call(_aten.mul.int, quotient, divisor))


def _float(graph: _ScalarGraph, value: Any) -> Any:
    return value if _kind(value) is float else graph.call(_aten.Float.Scalar, graph.as_int(value))


def _int(graph: _ScalarGraph, value: Any) -> Any:
    """Towards zero, as Python's int()."""
    if _kind(value) is float:
        return graph.call(_aten.Int.float, value)
    return graph.as_int(value)


def _on_ints(op: OpOverload) -> Callable[..., Any]:
    def rewrite(graph: _ScalarGraph, *args: Any) -> Any:
        if not {_kind(arg) for arg in args} <= {int, bool}:
            return None
        return graph.call(op, *map(graph.as_int, args))

    return rewrite


#: By the function.
_REWRITES: Mapping[Any, Callable[..., Any]] = {
    _aten.item.default: _truth,
    _aten._local_scalar_dense.default: _truth,
    torch.sym_not: _not,
    torch.sym_ite: _ite,
    torch.sym_sum: _sum,
    torch.sym_float: _float,
    torch.sym_int: _int,
    torch.sym_max: _on_ints(_prim.max.int),
    torch.sym_min: _on_ints(_prim.min.int),
    operator.and_: _and,
    operator.or_: _or,
    operator.mod: _mod,
    operator.eq: _on_ints(_aten.eq.int),
    operator.ne: _on_ints(_aten.ne.int),
    operator.lt: _on_ints(_aten.lt.int),
    operator.le: _on_ints(_aten.le.int),
    operator.gt: _on_ints(_aten.gt.int),
    operator.ge: _on_ints(_aten.ge.int),
    operator.add: _on_ints(_aten.add.int),
    operator.sub: _on_ints(_aten.sub.int),
    operator.mul: _on_ints(_aten.mul.int),
}
