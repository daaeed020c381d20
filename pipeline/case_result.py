"""The record of one case: its steps, what each function gave, how it failed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import msgspec

from iree_pilot.pipeline import html_table
from iree_pilot.pipeline.execution.generation import Generation
from iree_pilot.pipeline.execution.runtime import Latency
from iree_pilot.pipeline.failures.diagnostics import Failure
from iree_pilot.pipeline.inspect.amdgpu import Kernel
from iree_pilot.pipeline.inspect.spirv import Checked
from iree_pilot.pipeline.numerics.numerics import Comparison
from iree_pilot.pipeline.program.program import Decomposed
from iree_pilot.pipeline.toolchain.compiler import Dispatches
from iree_pilot.pipeline.toolchain.phases import Phase

#: Reason of a case whose compile failed.
DOES_NOT_COMPILE = "does not compile"

StepName = Literal["trace", "compile", "load", "run", "compare", "generate"]
#: What a case does: its steps, the compile that confirms the phase of a failure, and the calls that
#: measure the latency.
Work = StepName | Literal["confirm", "benchmark"]
#: ok: each output was compared, and agrees. ran: something of it could not be compared. compiled:
#: it was not run.
Status = Literal["ok", "ran", "compiled", "failed"]
_SILENT_ON: dict[str, tuple[str, ...]] = {
    "ran": ("compare", "generate"),
    "compiled": ("load", "run", "compare", "generate"),
}


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One step of a case. seconds: of a compile the compiler's own, without what confirmed the
    phase of a failure. cached: taken from the store; seconds is then what finding it took.

    status: `compiled` of a step that did not come to be, as the module is not run; `ran` of a
    comparison that is not whole, or not at all. `why` says why.
    """

    name: StepName
    status: Status
    seconds: float = 0.0
    cached: bool = False
    why: str = ""


class ComparedTarget(msgspec.Struct, frozen=True, kw_only=True):
    """The results compared with those of another target of the same run."""

    target: str
    comparison: Comparison


class FunctionResult(msgspec.Struct, frozen=True, kw_only=True):
    """Result of running one function. commands: to run and to time it again.

    against: other targets of the same run, where there is no reference
    (`pipeline.numerics.between`). unevaluated: why there is none. border: what was given and
    compared in other types than the program's, as the compiler changed them.
    """

    name: str
    commands: tuple[tuple[str, ...], ...]
    peak_bytes: int
    latency: Latency | None
    latency_note: str
    comparison: Comparison | None
    evaluator: str
    failure: Failure | None = None
    against: tuple[ComparedTarget, ...] = ()
    unevaluated: str = ""
    border: str = ""


class CaseResult(msgspec.Struct, frozen=True, kw_only=True):
    """One case. `why`: what failed, or of `ran` and `compiled` what kept it from being judged.

    target: as the user named it; arch: what it was compiled for. messages: the file with what the
    compiler wrote to stderr, if it wrote anything.

    phases, dispatches, output, output_bytes, compile_seconds and peak_bytes: of the compile (when
    it was done, not when it was taken from the store); output is the module (or the IR
    with --to). kernels: those of a module for AMD GPUs. spirv: what spirv-val says of a module for
    Vulkan, where it is installed. comparison: of the function that is
    farthest from its reference. flags: the user's, for iree-compile. command: the compile, as it
    can be typed again; resume: the same
    from the last good phase, when that fails too (phase_confirmed). generation: by the functions
    chained, where that was wanted and each could be run. advice: what to do about the failure,
    where it is for want of an architecture. decomposed: operations that were, for this target.
    """

    target: str
    release: str
    device: str | None
    arch: str | None
    status: Status
    why: str
    steps: tuple[Step, ...]
    phases: tuple[Phase, ...] = ()
    comparison: Comparison | None = None
    failure: Failure | None = None
    flags: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    decomposed: tuple[Decomposed, ...] = ()
    device_name: str | None = None
    functions: tuple[FunctionResult, ...] = ()
    generation: Generation | None = None
    dispatches: Dispatches | None = None
    output: str | None = None
    output_bytes: int = 0
    messages: str | None = None
    compile_seconds: float = 0.0
    peak_bytes: int = 0
    phase_confirmed: bool | None = None
    resume: tuple[str, ...] | None = None
    advice: str = ""
    kernels: tuple[Kernel, ...] = ()
    spirv: Checked | None = None

    def _repr_html_(self) -> str:
        """A table for notebooks: the verdict, and the failure or what each function gave."""
        rows: list[tuple[str, str | None]] = [
            ("target", self.target),
            ("release", self.release),
            ("verdict", self.status),
        ]
        rows += [("why", self.why), *(html_table.of_failure(self.failure) if self.failure else ())]
        for one in self.functions:
            for output in one.comparison.outputs if one.comparison else ():
                rows.append((f"{one.name}, {output.name}", output.summary))
            if one.latency is not None:
                latency = f"{one.latency.median_seconds * 1e3:.3g} ms"
                rows.append((f"{one.name}, latency", latency))
        return html_table.table(rows)


def tells(status: str, step: str | None) -> bool:
    """True if a case of that status says something of a failure in `step` (or phase)."""
    return step not in _SILENT_ON.get(status, ())


def commands(
    result: CaseResult, *, everything: bool = False
) -> Iterator[tuple[str, tuple[str, ...]]]:
    """(description, command) of the steps that failed, or with `everything` of all steps."""
    if result.command and (result.failure or everything):
        yield "compile", result.command
    if result.failure and result.phase_confirmed and result.resume:
        yield "resume", result.resume
    for function in result.functions:
        named = zip(("run", "benchmark"), function.commands, strict=False)
        yield from named if everything else [*named][: bool(function.failure)]
