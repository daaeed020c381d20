"""Running modules: bits in and out, weights, latency, and what a run that fails says."""

from __future__ import annotations

import json
import math
import os
import random
import sys
import time
from pathlib import Path

import msgspec
import pytest
from fake import stub_toolchain
from fake.archives import write_gguf, write_safetensors

from iree_pilot.pipeline.errors import EnvironmentFault, UsageError
from iree_pilot.pipeline.execution import runtime
from iree_pilot.pipeline.execution.runtime import Run, RunResult
from iree_pilot.pipeline.processes import process
from iree_pilot.pipeline.processes.process import Limits, Outcome
from iree_pilot.pipeline.program.program import (
    ELEMENT_TYPES,
    Dim,
    Function,
    Parameter,
    Parameters,
    Program,
    Tensor,
    TensorType,
)
from iree_pilot.pipeline.toolchain import toolchain
from iree_pilot.pipeline.toolchain.context import Context
from iree_pilot.pipeline.toolchain.toolchain import Toolchain

CPU = (
    "--iree-hal-target-device=local",
    "--iree-hal-local-target-device-backends=llvm-cpu",
    "--iree-llvmcpu-target-cpu=host",
    "--iree-input-demote-f64-to-f32=false",
)
LOOP = """
func.func @main(%limit: tensor<i32>) -> tensor<i32> {
  %zero = arith.constant 0 : i32
  %one = arith.constant 1 : i32
  %until = tensor.extract %limit[] : tensor<i32>
  %last = scf.while (%i = %zero) : (i32) -> i32 {
    %more = arith.cmpi slt, %i, %until : i32
    scf.condition(%more) %i : i32
  } do {
  ^bb0(%i: i32):
    %next = arith.addi %i, %one : i32
    %kept = util.optimization_barrier %next : i32
    scf.yield %kept : i32
  }
  %result = tensor.from_elements %last : tensor<i32>
  return %result : tensor<i32>
}
"""
ADD = """
func.func @main(%a: tensor<4xf32>) -> tensor<4xf32> {
  %0 = arith.addf %a, %a : tensor<4xf32>
  return %0 : tensor<4xf32>
}
"""
EMPTY = Function(name="main", inputs=(), outputs=(), example=())
WEIGHT = """
util.global private @w = #flow.parameter.named<"model"::"w"> : tensor<4xf32>
func.func @main(%a: tensor<4xf32>) -> tensor<4xf32> {
  %w = util.global.load @w : tensor<4xf32>
  %0 = arith.addf %a, %w : tensor<4xf32>
  return %0 : tensor<4xf32>
}
"""


def identity(types: list[tuple[str, tuple[int | Dim, ...]]]) -> str:
    """MLIR of a function that returns its arguments."""

    def mlir(dtype: str, shape: tuple[int | Dim, ...]) -> str:
        sizes = [str(d) if isinstance(d, int) else "?" for d in shape]
        return f"tensor<{'x'.join([*sizes, dtype.removeprefix('u')])}>"

    named = ", ".join(f"%a{i}: {mlir(*t)}" for i, t in enumerate(types))
    bare = ", ".join(mlir(*t) for t in types)
    names = ", ".join(f"%a{i}" for i in range(len(types)))
    return f"func.func @main({named}) -> ({bare}) {{ return {names} : {bare} }}"


def make(directory: Path, mlir: str, function: Function, flags: tuple[str, ...] = CPU) -> Run:
    """A program of one function in `directory`, compiled."""
    tools = toolchain.installed()
    source, module, log = directory / "p.mlir", directory / "p.vmfb", directory / "log.txt"
    source.write_text(mlir)
    outcome = process.run(
        [tools.compiler, source, *flags, "-o", module],
        stdout=log,
        stderr=log,
        limits=Limits(seconds=120),
    )
    assert outcome.ok, log.read_text()
    program = Program(
        source="p.mlir",
        digest="",
        functions=(function,),
        parameters=None,
        origin={},
        mlir="p.mlir",
    )
    return Run(
        program=program, directory=directory, function=function, module=module, device="local-task"
    )


def plain(inputs: list[Tensor], outputs: list[Tensor] | None = None) -> Function:
    """A function of static types, with example inputs."""

    def types(tensors: list[Tensor], word: str) -> tuple[TensorType, ...]:
        return tuple(
            TensorType(name=f"{word}{i}", dtype=t.dtype, shape=t.shape)
            for i, t in enumerate(tensors)
        )

    return Function(
        name="main",
        inputs=types(inputs, "a"),
        outputs=types(inputs if outputs is None else outputs, "r"),
        example=tuple(inputs),
    )


