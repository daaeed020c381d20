"""Control flow (`scf`, `cf`, calls), scalars, constants and globals, the boundary of a program."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from iree_pilot.pipeline.evaluate.arrays import scalars
from iree_pilot.pipeline.evaluate.dialects.tensor import insert_slice, reinterpreted
from iree_pilot.pipeline.evaluate.machine import constants
from iree_pilot.pipeline.evaluate.machine.elements import Array, ElementKind, Unknown
from iree_pilot.pipeline.evaluate.machine.ir import Operation, read_type
from iree_pilot.pipeline.evaluate.machine.machine import Env, Handler, Machine, operands

_MOST_STEPS = 1 << 20


def _constant(machine: Machine, op: Operation, known: Env) -> list[Array]:
    values, element = constants.values(op.attributes["value"], machine.module.blobs)
    return [machine.held(values, element)]


def _complex_constant(machine: Machine, op: Operation, known: Env) -> list[Array]:
    element = machine.element(op.types[0])
    real, imaginary = (part.value for part in op.attributes["value"])
    return [np.asarray(complex(real, imaginary)).astype(machine.dtype(element))]


def _complex_create(machine: Machine, op: Operation, known: Env) -> list[Array]:
    real, imaginary = operands(op, known)
    element = machine.element(op.types[0])
    return [(real + 1j * imaginary).astype(machine.dtype(element))]


def _scalar(machine: Machine, op: Operation, known: Env) -> list[Array]:
    values = operands(op, known)
    source, result = machine.element(op.taken[-1]), machine.element(op.types[0])
    made = scalars.compute(op.name, values, source, result, machine.undefined)
    return [np.asarray(made)]


def _compare(machine: Machine, op: Operation, known: Env) -> list[Array]:
    a, b = operands(op, known)
    predicate = op.integer("predicate")
    if op.name == "arith.cmpf":
        return [np.asarray(scalars.compare_floats(predicate, a, b))]
    return [np.asarray(scalars.compare_integers(predicate, a, b))]


def _cast(machine: Machine, op: Operation, known: Env) -> list[Array]:
    (values,) = operands(op, known)
    source, result = machine.element(op.taken[0]), machine.element(op.types[0])
    if op.name == "arith.bitcast" and machine.mode.wide and source != result:
        raise Unknown("arith.bitcast depends on the type of the program's own floats")
    if op.name in ("arith.extf", "arith.truncf"):
        return [machine.rounds(values, result)]
    to = machine.dtype(result)
    made = scalars.cast(op.name, values, source, result, to, machine.undefined)
    return [np.asarray(made)]


def _extended(machine: Machine, op: Operation, known: Env) -> list[Array]:
    """Additions and products of twice as many bits, as their low and their high half."""
    a, b = operands(op, known)
    element = machine.element(op.taken[0])
    if element.bits not in (8, 16, 32):
        raise Unknown(f"{op.name} of {element.name} is not evaluated")
    if "ui_" in op.name:
        a, b = scalars.unsigned(a), scalars.unsigned(b)
    a, b = a.astype(np.int64), b.astype(np.int64)
    made = a + b if "add" in op.name else a * b
    if "add" in op.name:
        return [made.astype(element.dtype), made >> element.bits != 0]
    return [made.astype(element.dtype), (made >> element.bits).astype(element.dtype)]


# -- control flow


def _if(machine: Machine, op: Operation, known: Env) -> list[Any]:
    condition = np.asarray(known[op.operands[0]])
    regions = [region[0] for region in op.regions if region]
    if condition.size == 1:
        chosen = 0 if condition.reshape(-1)[0] else 1
        return machine.inside(regions[chosen], known, ()) if chosen < len(regions) else []
    # Inside of a vectorised body: both, each guarded by its condition.
    outer, made = machine.guard, []
    for guard, block in zip((condition, ~condition), regions, strict=False):
        machine.guard = guard if outer is None else guard & outer
        try:
            made.append(machine.inside(block, known, ()))
        finally:
            machine.guard = outer
    if len(made) < 2:
        return []
    return [np.where(condition, a, b).astype(a.dtype) for a, b in zip(*made, strict=True)]


def _bound(values: Array) -> int:
    if np.size(values) != 1:
        raise Unknown("a loop whose bounds differ from element to element is not evaluated")
    return int(np.reshape(values, -1)[0])


def _for(machine: Machine, op: Operation, known: Env) -> list[Any]:
    low, high, step = (_bound(known[v]) for v in op.operands[:3])
    carried = [known[v] for v in op.operands[3:]]
    if step <= 0 or (high - low) // step > _MOST_STEPS:
        raise Unknown(f"a loop from {low} to {high} by {step} is not evaluated")
    kind = machine.dtype(machine.element(op.taken[0]))
    for i in range(low, high, step):
        machine.budget.spend(1)
        carried = machine.inside(op.block, known, [np.asarray(i, kind), *carried])
    return carried


def _while(machine: Machine, op: Operation, known: Env) -> list[Any]:
    before, after = (region[0] for region in op.regions)
    carried = [known[v] for v in op.operands]
    for _ in range(_MOST_STEPS):
        machine.budget.spend(1)
        condition, *values = machine.inside(before, known, carried)
        if not _bound(condition):
            return values
        carried = machine.inside(after, known, values)
    raise Unknown(f"a loop of more than {_MOST_STEPS} steps is not evaluated")


def _index_switch(machine: Machine, op: Operation, known: Env) -> list[Any]:
    value = _bound(known[op.operands[0]])
    cases = op.integers("cases")
    chosen = cases.index(value) + 1 if value in cases else 0
    return machine.inside(op.regions[chosen][0], known, ())


def _forall(machine: Machine, op: Operation, known: Env) -> list[Any]:
    """One point after the other; what is inserted in parallel does not overlap."""
    rest = iter(op.operands)

    def read(name: str) -> list[int]:
        return [int(known[next(rest)]) if size == -(2**63) else size for size in op.integers(name)]

    lows, highs, steps = (read(f"static{name}") for name in ("LowerBound", "UpperBound", "Step"))
    shared = [known[v] for v in rest]
    count = len(lows)
    spans = [range(*bounds) for bounds in zip(lows, highs, steps, strict=True)]
    for at in np.ndindex(*(len(span) for span in spans)):
        machine.budget.spend(1)
        points = [np.int64(span[i]) for span, i in zip(spans, at, strict=True)]
        inner = {v: known[v] for v in op.block.captured if v in known}
        inner.update(zip(op.block.arguments, [*points, *shared], strict=True))
        *ops, last = op.block.ops
        for one in ops:
            inner.update(zip(one.results, machine.operation(one, inner), strict=True))
        for one in last.block.ops:
            if one.name != "tensor.parallel_insert_slice":
                raise Unknown(f"{one.name} is not evaluated")
            (made,) = insert_slice(machine, one, inner)
            target = op.block.arguments[count:].index(one.operands[1])
            shared[target] = inner[one.operands[1]] = made
    return shared


def _call(machine: Machine, op: Operation, known: Env) -> list[Any]:
    name = str(op.attributes["callee"]).removeprefix("@").strip('"')
    return machine.call(name, [known[v] for v in op.operands])


def _assert(machine: Machine, op: Operation, known: Env) -> list[Any]:
    condition = known[op.operands[0]]
    if not np.all(condition):
        said = op.text("msg") or op.text("message")
        raise Unknown(f"what it asserts of its inputs does not hold: {said}")
    return []


# -- globals


def _load(machine: Machine, op: Operation, known: Env) -> list[Any]:
    name = str(op.attributes["global"]).removeprefix("@").strip('"')
    if name not in machine.globals:
        values, element = machine.module.begin(name)
        machine.globals[name] = machine.held(values, element)
    return [machine.globals[name]]


def _store(machine: Machine, op: Operation, known: Env) -> list[Any]:
    machine.globals[str(op.attributes["global"]).removeprefix("@").strip('"')] = known[
        op.operands[0]
    ]
    return []


# -- the boundary of a program


def _import(machine: Machine, op: Operation, known: Env) -> list[Any]:
    """Reads the caller's bytes as the type that the program continues with."""
    values = known[op.operands[0]]
    dynamic = [known[v] for v in op.operands[1:] if known.get(v) is not None]
    shape = machine.shape(op.types[0], dynamic)
    stored, result = (
        machine.element(kind)
        for kind in (read_type(op.attributes["target_encoding"].value), op.types[0])
    )
    if not _alike(stored, result):
        # Inputs are exact, in double precision too.
        read = reinterpreted(op.name, values.astype(stored.dtype), result, shape)
        return [machine.held(read, result)]
    if list(values.shape) != shape:
        raise Unknown(f"an input is {list(values.shape)} where {op.types[0].text} is expected")
    return [values]


