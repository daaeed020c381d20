"""Metrics of a case, for comparing nights: names, units, and where they come from."""

from __future__ import annotations

from iree_pilot.pipeline.case_result import CaseResult

#: Seconds; they vary from run to run.
TIMES = ("compile_seconds", "latency_seconds", "trace_seconds")
#: Counts and bytes; equal for equal programs and compilers, but for peak memory. registers: of the
#: kernel that needs most vector registers; spills: registers of all kernels that did not fit;
#: idle_waves: wave slots of a SIMD that the kernel of the lowest occupancy leaves empty;
#: invalid_shaders: those that spirv-val has something against.
SIZES = (
    "dispatches",
    "module_bytes",
    "peak_bytes",
    "transient_bytes",
    "registers",
    "spills",
    "idle_waves",
    "invalid_shaders",
)


def metrics(result: CaseResult) -> dict[str, float]:
    """Metrics of a result: time (seconds), memory and size (bytes), dispatches and registers.

    Only what was measured: a compile that came from the store has the time of when it was done.
    """
    found: dict[str, float] = {}
    if result.compile_seconds:
        found["compile_seconds"] = result.compile_seconds
    if result.peak_bytes:
        found["peak_bytes"] = result.peak_bytes
    if result.output_bytes and result.status != "failed":
        found["module_bytes"] = result.output_bytes
    if result.dispatches is not None:
        found["dispatches"] = result.dispatches.dispatches
        found["transient_bytes"] = result.dispatches.transient_bytes
    if result.kernels:
        found["registers"] = max(kernel.vgprs for kernel in result.kernels)
        found["spills"] = sum(kernel.spills for kernel in result.kernels)
    occupancies = [kernel.occupancy for kernel in result.kernels if kernel.occupancy]
    if occupancies:
        found["idle_waves"] = max(occupancy.idle for occupancy in occupancies)
    if result.spirv is not None:
        found["invalid_shaders"] = result.spirv.errors
    latencies = [f.latency.median_seconds for f in result.functions if f.latency]
    if latencies:
        found["latency_seconds"] = sum(latencies)
    trace = next((s for s in result.steps if s.name == "trace" and not s.cached), None)
    if trace is not None and trace.seconds:
        found["trace_seconds"] = trace.seconds
    return found
