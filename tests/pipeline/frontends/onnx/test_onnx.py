"""ONNX models become programs; their reference is onnxruntime's, or ONNX's own evaluator's."""

from __future__ import annotations

import importlib.util
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy
import pytest

from iree_pilot.pipeline.errors import UsageError
from iree_pilot.pipeline.frontends import source as sources
from iree_pilot.pipeline.frontends.job import Job
from iree_pilot.pipeline.program.program import Dim, Program, Tensor

pytestmark = pytest.mark.real


def matmul(
    path: Path, *, external: bool = False, weight: Any = None, batch: str | int = "batch"
) -> Any:
    """Writes a model y = relu(x @ weight) and returns the weight."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    if weight is None:
        weight = numpy.arange(-64, 64, dtype=numpy.float32).reshape(4, 32)
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "weight"], ["product"]),
            helper.make_node("Reshape", ["product", "shape"], ["same"]),
            helper.make_node("Relu", ["same"], ["y"]),
        ],
        "small-model",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, weight.shape[0]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, weight.shape[1]])],
        [
            numpy_helper.from_array(weight, "weight"),
            numpy_helper.from_array(numpy.array([-1, weight.shape[1]]), "shape"),
        ],
    )
    opsets = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    onnx.save(
        model,
        path,
        save_as_external_data=external,
        location=f"{path.name}.data",
        size_threshold=0,
    )
    return weight


@pytest.fixture
def build(tmp_path: Path) -> Any:
    from iree_pilot.pipeline.frontends.onnx import onnx

    def made(path: Path, **job: Any) -> tuple[Program, Path]:
        place = tmp_path / "program"
        place.mkdir()
        source = sources.parse(str(path), {}, None)
        return onnx.build(Job(source=source, **job), place, lambda doing: None), place

    return made


def check(program: Program, place: Path, weight: Any) -> None:
    """The reference is what numpy computes from the example inputs."""
    (function,) = program.functions
    assert function.example is not None
    assert function.reference is not None
    (x,), (y,) = function.example, function.reference.outputs
    inputs = numpy.frombuffer((place / x.file).read_bytes(), numpy.float32).reshape(x.shape)
    outputs = numpy.frombuffer((place / y.file).read_bytes(), numpy.float32).reshape(y.shape)
    numpy.testing.assert_allclose(outputs, numpy.maximum(inputs @ weight, 0), rtol=1e-6)
    assert function.reference.evaluator in "; ".join(program.notes)


def test_signature_parameters_and_reference(build: Any, tmp_path: Path) -> None:
    weight = matmul(tmp_path / "a.onnx")
    program, place = build(tmp_path / "a.onnx")
    (function,) = program.functions
    (x,) = function.inputs
    assert (x.name, x.dtype, x.shape) == ("x", "f32", (Dim(symbol="batch"), 4))
    assert function.outputs[0].shape == (Dim(symbol="batch"), 32)
    assert function.name == "small-model"
    assert 'func.func @"small-model"(' in (place / "program.mlir").read_text()
    assert program.parameters is not None
    assert [str(p) for p in program.parameters.tensors] == ["weight: 4x32xf32"]
    assert (place / program.parameters.archives[0]).stat().st_size >= weight.nbytes
    check(program, place, weight)


def test_external_data_is_found_beside_the_model(build: Any, tmp_path: Path) -> None:
    weight = matmul(tmp_path / "a.onnx", external=True)
    assert (tmp_path / "a.onnx.data").stat().st_size >= weight.nbytes
    program, place = build(tmp_path / "a.onnx")
    check(program, place, weight)


def test_a_model_too_large_for_protobuf_is_never_held_whole(
    build: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from iree.compiler.tools.import_onnx import __main__ as importer

    from iree_pilot.pipeline.frontends.onnx import onnx

    called: list[Any] = []
    main = importer.main

    def noted(arguments: Any) -> Any:
        called.append(arguments)
        return main(arguments)

    weight = matmul(tmp_path / "a.onnx", external=True, batch=2)
    monkeypatch.setattr(importer, "main", noted)
    monkeypatch.setattr(onnx, "_PROTOBUF_BYTES", weight.nbytes)
    program, place = build(tmp_path / "a.onnx")
    assert called[0].large_model
    assert sorted(f.name for f in tmp_path.iterdir()) == ["a.onnx", "a.onnx.data", "program"]
    assert not list(place.glob("*.onnx"))
    assert program.parameters is not None
    assert [str(p) for p in program.parameters.tensors] == ["weight: 4x32xf32"]
    check(program, place, weight)


def test_the_reference_is_that_of_onnxruntime(build: Any, tmp_path: Path) -> None:
    matmul(tmp_path / "a.onnx")
    program, _ = build(tmp_path / "a.onnx")
    reference = program.functions[0].reference
    assert reference is not None
    assert reference.evaluator == f"onnxruntime {metadata.version('onnxruntime')}"


def test_without_onnxruntime_it_is_onnx_evaluator(
    build: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "onnxruntime" else found(name)
    )
    weight = matmul(tmp_path / "a.onnx")
    program, place = build(tmp_path / "a.onnx")
    check(program, place, weight)
    assert f"those of onnx {metadata.version('onnx')} reference" in program.notes[0]


def test_what_onnxruntime_refuses_is_evaluated_by_onnx(build: Any, tmp_path: Path) -> None:
    import onnx
    from onnx import TensorProto, helper

    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "x"], ["y"])],
        "g",
        [value("x", TensorProto.BFLOAT16, [4])],
        [value("y", TensorProto.BFLOAT16, [4])],
    )
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets), tmp_path / "a.onnx")
    program, _ = build(tmp_path / "a.onnx")
    assert program.functions[0].reference is not None
    assert "as onnxruntime refuses it" in program.functions[0].reference.evaluator


def test_data_that_is_missing_is_told(build: Any, tmp_path: Path) -> None:
    matmul(tmp_path / "a.onnx", external=True)
    (tmp_path / "a.onnx.data").unlink()
    with pytest.raises(UsageError, match=r"a\.onnx is not a valid ONNX model") as caught:
        build(tmp_path / "a.onnx")
    assert "external data" in caught.value.advice
    assert "a.onnx.data" in caught.value.message


def test_the_users_inputs(build: Any, tmp_path: Path) -> None:
    weight = matmul(tmp_path / "a.onnx")
    values = numpy.ones((2, 4), numpy.float32)
    (tmp_path / "x.bin").write_bytes(values.tobytes())
    given = Tensor(dtype="f32", shape=(2, 4), file=str(tmp_path / "x.bin"))
    program, place = build(tmp_path / "a.onnx", inputs=(given,))
    check(program, place, weight)
    assert program.functions[0].example[0].shape == (2, 4)


def test_inputs_that_do_not_fit(build: Any, tmp_path: Path) -> None:
    matmul(tmp_path / "a.onnx")
    (tmp_path / "x.bin").write_bytes(bytes(40))
    given = Tensor(dtype="f32", shape=(2, 5), file=str(tmp_path / "x.bin"))
    with pytest.raises(UsageError, match="dimension 1 is 5 where 4 is expected"):
        build(tmp_path / "a.onnx", inputs=(given,))


@pytest.mark.parametrize("content", [b"not protobuf at all", b"\x08\x0a\x12", b"html " * 100])
def test_what_is_no_model(build: Any, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.onnx").write_bytes(content)
    with pytest.raises(UsageError, match=r"a\.onnx is not a valid ONNX model"):
        build(tmp_path / "a.onnx")


def test_what_is_a_web_page(build: Any, tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"<html>" * 100)
    with pytest.raises(UsageError, match=r"a\.onnx: it is a web page, not the file"):
        build(tmp_path / "a.onnx")


def test_a_model_that_was_cut_short(build: Any, tmp_path: Path) -> None:
    matmul(tmp_path / "a.onnx")
    whole = (tmp_path / "a.onnx").read_bytes()
    (tmp_path / "a.onnx").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UsageError, match=r"a\.onnx is not a valid ONNX model"):
        build(tmp_path / "a.onnx")


def test_without_a_reference_the_program_says_why(build: Any, tmp_path: Path) -> None:
    import onnx
    from onnx import TensorProto, helper

    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("NoSuchOperator", ["x"], ["y"], domain="org.example")],
        "g",
        [value("x", TensorProto.FLOAT, [2])],
        [value("y", TensorProto.FLOAT, [2])],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("org.example", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets), tmp_path / "a.onnx")
    program, _ = build(tmp_path / "a.onnx")
    assert program.functions[0].reference is None
    assert any("nothing to compare with" in note for note in program.notes)


def test_indices_that_nobody_gave_are_made_up_until_they_fit(build: Any, tmp_path: Path) -> None:
    import onnx
    from onnx import TensorProto, helper

    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Gather", ["x", "i"], ["y"])],
        "g",
        [value("x", TensorProto.FLOAT, [2, 3]), value("i", TensorProto.INT64, [16])],
        [value("y", TensorProto.FLOAT, [16, 3])],
    )
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), tmp_path / "a.onnx")
    program, _ = build(tmp_path / "a.onnx")
    assert program.functions[0].reference is not None
    assert any("were made up again" in note for note in program.notes)


@pytest.mark.parametrize(
    ("operator", "other"), [("MatMul", ["k", "m"]), ("Add", [7]), ("Concat", [2, 9])]
)
def test_sizes_that_nobody_gave_are_made_up_until_they_fit(
    build: Any, tmp_path: Path, operator: str, other: list[Any]
) -> None:
    import numpy
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    value = helper.make_tensor_value_info
    sizes = ["n", 12] if operator == "MatMul" else ["n", "d"]
    inputs = [value("x", TensorProto.FLOAT, sizes)]
    constants = []
    if operator == "MatMul":
        inputs.append(value("w", TensorProto.FLOAT, other))
    else:
        constants.append(numpy_helper.from_array(numpy.ones(other, numpy.float32), "w"))
    node = helper.make_node(operator, ["x", "w"], ["y"])
    if operator == "Concat":
        node.attribute.append(helper.make_attribute("axis", 0))
    graph = helper.make_graph(
        [node], "g", inputs, [value("y", TensorProto.FLOAT, ["r", "s"])], constants
    )
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), tmp_path / "a.onnx")
    program, _ = build(tmp_path / "a.onnx")
    assert program.functions[0].reference is not None, program.notes
    assert any("were made up again" in note for note in program.notes)


def test_it_runs_and_agrees_end_to_end(tmp_path: Path) -> None:
    from driver import pilot

    matmul(tmp_path / "a.onnx", external=True)
    done = pilot("run", tmp_path / "a.onnx", "-t", "llvm-cpu", "--json")
    assert done.code == 0, done.err
    (case,) = done.document["cases"]
    assert case["status"] == "ok"
    assert case["comparison"]["rel_l2"] < 1e-6
    (tmp_path / "a.onnx.data").write_bytes(bytes((tmp_path / "a.onnx.data").stat().st_size))
    again = pilot("run", tmp_path / "a.onnx", "-t", "llvm-cpu", "--json")
    assert not again.document["program"]["cached"], "its external data changed"