def _export(machine: Machine, op: Operation, known: Env) -> list[Any]:
    """Converts the program's result to the type that the caller reads."""
    read, source = (
        machine.element(kind)
        for kind in (read_type(op.attributes["source_encoding"].value), op.taken[0])
    )
    if _alike(read, source):
        return _same(machine, op, known)
    values = known[op.operands[0]]
    if machine.mode.wide:
        raise Unknown(f"{op.name} depends on the type of the program's own floats")
    return [reinterpreted(op.name, values, read, values.shape)]


def _alike(one: ElementKind, other: ElementKind) -> bool:
    """True if the values of both have the same form in memory."""
    if "bool" in (one.family, other.family):
        return True
    return (one.family, one.dtype.itemsize) == (other.family, other.dtype.itemsize)


def _view_dim(machine: Machine, op: Operation, known: Env) -> list[Any]:
    values = known[op.operands[0]]
    return [np.int64(values.shape[op.integer("index")])]


def _view_rank(machine: Machine, op: Operation, known: Env) -> list[Any]:
    return [np.int64(known[op.operands[0]].ndim)]


def _same(machine: Machine, op: Operation, known: Env) -> list[Any]:
    """Returns the first operands, one for each result."""
    if op.operands and op.operands[0] in machine.blank:
        machine.blank.update(op.results)
    return [known.get(v) for v in op.operands[: len(op.results)]]


