"""Run a compiled module on a device with IREE's own tools, in child processes, and time it.

`iree-run-module` computes the outputs and `iree-benchmark-module` the latency. They are the tools
of the compiler's own release, and the commands can be pasted into a shell as they are.
"""

from __future__ import annotations

import ast
import json
import math
import shutil
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from iree_pilot.pipeline.errors import EnvironmentFault, UsageError
from iree_pilot.pipeline.execution import border
from iree_pilot.pipeline.failures import diagnostics
from iree_pilot.pipeline.failures.diagnostics import Failure
from iree_pilot.pipeline.processes import process
from iree_pilot.pipeline.program import tensors
from iree_pilot.pipeline.program.archive import check_parameters
from iree_pilot.pipeline.program.program import (
    ELEMENT_TYPES,
    Call,
    Function,
    Tensor,
    TensorType,
    check_inputs,
)
from iree_pilot.pipeline.targets.devices import options
from iree_pilot.pipeline.toolchain.context import Context

#: Seconds that measuring one function's latency may take. A tiny model needs about 0.1.
LATENCY_BUDGET = 1.0
#: A run on the host's processor that uses none of it for so long will not end.
_IDLE_SECONDS = 5.0
_REPEATS = 7
_FEWEST_REPEATS = 3
#: A first call that takes longer is not made a second time only to measure the ones after it.
_LONGEST_WARM_UP_SECONDS = 60.0
#: Factor of the time that a benchmark should take after which it is stopped.
_BUSY = 4
#: Each repeat runs for at least this long, and so does the warm-up.
_REPEAT_SECONDS = 0.01
#: The runtime's words for element types that it does not spell as MLIR does.
_RUNTIME_NAMES = {"complex<f32>": "cf64", "complex<f64>": "cf128"}
#: numpy's names in a .npy header; the runtime has no unsigned types and writes signed ones.
_NPY = {"|b1": "i1", "|i1": "i8", "|u1": "ui8"} | {
    f"<{kind}{size}": f"{prefix}{size * 8}"
    for kind, prefix, sizes in (
        ("f", "f", (2, 4, 8)),
        ("i", "i", (2, 4, 8)),
        ("u", "ui", (2, 4, 8)),
    )
    for size in sizes
}


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """Wall time of one call, in seconds, after warm-up: the median of `repeats` and their range.

    Each repeat is the mean of `calls` calls in a row, made by `tool`.
    """

    median_seconds: float
    min_seconds: float
    max_seconds: float
    repeats: int
    calls: int
    tool: str


class RunResult(msgspec.Struct, frozen=True, kw_only=True):
    """Result of one run.

    device: the URI it ran on. commands: what to type to do it again (run, then benchmark).
    load_seconds: from the start to the call: device, module, parameters; run_seconds: the call
    with its inputs and outputs, both of a cold process. peak_bytes: its resident memory.
    outputs: one raw file each, relative to the run's directory, with the dtype and shape that the
    device returned. latency: None where it was not measured; latency_note then says why.
    failure: why it did not run, in which step. changed: the function, with its example inputs, in
    the types that the module has at its border, where these are not the program's.
    """

    device: str
    commands: tuple[tuple[str, ...], ...]
    load_seconds: float
    run_seconds: float
    peak_bytes: int
    outputs: tuple[Tensor, ...] = ()
    latency: Latency | None = None
    latency_note: str = ""
    failure: Failure | None = None
    failed_step: Literal["load", "run"] | None = None
    changed: Function | None = None

    @property
    def ok(self) -> bool:
        return self.failure is None


class Run(Call, frozen=True, kw_only=True):
    """A run: a call, in the `module` that its program was compiled to, on `device`.

    device: a URI as `--device=` takes it (`local-task`, `vulkan`, `hip://0`); several between
    commas for a program for several devices. changed: the function, with inputs, in the types that
    the module has at its border (`border.of_module`), where files for these are there already.
    """

    module: Path
    device: str
    changed: Function | None = None

    def arguments(self) -> tuple[str, ...]:
        """The arguments that both tools share: module, device, function, weights and inputs."""
        example = self.function.example or ()
        parameters = self.program.parameters
        weights: list[str] = []
        if parameters is not None:
            weights = [
                f"--parameters={f'{scope}=' if scope else ''}{self._absolute(archive)}"
                for scope, archives in parameters.by_scope.items()
                for archive in archives
            ]
        return (
            f"--module={self.module.absolute()}",
            *options(self.device),
            f"--function={self.function.name}",
            *weights,
            *(f"--input={written(t, self._absolute(t.file))}" for t in example),
        )

    def check(self) -> None:
        """Raises UsageError unless there are inputs and weights and both fit the program."""
        if self.function.example is None:
            raise UsageError(
                f"{self.program.source}: {self.function.name} has no example inputs to run with",
                advice="Define inputs() beside the model, or compile it without running.",
            )
        check_inputs(self.function, self.function.example, self.program.source)
        check_parameters(self.program, self.directory)

    def _absolute(self, file: str) -> Path:
        return (self.directory / file).absolute()