def store(directory: Path, name: str, dtype: str, shape: tuple[int, ...], content: bytes) -> Tensor:
    (directory / name).write_bytes(content)
    return Tensor(dtype=dtype, shape=shape, file=name)


def floats(directory: Path, *values: float) -> Tensor:
    import struct

    content = struct.pack(f"<{len(values)}f", *values)
    return store(directory, "a.bin", "f32", (len(values),), content)


def read_floats(workdir: Path, result: RunResult) -> tuple[float, ...]:
    import struct

    content = (workdir / result.outputs[0].file).read_bytes()
    return struct.unpack(f"<{len(content) // 4}f", content)


@pytest.fixture
def tools() -> Toolchain:
    return toolchain.installed()


@pytest.mark.real
def test_every_element_type_goes_in_and_comes_out_bit_by_bit(
    tmp_path: Path, tools: Toolchain
) -> None:
    chance = random.Random(7)
    tensors = []
    for dtype, element in ELEMENT_TYPES.items():
        # Packed elements must fill their bytes.
        whole = ((3, 8), (0, 4)) if element.bits else ((), (3, 5), (0, 4))
        for shape in whole:
            size = element.bytes(math.prod(shape))
            content = bytes(chance.randrange(2 if dtype == "i1" else 256) for _ in range(size))
            tensors.append(store(tmp_path, f"{len(tensors)}.bin", dtype, shape, content))
    job = make(tmp_path, identity([(t.dtype, t.shape) for t in tensors]), plain(tensors))
    result = runtime.run(job, Context(toolchain=tools, directory=tmp_path / "run"))
    assert result.ok, result.failure
    assert [(t.dtype, t.shape) for t in result.outputs] == [(t.dtype, t.shape) for t in tensors]
    for given, got in zip(tensors, result.outputs, strict=True):
        content = (tmp_path / "run" / got.file).read_bytes()
        assert content == (tmp_path / given.file).read_bytes(), str(given)


@pytest.mark.real
def test_dynamic_shapes_come_back_in_types_that_numpy_does_not_know(
    tmp_path: Path, tools: Toolchain
) -> None:
    dim = Dim(symbol="n", min=1, max=9)
    types = [("bf16", (2, dim)), ("f8E4M3FN", (dim,)), ("f32", (dim, 3))]
    tensors = [
        store(tmp_path, "0.bin", "bf16", (2, 5), bytes(range(20))),
        store(tmp_path, "1.bin", "f8E4M3FN", (5,), b"abcde"),
        store(tmp_path, "2.bin", "f32", (5, 3), bytes(60)),
    ]
    signature = tuple(TensorType(name="x", dtype=d, shape=s) for d, s in types)
    function = Function(name="main", inputs=signature, outputs=signature, example=tuple(tensors))
    job = make(tmp_path, identity(types), function)
    result = runtime.run(job, Context(toolchain=tools, directory=tmp_path / "run"))
    assert [t.shape for t in result.outputs] == [(2, 5), (5,), (5, 3)]

    # A size that only the program knows: the shape is not, but nothing breaks.
    unknown = tuple(
        TensorType(name="x", dtype=d, shape=(Dim(symbol="u0"),) * len(s)) for d, s in types
    )
    job = msgspec.structs.replace(job, function=msgspec.structs.replace(function, outputs=unknown))
    result = runtime.run(
        job, Context(toolchain=tools, directory=tmp_path / "run"), latency_budget=0
    )
    assert [t.shape for t in result.outputs] == [(10,), (5,), (5, 3)]


