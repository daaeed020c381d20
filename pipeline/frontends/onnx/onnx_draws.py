"""Outputs of an ONNX model that depend on random numbers. Imports onnx on demand."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_DRAWING = (
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
    "Bernoulli",
    "Multinomial",
)
#: Takes no more than the shape of what it is given.
_SHAPES_ONLY = ("Shape", "Size")


def reasons(model: Any) -> tuple[str, ...]:
    """Reason for each output of the model that it cannot be compared; empty if all can."""
    found = _drawn(model.graph, {}, _constants(model.graph))
    described = tuple(
        f"it draws random numbers: {', '.join(names)}" if names else ""
        for names in (found.get(output.name, ()) for output in model.graph.output)
    )
    return described if any(described) else ()


def _drawn(
    graph: Any, outside: dict[str, tuple[str, ...]], constants: dict[str, Any]
) -> dict[str, tuple[str, ...]]:
    """Random operations that values depend on, by the values' names."""
    found = dict(outside)
    for node in graph.node:
        names = [name for value in node.input for name in found.get(value, ())]
        if _draws(node, constants):
            names.append(node.op_type)
        for body in _bodies(node):
            inner = _drawn(body, found, constants | _constants(body))
            # A loop hands what it computes to its next turn: whatever draws in it may reach all.
            names += [name for drawing in inner.values() for name in drawing]
        if names and node.op_type not in _SHAPES_ONLY:
            found.update(dict.fromkeys(node.output, tuple(dict.fromkeys(names))))
    return found


def _bodies(node: Any) -> Iterator[Any]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _draws(node: Any, constants: dict[str, Any]) -> bool:
    if node.op_type in _DRAWING:
        return True
    if node.op_type != "Dropout" or len(node.input) < 3 or not node.input[2]:
        return False
    ratio, training = (constants.get(name) for name in node.input[1:3])
    return not (training is not None and not training) and not (ratio is not None and not ratio)


def _constants(graph: Any) -> dict[str, Any]:
    """Single numbers that the graph holds, by name."""
    from onnx import numpy_helper

    tensors = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.name == "value":
                tensors[node.output[0]] = attribute.t
    return {
        name: numpy_helper.to_array(tensor).reshape(-1)[0]
        for name, tensor in tensors.items()
        if list(tensor.dims) in ([], [1]) and not tensor.external_data
    }
