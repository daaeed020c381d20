"""Operations of ONNX inside of MLIR (`torch.operator "onnx.Relu"`).

Each becomes an ONNX model of one node again, evaluated by onnxruntime, or by onnx's own reference
evaluator where onnxruntime lacks the types: by nothing of the importer's or IREE's. Both packages
are extras.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from iree_pilot.pipeline.evaluate.dialects import torch_ops
from iree_pilot.pipeline.evaluate.machine import constants
from iree_pilot.pipeline.evaluate.machine.elements import Array, Unknown
from iree_pilot.pipeline.evaluate.machine.ir import Operation
from iree_pilot.pipeline.evaluate.machine.machine import Env, Handler, Machine

_PREFIX = "onnx."
_ATTRIBUTE = "torch.onnx."
_OPSETS = "torch.onnx_meta.opset_version"
_RANDOM = ("Bernoulli", "Multinomial", "RandomNormal", "RandomUniform")
#: Casts, which name the type of their result; in double precision that is another one.
_CASTS = ("Cast", "CastLike")


def _operator(machine: Machine, op: Operation, known: Env) -> list[Any]:
    name = op.attributes["name"].value
    if not name.startswith(_PREFIX):
        return torch_ops.carry_out(machine, op, known)
    kind = name.removeprefix(_PREFIX)
    if op.regions and op.regions[0]:
        raise Unknown(f"{name} has a body of its own")
    if kind.startswith(_RANDOM):
        raise Unknown(f"what {name} gives is random")
    given = [known[v] for v in op.operands]
    if kind in _CASTS and machine.mode.wide:
        result, values = machine.element(op.types[0]), np.asarray(given[0])
        if result.family == "float" and values.dtype.kind == "f":
            return [machine.rounds(values, result)]
    made = _evaluated(machine, op, kind, given)
    return [_fitted(machine, op, i, value) for i, value in enumerate(made)]


def _fitted(machine: Machine, op: Operation, index: int, value: Array) -> Array:
    """A result in the type of the program; its shape must be that of the program."""
    kind = op.types[index]
    element = machine.element(kind)
    value = np.asarray(value)
    sizes = kind.shape or ()
    if len(sizes) != value.ndim or any(
        size not in (None, own) for size, own in zip(sizes, value.shape, strict=True)
    ):
        raise Unknown(f"ONNX gives {list(value.shape)} where the program has {kind.text}")
    return value.astype(machine.dtype(element))


def _evaluated(machine: Machine, op: Operation, kind: str, given: list[Any]) -> list[Array]:
    model, feeds = _model(machine, op, kind, given)
    why = "neither onnx nor onnxruntime is installed"
    for package, run in (("onnxruntime", _by_runtime), ("onnx", _by_reference)):
        try:
            module = importlib.import_module(package)
        except ImportError:
            continue
        try:
            found = run(model, feeds)
        except Exception as fault:  # noqa: BLE001 - whatever either raises, the other is asked
            why = f"{package} says {str(fault).splitlines()[:1] or type(fault).__name__}"
            continue
        machine.used.add(f"{package} {module.__version__}")
        return found
    raise Unknown(f"onnx.{kind}: {why}")


def _by_runtime(model: Any, feeds: dict[str, Array]) -> list[Array]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return list(session.run(None, feeds))


def _by_reference(model: Any, feeds: dict[str, Array]) -> list[Array]:
    from onnx.reference import ReferenceEvaluator

    return list(ReferenceEvaluator(model).run(None, feeds))


def _model(
    machine: Machine, op: Operation, kind: str, given: list[Any]
) -> tuple[Any, dict[str, Array]]:
    """(a model of one node, what it is fed with)."""
    try:
        import onnx
        from onnx import helper
    except ImportError:
        raise Unknown(f"onnx.{kind}: the package onnx is not installed") from None
    feeds = {f"x{i}": np.asarray(v) for i, v in enumerate(given) if v is not None}
    inputs = [f"x{i}" if v is not None else "" for i, v in enumerate(given)]
    outputs = [f"y{i}" for i in range(len(op.results))]
    attributes = {
        name: _attribute(machine, op.attributes[_ATTRIBUTE + name]) for name in _names(op)
    }
    node = helper.make_node(kind, inputs, outputs, **attributes)
    graph = helper.make_graph(
        [node],
        "one",
        [
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(values.dtype), values.shape
            )
            for name, values in feeds.items()
        ],
        [onnx.ValueInfoProto(name=name) for name in outputs],
    )
    opset = helper.make_opsetid("", _opset(op))
    return helper.make_model(graph, opset_imports=[opset], ir_version=10), feeds


def _names(op: Operation) -> list[str]:
    found = [one if isinstance(one, str) else one.name for one in op.attributes]
    return [name.removeprefix(_ATTRIBUTE) for name in found if name.startswith(_ATTRIBUTE)]


def _opset(op: Operation) -> int:
    """Opset of the enclosing function, else the newest that onnx knows."""
    import onnx

    parent = op.raw.parent
    if parent is not None and _OPSETS in parent.attributes:
        return int(parent.attributes[_OPSETS].value)
    return int(onnx.defs.onnx_opset_version())


def _attribute(machine: Machine, raw: Any) -> Any:
    from iree.compiler import ir
    from onnx import numpy_helper

    if isinstance(raw, ir.ArrayAttr):
        return [_attribute(machine, one) for one in raw]
    if isinstance(raw, ir.StringAttr | ir.IntegerAttr | ir.FloatAttr | ir.BoolAttr):
        return raw.value
    values, _ = constants.values(raw, machine.module.blobs)
    return numpy_helper.from_array(np.asarray(values))


OPERATIONS: dict[str, Handler] = {"torch.operator": _operator}