def run(
    job: Run,
    context: Context,
    *,
    latency_budget: float = LATENCY_BUDGET,
    on_benchmark: Callable[[], None] = lambda: None,
) -> RunResult:
    """Runs a function once for its outputs, then again for its latency; files go to `workdir`.

    Inputs are given, and outputs read, in the types that the module has for them. A module that
    does not load or run is a result with a `failure`. latency_budget: seconds that
    measuring may take at most; 0 measures nothing. on_benchmark: called before it. Raises
    UsageError for inputs or weights that do not fit the program, and EnvironmentFault when a tool
    of the release is missing or the disk is full.
    """
    job.check()
    shutil.rmtree(context.directory / "out", ignore_errors=True)
    (context.directory / "out").mkdir(parents=True)
    stated, changed = job.function, job.changed
    compiled = border.of_module(job.module, stated)
    if changed is None and compiled is not stated:
        changed = border.given(stated, compiled, job.directory, context.directory)
    if changed is not None:
        job = msgspec.structs.replace(job, function=changed)
    written = [_output_file(context.directory, i, t) for i, t in enumerate(job.function.outputs)]
    stdout, stderr = context.directory / "run.stdout.txt", context.directory / "run.stderr.txt"
    outcome = _computed(job, context, written, stdout, stderr)
    command = outcome.argv
    loaded, load_seconds = _loaded(stdout, outcome)
    result = RunResult(
        device=job.device,
        commands=(command,),
        load_seconds=load_seconds,
        run_seconds=outcome.seconds - load_seconds,
        peak_bytes=outcome.peak_bytes,
        changed=changed,
    )
    if not outcome.ok:
        text = stderr.read_text(encoding="utf-8", errors="replace")
        if "outputting results" in text and "stdio_stream" in text:
            raise EnvironmentFault(
                f"cannot write the outputs of {job.function.name} to {context.directory / 'out'}",
                advice="Free some space there, or move the cache: IREE_PILOT_CACHE=DIRECTORY.",
            )
        # Inputs are parsed once everything is loaded, before the call is announced.
        step: Literal["load", "run"] = (
            "run" if loaded or "parsing function inputs" in text else "load"
        )
        return msgspec.structs.replace(
            result, failure=diagnostics.runtime_failure(outcome, text, step), failed_step=step
        )
    shapes = _shapes(job.function)
    outputs = tuple(
        _returned(_raw(file, want, shape, context.directory), want, own)
        for file, want, own, shape in zip(
            written, job.function.outputs, stated.outputs, shapes, strict=True
        )
    )
    if latency_budget > 0:
        on_benchmark()
    latency, note, timed = _latency(job, context, result, latency_budget)
    return msgspec.structs.replace(
        result,
        outputs=outputs,
        latency=latency,
        latency_note=note,
        commands=(command, timed) if timed else (command,),
    )


def _computed(
    job: Run, context: Context, written: Sequence[Path], stdout: Path, stderr: Path
) -> process.Outcome:
    """Runs the function for its outputs."""

    def once(device: str, limits: process.Limits) -> process.Outcome:
        command = (
            str(context.toolchain.tool("iree-run-module")),
            *msgspec.structs.replace(job, device=device).arguments(),
            *(f"--output=@{file.absolute()}" for file in written),
        )
        return process.run(command, stdout=stdout, stderr=stderr, limits=limits)

    return patiently(job.device, context.limits, once)


def patiently(
    device: str, limits: process.Limits, once: Callable[[str, process.Limits], process.Outcome]
) -> process.Outcome:
    """Runs a child by `once(device, limits)` that calls functions there, as often as it takes.

    With IREE 3.13 a call on `local-task` that fails while its work is in flight ends in a device
    that waits for ever to be destroyed, in 1 of 14 runs, and the status is never printed. So where
    such a run does nothing, `local-sync` is asked for the failure.
    """
    if "local-task" not in device.split(","):
        return once(device, limits)
    outcome = once(device, msgspec.structs.replace(limits, idle_seconds=_IDLE_SECONDS))
    if outcome.ended_by != "idle-limit":
        return outcome
    outcome = once(device.replace("local-task", "local-sync"), limits)
    # It only waited, for a slow disk perhaps: all the time there is, then.
    return once(device, limits) if outcome.ok else outcome