def _nothing(machine: Machine, op: Operation, known: Env) -> list[Any]:
    return [None] * len(op.results)


def _join(machine: Machine, op: Operation, known: Env) -> list[Any]:
    """Returns the tensors of `hal.tensor.barrier`, without its fences."""
    held = [known[v] for v in op.operands if known.get(v) is not None]
    return held[: len(op.results)]


_SAME = (
    "hal.tensor.alias",
    "hal.tensor.transient",
    "tensor.cast",
    "torch.copy.to_tensor",
    "torch.copy.to_vtensor",
    "iree_tensor_ext.compute_barrier.start",
    "iree_tensor_ext.compute_barrier.end",
    "flow.tensor.clone",
    "flow.tensor.tie_shape",
    "flow.tensor.transfer",
    "flow.tensor.barrier",
    "flow.tensor.encode",
    "iree_encoding.set_encoding",
    "iree_encoding.unset_encoding",
    "util.optimization_barrier",
    "util.numeric.optional_narrow",
    "util.assume.int",
    "tensor_ext.cast_to_ragged_shape",
    "builtin.unrealized_conversion_cast",
)
_SILENT = (
    "hal.fence.create",
    "hal.fence.join",
    "hal.fence.await",
    "hal.fence.signal",
    "hal.devices.get",
    "hal.device.resolve",
    "hal.device.allocator",
    "hal.buffer_view.assert",
    "hal.element_type",
    "hal.encoding_type",
    "util.null",
    "util.global.address",
    "flow.tensor.trace",
    "torch.bind_symbolic_shape",
    "torch.symbolic_int",
)

OPERATIONS: dict[str, Handler] = {
    **dict.fromkeys(scalars.OPERATIONS, _scalar),
    **dict.fromkeys(scalars.CASTS, _cast),
    **dict.fromkeys(_SAME, _same),
    **dict.fromkeys(_SILENT, _nothing),
    "arith.cmpf": _compare,
    "arith.cmpi": _compare,
    "arith.constant": _constant,
    "arith.addui_extended": _extended,
    "arith.mulsi_extended": _extended,
    "arith.mului_extended": _extended,
    "complex.constant": _complex_constant,
    "complex.create": _complex_create,
    "stablehlo.constant": _constant,
    "chlo.constant": _constant,
    "util.unfoldable_constant": _constant,
    "flow.tensor.constant": _constant,
    "flow.tensor.dynamic_constant": _constant,
    "scf.if": _if,
    "scf.for": _for,
    "scf.while": _while,
    "scf.forall": _forall,
    "scf.index_switch": _index_switch,
    "func.call": _call,
    "util.call": _call,
    "cf.assert": _assert,
    "torch.runtime.assert": _assert,
    "util.global.load": _load,
    "ml_program.global_load": _load,
    "ml_program.global_load_const": _load,
    "util.global.store": _store,
    "ml_program.global_store": _store,
    "hal.tensor.import": _import,
    "hal.tensor.export": _export,
    "hal.tensor.barrier": _join,
    "hal.buffer_view.dim": _view_dim,
    "hal.buffer_view.rank": _view_rank,
}
OVERWRITING = frozenset(_SAME)


def initial(machine: Machine) -> Sequence[str]:
    """Carries out a module's initializers; gives those that cannot be, as reasons."""
    faults = []
    for index in range(len(machine.module.initializers)):
        try:
            block = machine.module.initializer(index)[0]
            machine.run(block, {})
        except Unknown as why:
            faults.append(str(why))
    return faults
