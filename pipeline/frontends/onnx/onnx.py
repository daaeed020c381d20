"""ONNX models through IREE's importer; their reference is onnxruntime, or ONNX's own evaluator.

Runs in the tracing child; imports onnx and iree.compiler, and onnxruntime where it is installed.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import itertools
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from iree_pilot.pipeline import extras
from iree_pilot.pipeline.errors import EnvironmentFault, UsageError
from iree_pilot.pipeline.frontends.inputs import examples, fitting_inputs
from iree_pilot.pipeline.frontends.job import Job
from iree_pilot.pipeline.frontends.mlir import mlir_text
from iree_pilot.pipeline.frontends.onnx import onnx_draws
from iree_pilot.pipeline.program import program as programs
from iree_pilot.pipeline.program.program import (
    NUMPY_ELEMENT_TYPES,
    Dim,
    Function,
    MadeUp,
    Program,
    Reference,
    Tensor,
    TensorType,
    check_inputs,
)

_ARCHIVE = "parameters.irpa"
#: Protobuf messages, and so models with their weights inside, end at 2 GiB.
_PROTOBUF_BYTES = 2**31
#: The importer covers operators from this opset on; older models are converted to it.
_OPSET = "17"
#: The importer keeps tensors with fewer elements in the program: many are shapes, which the
#: compiler must see.
_FEW = 100
#: Number of other inputs that are tried if those that were made up do not fit.
_MOST = 24
_LARGEST = 4096
#: Errors of evaluators that do not depend on the inputs.
_UNKNOWN = re.compile(
    r"NotImplemented|[Nn]o (?:implementation|schema)|[Nn]ot (?:implemented|registered)"
    r"|Unable to find|MemoryError"
)
_FUNCTION = re.compile(r'func\.func @"?([^"(]+)"?\(')


def build(job: Job, directory: Path, doing: Callable[[str], None]) -> Program:
    """Imports the file into `directory`; weights go to an archive.

    Raises EnvironmentFault without the extra `onnx` and UsageError for a file that is no model.
    """
    if importlib.util.find_spec("onnx") is None:
        raise EnvironmentFault(
            f"{job.source.text}: reading ONNX models needs the package onnx",
            advice=extras.install("onnx"),
        )
    import onnx

    path = Path(job.source.path or "")
    doing("reading the model")
    try:
        model = onnx.load(path, load_external_data=False)
        onnx.checker.check_model(str(path))
    except Exception as fault:  # protobuf's, the checker's and the file system's
        raise UsageError(
            f"{path} is not a valid ONNX model: {str(fault).strip().splitlines()[0]}",
            advice="Was it written to the end, with its external data beside it?",
        ) from fault
    doing("importing to MLIR")
    _import(model, path, directory)
    text = (directory / programs.MLIR).read_text(encoding="utf-8")
    parameters = mlir_text.parameters(text)
    archive = directory / _ARCHIVE
    if parameters is not None and archive.is_file():
        parameters = msgspec.structs.replace(parameters, archives=job.weights or (_ARCHIVE,))
    name = _FUNCTION.search(text)
    function = _signature(model, name[1] if name else model.graph.name)
    doing("evaluating the model")
    function, note = _example(job, model, path, function, directory)
    return Program(
        source=job.source.text,
        digest=hashlib.sha256(text.encode()).hexdigest(),
        functions=(function,),
        parameters=parameters,
        origin={"onnx": importlib.metadata.version("onnx")},
        notes=(note,) if note else (),
    )


def external_files(model: Any, path: Path) -> set[Path]:
    """The files beside the model at `path` that hold its external data."""
    from onnx.external_data_helper import ExternalDataInfo

    return {path.parent / ExternalDataInfo(t).location for t in _external(model)}


def _external(model: Any) -> list[Any]:
    from onnx.external_data_helper import uses_external_data

    return [t for t in model.graph.initializer if uses_external_data(t)]


def _import(model: Any, path: Path, directory: Path) -> None:
    from iree.compiler.tools.import_onnx.__main__ import main, parse_arguments

    files = (path, *external_files(model, path))
    large = sum(file.stat().st_size for file in files) >= _PROTOBUF_BYTES
    arguments = ["-o", str(directory / programs.MLIR), "--externalize-params"]
    arguments += ["--save-params-to", str(directory / _ARCHIVE)]
    arguments += ["--num-elements-threshold", str(_FEW)]
    if large:
        copy = _without_weights(model, path, directory)
        chosen = parse_arguments([str(copy), "--large-model", *arguments])
        chosen.data_dir = str(path.parent)  # the option gives a Path, which onnx does not take
        main(chosen)
        copy.unlink()
    else:
        main(parse_arguments([str(path), "--opset-version", _OPSET, *arguments]))


def _without_weights(model: Any, path: Path, directory: Path) -> Path:
    """A copy of a large model whose external data are only its weights.

    The importer reads nothing external of a large model but what it writes to the archive, so the
    few elements that it keeps in the program must be inside; and it writes files beside its input.
    """
    import onnx
    from onnx.external_data_helper import load_external_data_for_tensor

    light = onnx.ModelProto()
    light.CopyFrom(model)
    for tensor in _external(light):
        if math.prod(tensor.dims) < _FEW:
            load_external_data_for_tensor(tensor, str(path.parent))
            tensor.data_location = onnx.TensorProto.DEFAULT
            del tensor.external_data[:]
    copy = directory / "light.onnx"
    copy.write_bytes(light.SerializeToString())
    return copy


def _signature(model: Any, name: str) -> Function:
    weights = {tensor.name for tensor in model.graph.initializer}
    return Function(
        name=name,
        inputs=tuple(_type(v) for v in model.graph.input if v.name not in weights),
        outputs=tuple(_type(v) for v in model.graph.output),
    )


def _type(value: Any) -> TensorType:
    import onnx

    tensor = value.type.tensor_type
    numpy_name = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
    by_numpy = NUMPY_ELEMENT_TYPES
    if numpy_name not in by_numpy:
        raise UsageError(
            f"{value.name} has element type {numpy_name}, which IREE programs cannot take",
            advice=f"Known: {', '.join(by_numpy)}.",
        )
    shape = tuple(
        d.dim_value
        if d.HasField("dim_value")
        else Dim(symbol=d.dim_param or f"{value.name}_d{axis}")
        for axis, d in enumerate(tensor.shape.dim)
    )
    return TensorType(name=value.name, dtype=by_numpy[numpy_name], shape=shape)


def _example(
    job: Job, model: Any, path: Path, function: Function, directory: Path
) -> tuple[Function, str]:
    """The function with its example inputs and reference; what computed it, or why it has none.

    Where nobody gave inputs, and the evaluators refuse those that were made up, others are tried.
    """
    if job.inputs:
        check_inputs(function, job.inputs, job.source.text)
        return _referenced(model, path, function, job.inputs, directory)
    made_up = MadeUp(seed=job.seed)
    inputs = examples.random(function, job.seed, directory)
    fed, said = _referenced(model, path, function, inputs, directory)
    first = msgspec.structs.replace(fed, made_up=made_up), said
    if fed.reference is not None or _UNKNOWN.search(fed.unevaluated):
        return first
    others = fitting_inputs.alternatives(function, made_up, (1,), _sizes(model))
    for other in itertools.islice(others, _MOST):
        inputs = examples.random(function, job.seed, directory, other)
        made = _referenced(model, path, function, inputs, directory)
        if made[0].reference is not None:
            again = msgspec.structs.replace(made[0], made_up=other)
            note = fitting_inputs.made_again(again, first[0].unevaluated)
            return made[0], f"{note}; {made[1]}"
    inputs = examples.random(function, job.seed, directory)
    fed, said = _referenced(model, path, function, inputs, directory)
    return msgspec.structs.replace(fed, made_up=made_up), said


def _sizes(model: Any) -> tuple[int, ...]:
    """Sizes that the model names: in the shapes of its constants, and in those that are lists."""
    import onnx

    found: list[int] = []
    constants = [a.t for node in model.graph.node for a in node.attribute if a.type == a.TENSOR]
    for tensor in (*model.graph.initializer, *constants):
        found += tensor.dims
        if tensor.data_type == onnx.TensorProto.INT64 and len(tensor.dims) == 1:
            with contextlib.suppress(ValueError, OSError):  # it may lie in another file
                found += map(int, onnx.numpy_helper.to_array(tensor))
    return tuple(dict.fromkeys(size for size in found if 1 < size < _LARGEST))


def _referenced(
    model: Any, path: Path, function: Function, inputs: tuple[Tensor, ...], directory: Path
) -> tuple[Function, str]:
    """The function with these inputs and what an evaluator makes of them, as `_example` has it."""
    import numpy

    example, feeds = [], {}
    (directory / "data").mkdir(exist_ok=True)
    for index, (want, given) in enumerate(zip(function.inputs, inputs, strict=True)):
        raw = (directory / given.file).read_bytes()
        values = numpy.frombuffer(raw, examples.numpy_dtype(given.dtype)).reshape(given.shape)
        feeds[want.name] = values
        example.append(_save(values, given.dtype, f"data/input{index}.bin", directory))
    fed = msgspec.structs.replace(function, example=tuple(example))
    try:
        results, evaluator = _evaluated(model, path, feeds)
        outputs = tuple(
            _save(numpy.asarray(value), want.dtype, f"data/output{index}.bin", directory)
            for index, (want, value) in enumerate(zip(function.outputs, results, strict=True))
        )
    except Exception as fault:  # noqa: BLE001 - the evaluator does not know every operator
        said = str(fault).strip().splitlines() or [""]
        why = f"onnx.reference: {type(fault).__name__}: {said[0]}"
        unevaluated = msgspec.structs.replace(fed, unevaluated=why)
        return unevaluated, f"there is nothing to compare with: {why}"
    reference = Reference(
        outputs=outputs, evaluator=evaluator, incomparable=onnx_draws.reasons(model)
    )
    note = f"the outputs are compared with those of {evaluator}"
    return msgspec.structs.replace(fed, reference=reference), note


def _evaluated(model: Any, path: Path, feeds: dict[str, Any]) -> tuple[list[Any], str]:
    """(the model's outputs, what computed them): onnxruntime where it is installed and can.

    It reads external data as it needs them; ONNX's own evaluator takes the whole model into memory.
    """
    import onnx
    from onnx.reference import ReferenceEvaluator

    refused = ""
    if importlib.util.find_spec("onnxruntime") is not None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # its exception says what it refuses
        try:
            session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
            return session.run(None, feeds), f"onnxruntime {onnxruntime.__version__}"
        except Exception as fault:  # noqa: BLE001 - it lacks operators and element types
            why = str(fault).strip().splitlines() or [""]
            refused = f", as onnxruntime refuses it: {why[0]}"
    onnx.load_external_data_for_model(model, str(path.parent))
    results = ReferenceEvaluator(model).run(None, feeds)
    return list(results), f"onnx {onnx.__version__} reference{refused}"


def _save(values: Any, dtype: str, file: str, directory: Path) -> Tensor:
    (directory / file).write_bytes(values.astype(examples.numpy_dtype(dtype)).tobytes())
    return Tensor(dtype=dtype, shape=tuple(values.shape), file=file)