def spelled(tensor: Tensor) -> str:
    """The type of an input as the runtime's tools take it: `4x8xf32`."""
    name = _RUNTIME_NAMES.get(tensor.dtype, tensor.dtype)
    return "x".join([*(str(d) for d in tensor.shape), name])


def written(tensor: Tensor, file: Path) -> str:
    """An input as the runtime's tools take it: `4x8xf32=@FILE`, or a number on its own."""
    if tensor.passed == "null":
        return "(null)"
    if tensor.passed == "scalar":
        return number(tensor.dtype, file)
    return f"{'&' if tensor.passed == 'buffer' else ''}{spelled(tensor)}=@{file}"


def number(dtype: str, file: Path) -> str:
    """The number in a file as the runtime's tools take it on its own.

    What a function takes for f16 and bf16 is their bits, as an integer.
    """
    raw = file.read_bytes()
    if ELEMENT_TYPES[dtype].family == "float" and len(raw) < 4:
        return str(int.from_bytes(raw, "little"))
    value = tensors.decoded(raw, dtype)[0]
    if ELEMENT_TYPES[dtype].family == "float":
        return repr(float(value))
    return str(int(value))


def _output_file(workdir: Path, index: int, want: TensorType) -> Path:
    """.npy, which keeps the shape, for the types that the runtime can write so; .bin for others."""
    suffix = ".npy" if want.dtype in _NPY.values() and want.passed == "view" else ".bin"
    return workdir / "out" / f"{index}{suffix}"


def _loaded(stdout: Path, outcome: process.Outcome) -> tuple[bool, float]:
    """True if the tool announced the call, and the time until then (all of it if it did not).

    The announcement (`EXEC @main`) is the only thing that it writes to stdout.
    """
    if b"EXEC @" not in stdout.read_bytes():
        return False, outcome.seconds
    return True, min(max(stdout.stat().st_mtime - outcome.began, 0.0), outcome.seconds)


def _shapes(function: Function) -> list[tuple[int, ...] | None]:
    """The outputs' shapes: by their types and the sizes of the inputs, else as the reference has.

    None where only the program knows.
    """
    sizes = {
        dim.symbol: size
        for want, got in zip(function.inputs, function.example or (), strict=True)
        if want.passed not in ("opaque", "null")
        for dim, size in zip(want.shape, got.shape, strict=True)
        if not isinstance(dim, int)
    }
    shapes: list[tuple[int, ...] | None] = []
    for index, want in enumerate(function.outputs):
        known = [d if isinstance(d, int) else sizes.get(d.symbol) for d in want.shape]
        if None not in known:
            shapes.append(tuple(d for d in known if d is not None))
        else:
            shapes.append(function.reference.outputs[index].shape if function.reference else None)
    return shapes


def _returned(got: Tensor, want: TensorType, stated: TensorType) -> Tensor:
    """An output, with the type that the program states where the module has another."""
    if got.dtype != want.dtype or want.dtype == stated.dtype:
        return got
    return msgspec.structs.replace(got, stated=stated.dtype)


