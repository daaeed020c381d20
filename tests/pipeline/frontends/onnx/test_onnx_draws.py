"""Outputs of ONNX models that depend on random numbers are named, and others are not."""

from __future__ import annotations

from typing import Any

import numpy
import pytest

from iree_pilot.pipeline.frontends.onnx import onnx_draws

onnx = pytest.importorskip("onnx")


def reasons(nodes: list[Any], *outputs: str, **held: Any) -> tuple[str, ...]:
    kind = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        nodes,
        "drawing",
        [onnx.helper.make_tensor_value_info("x", kind, [4])],
        [onnx.helper.make_tensor_value_info(name, kind, [4]) for name in outputs],
        [onnx.numpy_helper.from_array(numpy.array(v), name) for name, v in held.items()],
    )
    return onnx_draws.reasons(onnx.helper.make_model(graph))


node = onnx.helper.make_node


def test_outputs_are_told_apart() -> None:
    nodes = [
        node("RandomNormalLike", ["x"], ["noise"]),
        node("Add", ["x", "noise"], ["noisy"]),
        node("Shape", ["noisy"], ["shape"]),
        node("Expand", ["x", "shape"], ["plain"]),
    ]
    assert reasons(nodes, "noisy", "plain") == ("it draws random numbers: RandomNormalLike", "")
    assert reasons(nodes, "plain") == ()


@pytest.mark.parametrize(
    ("inputs", "draws"),
    [
        (["x"], False),
        (["x", "half"], False),
        (["x", "half", "yes"], True),
        (["x", "half", "no"], False),
        (["x", "none", "yes"], False),
        (["x", "", "yes"], True),
    ],
)
def test_dropout_draws_in_training_only(inputs: list[str], draws: bool) -> None:
    held = {"half": numpy.float32(0.5), "none": numpy.float32(0), "yes": True, "no": False}
    found = reasons([node("Dropout", inputs, ["y"])], "y", **held)
    assert found == (("it draws random numbers: Dropout",) if draws else ())


def test_what_draws_in_a_branch_is_found() -> None:
    value = onnx.helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, [4])
    one = onnx.helper.make_graph([node("Bernoulli", ["x"], ["z"])], "one", [], [value])
    other = onnx.helper.make_graph([node("Neg", ["x"], ["z"])], "other", [], [value])
    nodes = [
        node("If", ["flag"], ["y"], then_branch=one, else_branch=other),
        node("Neg", ["x"], ["plain"]),
    ]
    found = reasons(nodes, "y", "plain", flag=numpy.array(True))
    assert found == ("it draws random numbers: Bernoulli", "")
