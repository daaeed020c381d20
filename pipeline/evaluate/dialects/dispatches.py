"""Dispatches of `flow`: what runs on a device, before it is cut into workgroups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from iree_pilot.pipeline.evaluate.dialects.tensor import segments, slices
from iree_pilot.pipeline.evaluate.machine.elements import Array, Unknown
from iree_pilot.pipeline.evaluate.machine.ir import Block, Operation
from iree_pilot.pipeline.evaluate.machine.machine import Env, Handler, Machine

_DYNAMIC = -(2**63)


class DispatchTensor:
    """A tensor in memory that a dispatch reads from and writes to."""

    def __init__(self, values: Array) -> None:
        self.values = values


def _dispatch(machine: Machine, op: Operation, known: Env) -> list[Array]:
    """A dispatch of an executable, by its name."""
    names = op.attributes["entry_points"][0].value
    block = machine.module.exported(str(names[0]), str(names[-1]))
    return _carried_out(machine, op, known, block, {})


def _workgroups(machine: Machine, op: Operation, known: Env) -> list[Array]:
    block = op.regions[0][0]
    captured = {value: known[value] for value in block.captured if value in known}
    return _carried_out(machine, op, known, block, captured)


def _carried_out(
    machine: Machine, op: Operation, known: Env, block: Block, captured: Env
) -> list[Array]:
    """Results are written to new memory, but where they are tied to an operand."""
    _, arguments, _, sizes = segments(op)
    given = [known[value] for value in arguments]
    held = [DispatchTensor(v.copy()) if isinstance(v, np.ndarray) and v.ndim else v for v in given]
    for index, kind in enumerate(block.types[: len(held)]):
        if "dispatch.tensor" in kind.text and not isinstance(held[index], DispatchTensor):
            held[index] = DispatchTensor(np.array(given[index]))
        elif "dispatch.tensor" not in kind.text and isinstance(held[index], DispatchTensor):
            held[index] = given[index]
    tied = op.integers("tied_operands") or [-1] * len(op.results)
    first = op.operands.index(arguments[0]) if arguments else 0
    rest = iter(sizes)
    made: list[DispatchTensor] = []
    for kind, operand in zip(op.types, tied, strict=True):
        shape = [int(known[next(rest)]) if s is None else s for s in kind.shape or ()]
        if operand >= 0:
            made.append(held[operand - first])
            continue
        machine.spend(*shape)
        dtype = machine.dtype(machine.element(kind))
        filled = np.full(shape, machine.mode.filler, np.int8).astype(dtype)
        made.append(DispatchTensor(filled))
        held.append(made[-1])
    inner = dict(captured)
    if len(held) != len(block.arguments):
        raise Unknown(f"{op.name} with {len(held)} values for {len(block.arguments)} arguments")
    inner.update(zip(block.arguments, held, strict=True))
    machine.run(block, inner)
    return [one.values for one in made]


def _region(machine: Machine, op: Operation, known: Env) -> list[Any]:
    return machine.inside(op.regions[0][0], known, ())


def _places(op: Operation, known: Env, groups: Sequence[Sequence[int]]) -> Any:
    """(offsets, sizes, strides), the dynamic ones by their values."""

    def read(name: str, dynamic: Sequence[int]) -> list[int]:
        rest = iter(dynamic)
        return [int(known[next(rest)]) if s == _DYNAMIC else s for s in op.integers(name)]

    names = ("static_offsets", "static_sizes", "static_strides")
    return tuple(read(name, group) for name, group in zip(names, groups, strict=True))


def _load(machine: Machine, op: Operation, known: Env) -> list[Array]:
    source, _, *groups = segments(op)
    held = known[source[0]]
    part = held.values[slices(held.values.shape, _places(op, known, groups))]
    kind = op.types[0].shape or ()
    if part.ndim != len(kind):
        part = part.reshape([size for size in part.shape if size != 1] or [1] * len(kind))
    return [part.copy()]


def _store(machine: Machine, op: Operation, known: Env) -> list[Array]:
    value, target, _, *groups = segments(op)
    held, stored = known[target[0]], known[value[0]]
    where = slices(held.values.shape, _places(op, known, groups))
    held.values[where] = stored.reshape(held.values[where].shape)
    return []


def _same(machine: Machine, op: Operation, known: Env) -> list[Any]:
    return [known[op.operands[0]]]


OPERATIONS: dict[str, Handler] = {
    "flow.dispatch": _dispatch,
    "flow.dispatch.workgroups": _workgroups,
    "flow.dispatch.region": _region,
    "flow.dispatch.tie_shape": _same,
    "iree_tensor_ext.dispatch.tensor.load": _load,
    "iree_tensor_ext.dispatch.tensor.store": _store,
    "iree_tensor_ext.dispatch.workload.ordinal": _same,
}