def _raw(file: Path, want: TensorType, shape: tuple[int, ...] | None, workdir: Path) -> Tensor:
    """The output in `file` as raw bytes beside it.

    A raw file that does not have the size of `shape` is taken as a row of elements, or of bytes if
    even these do not come out: the comparison tells what was expected.
    """
    dtype = want.dtype
    if file.suffix == ".npy":
        file, dtype, shape = _strip(file, want.dtype)
    elif want.passed == "scalar":
        _narrow(file, dtype)
    size = file.stat().st_size
    if shape is None or ELEMENT_TYPES[dtype].bytes(math.prod(shape)) != size:
        bits = ELEMENT_TYPES[dtype].bits or 8 * ELEMENT_TYPES[dtype].size
        dtype = dtype if 8 * size % bits == 0 else "ui8"
        shape = (8 * size // (bits if dtype == want.dtype else 8),)
    return Tensor(dtype=dtype, shape=shape, file=str(file.relative_to(workdir)))


def _narrow(file: Path, dtype: str) -> None:
    """Writes a number in its own type: the VM passes all in 32 or 64 bits, f16 as an integer."""
    raw, element = file.read_bytes(), ELEMENT_TYPES[dtype]
    if element.family != "float" or element.size < 4:
        # The lowest bits are the number's; i1 has one. An index may have 32 bits.
        low = raw[: element.size].ljust(element.size, b"\xff" if raw[-1] & 0x80 else b"\0")
        file.write_bytes(bytes([raw[0] & 1]) if element.family == "bool" else low)
    elif len(raw) != element.size:
        other = "f64" if len(raw) == 8 else "f32"
        value = tensors.decoded(raw, other).astype(tensors.numpy_dtype(dtype))
        file.write_bytes(value.tobytes())


def _strip(npy: Path, want: str) -> tuple[Path, str, tuple[int, ...]]:
    """Turns a .npy file into a raw one; returns it with the dtype and shape of the header."""
    raw = npy.with_suffix(".bin")
    with npy.open("rb") as source:
        magic = source.read(8)
        length = int.from_bytes(source.read(2 if magic[6:7] == b"\x01" else 4), "little")
        header: dict[str, Any] = ast.literal_eval(source.read(length).decode("latin-1"))
        with raw.open("wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
    npy.unlink()
    dtype = _NPY[header["descr"]]
    signless = want.removeprefix("u") == dtype
    return raw, want if signless else dtype, header["shape"]


def _latency(
    job: Run, context: Context, cold: RunResult, budget: float
) -> tuple[Latency | None, str, tuple[str, ...]]:
    """(Latency, why there is none, command) by iree-benchmark-module, within `budget` seconds.

    The time of the cold call tells how many repeats the budget allows; one call more is made to
    warm up. On a GPU that call compiles the kernels and tells little of the next. Where it is
    short, all repeats are made all the same; else the fewest, and where they show that the budget
    allows all of them, and that starting again costs no more than that, these are made.
    """
    if budget <= 0:
        return None, "not asked for", ()
    call = max(cold.run_seconds, _REPEAT_SECONDS)
    repeats = min(_REPEATS, int(budget / call) - 1)
    on_gpu = not job.device.startswith("local-")
    if repeats < _FEWEST_REPEATS and (not on_gpu or call > _LONGEST_WARM_UP_SECONDS):
        slow = f"a cold call took {call:.3g} s: repeating it takes over {budget:.3g} s"
        return None, slow, ()
    if not on_gpu:
        return _benchmarked(job, context, repeats, cold, budget)[:3]
    repeats = _REPEATS if 2 * call <= budget else _FEWEST_REPEATS
    latency, note, command, seconds = _benchmarked(job, context, repeats, cold, budget)
    if latency is None or repeats == _REPEATS or seconds > budget:
        return latency, note, command
    if (_REPEATS + 1) * latency.median_seconds > budget:
        return latency, note, command
    more, _, again, _ = _benchmarked(job, context, _REPEATS, cold, budget)
    return (latency, note, command) if more is None else (more, "", again)


def _benchmarked(
    job: Run, context: Context, repeats: int, cold: RunResult, budget: float
) -> tuple[Latency | None, str, tuple[str, ...], float]:
    """(Latency, why there is none, command, seconds that it ran) of so many repeats."""
    tool = "iree-benchmark-module"
    try:
        program = context.toolchain.tool(tool)
    except EnvironmentFault as fault:
        return None, fault.message, (), 0.0
    command = (
        str(program),
        *job.arguments(),
        "--benchmark_format=json",
        f"--benchmark_repetitions={repeats}",
        f"--benchmark_min_time={_REPEAT_SECONDS}s",
        f"--benchmark_min_warmup_time={_REPEAT_SECONDS}",
    )
    report, stderr = (
        context.directory / "benchmark.json",
        context.directory / "benchmark.stderr.txt",
    )
    # Neither loading nor warming up is part of the budget; a busy machine may take longer.
    seconds = _BUSY * (cold.load_seconds + cold.run_seconds + budget) + 1
    bounds = msgspec.structs.replace(context.limits, seconds=seconds)
    outcome = process.run(command, stdout=report, stderr=stderr, limits=bounds)
    if outcome.ended_by == "time-limit":
        slow = f"{tool} did not end within {seconds:.3g} s"
        return None, slow, command, outcome.seconds
    if not outcome.ok:
        text = stderr.read_text(encoding="utf-8", errors="replace").strip()
        reason = text.splitlines()[0] if text else outcome.signal or outcome.ended_by
        return None, f"{tool} failed: {reason}", command, outcome.seconds
    return *_measured(report, tool), command, outcome.seconds


def _measured(report: Path, tool: str) -> tuple[Latency | None, str]:
    try:
        rows: Sequence[dict[str, Any]] = json.loads(report.read_bytes())["benchmarks"]
    except (ValueError, KeyError):
        return None, f"{tool} wrote no report"
    repeats = [row for row in rows if row.get("run_type") == "iteration"]
    errors = [str(row["error_message"]) for row in repeats if row.get("error_occurred")]
    if errors or not repeats:
        return None, f"{tool} failed: {errors[0] if errors else 'it repeated nothing'}"
    units = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0}
    times = [float(row["real_time"]) * units[row["time_unit"]] for row in repeats]
    return (
        Latency(
            median_seconds=statistics.median(times),
            min_seconds=min(times),
            max_seconds=max(times),
            repeats=len(times),
            calls=int(repeats[0]["iterations"]),
            tool=tool,
        ),
        "",
    )