@pytest.mark.real
def test_the_commands_of_a_run_can_be_given_again_anywhere(
    tmp_path: Path, tools: Toolchain, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "a folder, with = in its name"
    folder.mkdir()
    monkeypatch.chdir(folder)
    job = make(Path(), ADD, plain([floats(Path(), 1, 2, 3, 4)]))
    result = runtime.run(job, Context(toolchain=tools, directory=Path("run")))
    assert read_floats(Path("run"), result) == (2, 4, 6, 8)
    assert [Path(c[0]).name for c in result.commands] == [
        "iree-run-module",
        "iree-benchmark-module",
    ]
    monkeypatch.chdir("/")
    for command in result.commands:
        log = tmp_path / "log.txt"
        assert process.run(command, stdout=log, stderr=log, limits=Limits(seconds=60)).ok


@pytest.mark.real
def test_latency_is_the_median_of_repeats_after_a_warm_up(tmp_path: Path, tools: Toolchain) -> None:
    job = make(tmp_path, ADD, plain([floats(tmp_path, 1, 2, 3, 4)]))
    result = runtime.run(job, Context(toolchain=tools, directory=tmp_path / "run"))
    latency = result.latency
    assert latency is not None and not result.latency_note
    assert 0 < latency.min_seconds <= latency.median_seconds <= latency.max_seconds
    assert latency.repeats >= 3 and latency.calls >= 1
    assert result.peak_bytes > 1e6 and result.load_seconds > 0 and result.run_seconds >= 0
    assert msgspec.json.decode(msgspec.json.encode(result), type=RunResult) == result

    quick = runtime.run(job, Context(toolchain=tools, directory=tmp_path / "run"), latency_budget=0)
    assert quick.ok and quick.latency is None and quick.latency_note == "not asked for"
    assert len(quick.commands) == 1


@pytest.mark.parametrize(
    ("device", "cold", "warm", "started", "repeats"),
    [
        ("local-task", 0.02, 0.02, 0.1, [7]),
        ("local-task", 0.2, 0.2, 0.1, [4]),
        ("local-task", 0.4, 0.4, 0.1, []),
        ("vulkan", 0.014, 0.014, 0.1, [7]),
        ("vulkan", 0.3, 0.014, 0.4, [7]),
        ("vulkan", 12.0, 0.03, 0.5, [3, 7]),
        ("vulkan", 12.0, 0.5, 0.5, [3]),
        ("vulkan", 12.0, 0.03, 9.0, [3]),
        ("vulkan", 61.0, 0.03, 0.5, []),
    ],
)
def test_repeats_follow_the_warm_call_of_a_gpu(
    device: str, cold: float, warm: float, started: float, repeats: list[int],
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """started: what a benchmark takes besides its repeats."""
    made: list[int] = []

    def benchmarked(job: Run, context: Context, count: int, *rest: object) -> tuple[object, ...]:
        made.append(count)
        times = {f"{which}_seconds": warm for which in ("median", "min", "max")}
        latency = runtime.Latency(**times, repeats=count, calls=1, tool="")
        return latency, "", (str(count),), started + count * warm

    monkeypatch.setattr(runtime, "_benchmarked", benchmarked)
    job = msgspec.structs.replace(_job(tmp_path, EMPTY), device=device)
    ran = RunResult(device=device, commands=(), load_seconds=0, run_seconds=cold, peak_bytes=0)
    context = Context(toolchain=nowhere(), directory=tmp_path)
    latency, note, command = runtime._latency(job, context, ran, 1.0)
    assert made == repeats
    if repeats:
        assert latency is not None and latency.repeats == repeats[-1]
        assert (note, command) == ("", (str(repeats[-1]),))
    else:
        assert latency is None and "repeating it takes over 1 s" in note


def test_the_call_begins_where_the_tool_announces_it(tmp_path: Path) -> None:
    """However long its start was prepared, and how often it was started before."""
    stdout = tmp_path / "stdout"
    stdout.write_text("EXEC @main\n")
    os.utime(stdout, (1000.25, 1000.25))
    ended = Outcome(
        argv=(), ended_by="exit", exit_code=0, signal=None, seconds=0.75, peak_bytes=0, began=1000.0
    )
    assert runtime._loaded(stdout, ended) == (True, 0.25)
    stdout.write_text("")
    assert runtime._loaded(stdout, ended) == (False, 0.75)


def test_an_outcome_has_the_time_of_the_start(tmp_path: Path) -> None:
    before = time.time()
    log = tmp_path / "log"
    assert before <= process.run(["true"], stdout=log, stderr=log).began <= time.time()


@pytest.mark.real
def test_a_call_too_slow_for_the_budget_is_run_but_not_timed(
    tmp_path: Path, tools: Toolchain
) -> None:
    limit = store(tmp_path, "n.bin", "i32", (), (1000).to_bytes(4, "little"))
    job = make(tmp_path, LOOP, plain([limit]))
    result = runtime.run(
        job, Context(toolchain=tools, directory=tmp_path / "run"), latency_budget=0.035
    )
    assert result.ok and result.latency is None
    assert "repeating it takes over 0.035 s" in result.latency_note


@pytest.mark.real
def test_a_call_that_does_not_end_is_stopped_in_the_step_run(
    tmp_path: Path, tools: Toolchain
) -> None:
    limit = store(tmp_path, "n.bin", "i32", (), (2**31 - 1).to_bytes(4, "little"))
    job = make(tmp_path, LOOP, plain([limit]))
    result = runtime.run(
        job, Context(toolchain=tools, limits=Limits(seconds=0.7), directory=tmp_path / "run")
    )
    assert result.failure is not None and result.failure.kind == "timeout"
    assert result.failed_step == "run" and result.outputs == ()


@pytest.mark.real
@pytest.mark.parametrize("content", [b"", b"not a module", None])
def test_what_is_not_a_whole_module_fails_to_load(
    tmp_path: Path, tools: Toolchain, content: bytes | None
) -> None:
    job = make(tmp_path, ADD, plain([floats(tmp_path, 1, 2, 3, 4)]))
    job.module.write_bytes(job.module.read_bytes()[:700] if content is None else content)
    result = runtime.run(job, Context(toolchain=tools, directory=tmp_path / "run"))
    assert result.failed_step == "load" and result.failure is not None
    assert result.failure.kind in ("runtime-error", "crash")
    assert len(result.commands) == 1


@pytest.mark.real
def test_a_module_for_another_device_fails_to_load_and_leaves_no_outputs_of_before(
    tmp_path: Path, tools: Toolchain
) -> None:
    job = make(tmp_path, ADD, plain([floats(tmp_path, 1, 2, 3, 4)]))
    assert runtime.run(
        job, Context(toolchain=tools, directory=tmp_path / "run"), latency_budget=0
    ).ok
    elsewhere = msgspec.structs.replace(job, device="no-such-driver")
    result = runtime.run(elsewhere, Context(toolchain=tools, directory=tmp_path / "run"))
    assert result.failed_step == "load" and result.failure is not None
    assert "no-such-driver" in result.failure.message
    assert list((tmp_path / "run" / "out").iterdir()) == []


@pytest.mark.real
def test_what_the_device_refuses_is_a_runtime_error_in_the_step_run(
    tmp_path: Path, tools: Toolchain
) -> None:
    job = make(tmp_path, ADD, plain([floats(tmp_path, 1, 2, 3)], [floats(tmp_path, 1, 2, 3)]))
    result = runtime.run(job, Context(toolchain=tools, directory=tmp_path / "run"))
    assert result.failed_step == "run" and result.failure is not None
    assert result.failure.kind == "runtime-error"
    assert "shape" in result.failure.message


@pytest.mark.real
def test_a_double_precision_output_of_demoted_code_is_a_runtime_error(
    tmp_path: Path, tools: Toolchain
) -> None:
    mlir = """
    func.func @main(%a: !torch.vtensor<[3,3],f64>) -> !torch.vtensor<[3,3],f64> {
      %0 = torch.aten.matmul %a, %a
        : !torch.vtensor<[3,3],f64>, !torch.vtensor<[3,3],f64> -> !torch.vtensor<[3,3],f64>
      return %0 : !torch.vtensor<[3,3],f64>
    }"""
    square = store(tmp_path, "a.bin", "f64", (3, 3), bytes(72))
    result = runtime.run(
        make(tmp_path, mlir, plain([square]), CPU[:3]),
        Context(toolchain=tools, directory=tmp_path / "run"),
    )
    assert result.failure is not None and result.failure.kind == "runtime-error"
    assert result.failed_step == "run" and "OUT_OF_RANGE" in result.failure.message


class TestARunThatOnlyWaits:
    """IREE's local-task device may wait for ever to be destroyed when a call failed."""

    STATUS = "x.c:1: OUT_OF_RANGE; buffer view byte length 72 exceeds 36; while invoking\n"

    @pytest.fixture(autouse=True)
    def soon(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(runtime, "_IDLE_SECONDS", 0.3)

    def run(self, directory: Path, **answers: str) -> RunResult:
        answers = {name.replace("_", "-"): answer for name, answer in answers.items()}
        stub = stub_toolchain(directory / "release", run=answers)
        job = Run(
            program=Program(source="m", digest="", functions=(EMPTY,), parameters=None, origin={}),
            directory=directory,
            function=EMPTY,
            module=directory / "m.vmfb",
            device="local-task",
        )
        return runtime.run(
            job, Context(toolchain=stub, limits=Limits(seconds=2), directory=directory / "run")
        )

    @pytest.mark.slow
    def test_its_failure_is_asked_of_local_sync(self, tmp_path: Path) -> None:
        result = self.run(tmp_path, local_task="hang", local_sync=self.STATUS)
        assert result.failure is not None
        assert result.failure.kind == "runtime-error"
        assert "OUT_OF_RANGE" in result.failure.message
        assert "--device=local-sync" in result.commands[0], "the command that shows it again"

    @pytest.mark.slow
    def test_where_that_waits_too_it_is_a_timeout(self, tmp_path: Path) -> None:
        result = self.run(tmp_path, local_task="hang", local_sync="hang")
        assert result.failure is not None
        assert result.failure.kind == "timeout"


@pytest.mark.real
@pytest.mark.parametrize("archive", ["w.safetensors", "w.gguf", "w.irpa"])
def test_weights_come_from_each_kind_of_archive(
    tmp_path: Path, tools: Toolchain, archive: str
) -> None:
    tensors = {"other": ("f32", (3, 5)), "w": ("f32", (4,))}
    path = tmp_path / archive
    source = path.with_suffix(".safetensors") if path.suffix == ".irpa" else path
    write = write_gguf if source.suffix == ".gguf" else write_safetensors
    content = bytearray(write(source, tensors).read_bytes())
    end = len(content) - (16 if source.suffix == ".gguf" else 0)  # padded to 32 bytes
    content[end - 16 : end] = b"\x00\x00\x00\x3f" * 4
    source.write_bytes(content)
    if source != path:
        log = tmp_path / "log.txt"
        tool = tools.tool("iree-convert-parameters")
        argv = [tool, f"--parameters={source}", f"--output={path}"]
        assert process.run(argv, stdout=log, stderr=log, limits=Limits(seconds=60)).ok
    job = make(tmp_path, WEIGHT, plain([floats(tmp_path, 1, 2, 3, 4)]))
    parameters = Parameters(
        scope="model",
        tensors=(Parameter(name="w", dtype="f32", shape=(4,)),),
        archives=(archive,),
    )
    job = msgspec.structs.replace(
        job, program=msgspec.structs.replace(job.program, parameters=parameters)
    )
    result = runtime.run(job, Context(toolchain=tools, directory=tmp_path / "run"))
    assert result.ok, result.failure
    assert read_floats(tmp_path / "run", result) == (1.5, 2.5, 3.5, 4.5)
    assert result.latency is not None


@pytest.mark.real
def test_a_module_whose_weights_nobody_gave_fails_to_load(tmp_path: Path, tools: Toolchain) -> None:
    job = make(tmp_path, WEIGHT, plain([floats(tmp_path, 1, 2, 3, 4)]))
    result = runtime.run(job, Context(toolchain=tools, directory=tmp_path / "run"))
    assert result.failed_step == "load" and result.failure is not None
    assert "NOT_FOUND" in result.failure.message


@pytest.mark.real
def test_vulkan_computes_what_the_processor_does(tmp_path: Path, tools: Toolchain) -> None:
    log = tmp_path / "log.txt"
    process.run([tools.tool("iree-run-module"), "--list_devices=vulkan"], stdout=log, stderr=log)
    if "vulkan://" not in log.read_text():
        pytest.skip("this machine has no Vulkan device")
    flags = ("--iree-hal-target-device=vulkan",)
    job = make(tmp_path, ADD, plain([floats(tmp_path, 1, 2, 3, 4)]), flags)
    on_vulkan = msgspec.structs.replace(job, device="vulkan")
    # Too little for a second call as long as the first one, which compiles the shaders.
    result = runtime.run(
        on_vulkan, Context(toolchain=tools, directory=tmp_path / "run"), latency_budget=0.02
    )
    assert result.ok, result.failure
    assert read_floats(tmp_path / "run", result) == (2, 4, 6, 8)
    assert result.latency is not None, result.latency_note
    assert result.latency.median_seconds < result.run_seconds


def nowhere(**changes: object) -> Toolchain:
    """A release without a runtime."""
    fields: dict[str, object] = {
        "version": "3.7.1",
        "revision": "",
        "compiler": Path("iree-compile"),
        "opt": None,
        "runtime": None,
        "phases": (),
        "flags": frozenset(),
    }
    return msgspec.convert({**fields, **changes}, Toolchain)


def _job(tmp_path: Path, function: Function) -> Run:
    program = Program(source="net.py", digest="", functions=(), parameters=None, origin={})
    return Run(
        program=program,
        directory=tmp_path,
        function=function,
        module=tmp_path / "m.vmfb",
        device="local-task",
    )


def test_inputs_are_checked_before_anything_runs(tmp_path: Path) -> None:
    function = plain([floats(tmp_path, 1, 2, 3, 4)])
    wrong = msgspec.structs.replace(function, example=(floats(tmp_path, 1, 2, 3),))
    with pytest.raises(UsageError, match=r"input 0 \(a0\) of main does not fit"):
        runtime.run(_job(tmp_path, wrong), Context(toolchain=nowhere(), directory=tmp_path / "run"))
    without = msgspec.structs.replace(function, example=None)
    with pytest.raises(UsageError, match="no example inputs"):
        runtime.run(
            _job(tmp_path, without), Context(toolchain=nowhere(), directory=tmp_path / "run")
        )
    assert not (tmp_path / "run").exists()


def test_a_release_without_a_runtime_is_an_environment_fault(tmp_path: Path) -> None:
    job = _job(tmp_path, plain([floats(tmp_path, 1, 2, 3, 4)]))
    with pytest.raises(EnvironmentFault, match=r"no IREE runtime for compiler 3\.7\.1"):
        runtime.run(job, Context(toolchain=nowhere(), directory=tmp_path / "run"))


STUB = """#!{python}
import pathlib, sys
for argument in sys.argv:
    if argument.startswith("--output=@"):
        pathlib.Path(argument[10:]).write_bytes({content!r})
print({report!r} if "benchmark" in sys.argv[0] else "EXEC @main")
"""


def stub(directory: Path, content: bytes, report: str = "") -> Toolchain:
    """A release whose tools write `content` as each output and `report` as the measurement."""
    for name in ("iree-run-module", "iree-benchmark-module"):
        tool = directory / name
        tool.write_text(STUB.format(python=sys.executable, content=content, report=report))
        tool.chmod(0o755)
    return nowhere(runtime=directory)


FULL = """#!{python}
import sys
print("EXEC @main")
sys.exit(
    "c/runtime/src/iree/io/stdio_stream.c:399: UNKNOWN; write failed, possibly out of disk space "
    "or device lost; outputting results; processing function outputs; `sync func @main()`"
)
"""


def test_outputs_that_cannot_be_written_are_not_the_programs_failure(tmp_path: Path) -> None:
    job = _job(tmp_path, plain([floats(tmp_path, 1)]))
    tools = stub(tmp_path, b"")
    (tmp_path / "iree-run-module").write_text(FULL.format(python=sys.executable))
    with pytest.raises(EnvironmentFault, match="cannot write the outputs of main"):
        runtime.run(job, Context(toolchain=tools, directory=tmp_path / "run"))


def test_an_output_of_a_size_that_fits_no_shape_is_handed_on_for_comparison(tmp_path: Path) -> None:
    output = Tensor(dtype="bf16", shape=(2, 2), file="")
    job = _job(tmp_path, plain([floats(tmp_path, 1)], [output]))
    short = runtime.run(
        job,
        Context(toolchain=stub(tmp_path, bytes(6)), directory=tmp_path / "run"),
        latency_budget=0,
    )
    assert [(t.dtype, t.shape) for t in short.outputs] == [("bf16", (3,))]
    odd = runtime.run(
        job,
        Context(toolchain=stub(tmp_path, bytes(5)), directory=tmp_path / "run"),
        latency_budget=0,
    )
    assert [(t.dtype, t.shape) for t in odd.outputs] == [("ui8", (5,))]


@pytest.mark.parametrize(
    ("report", "why"),
    [
        ("", "wrote no report"),
        ("{}", "wrote no report"),
        (json.dumps({"benchmarks": []}), "it repeated nothing"),
        (
            json.dumps(
                {
                    "benchmarks": [
                        {"run_type": "iteration", "error_occurred": True, "error_message": "lost"}
                    ]
                }
            ),
            "lost",
        ),
    ],
)
def test_a_latency_that_cannot_be_measured_does_not_fail_the_run(
    tmp_path: Path, report: str, why: str
) -> None:
    output = Tensor(dtype="bf16", shape=(2, 2), file="")
    job = _job(tmp_path, plain([floats(tmp_path, 1)], [output]))
    tools = stub(tmp_path, bytes(8), report)
    result = runtime.run(
        job, Context(toolchain=tools, directory=tmp_path / "run"), latency_budget=60
    )
    assert result.ok and result.latency is None
    assert why in result.latency_note
    assert len(result.commands) == 2
