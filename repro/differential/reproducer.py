"""The folder that shows a difference: a program, compiled for both sides, and what it should give.

Its run.sh compiles for the side held against first, whose results must be the expected ones.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

import msgspec

from iree_pilot.pipeline.frontends.load import Loaded
from iree_pilot.pipeline.numerics import numerics
from iree_pilot.pipeline.numerics.numerics import Comparison, OutputComparison
from iree_pilot.pipeline.program import tensors
from iree_pilot.pipeline.program.program import Tensor
from iree_pilot.pipeline.quantities import DEFAULT_SECONDS
from iree_pilot.pipeline.targets import discovery
from iree_pilot.pipeline.toolchain.compiler import Compile
from iree_pilot.pipeline.toolchain.context import Context
from iree_pilot.pipeline.toolchain.toolchain import Toolchain
from iree_pilot.repro.differential.compare import Differing
from iree_pilot.repro.differential.side import Side
from iree_pilot.repro.differential.smaller import Small
from iree_pilot.repro.reproducer import publish
from iree_pilot.repro.reproducer.folder import bundle, environment
from iree_pilot.repro.reproducer.folder.bundle import LARGEST_BYTES, Input, Report
from iree_pilot.repro.wrong_results import folder
from iree_pilot.repro.wrong_results.inputs import Settled
from iree_pilot.repro.wrong_results.wrong_record import Wrong, WrongElement

_PROGRAM = bundle.FILES["mlir"]
#: Threshold as a share of the error, if the judgement would allow more.
_WITHIN = 0.25


def write(
    small: Small,
    differing: Differing,
    loaded: Loaded,
    sides: tuple[Side, Side],
    context: Context,
    settle: Callable[[], Path],
) -> tuple[Path, Report]:
    """Writes the folder, verified from copies of the one in the context's directory, to the place
    that `settle` gives: (where, report).

    Raises UsageError where the inputs are as large as weights, and as `bundle.write` does.
    """
    report, inputs, files = _prepared(small, differing, loaded, sides, context)
    contents = publish.Contents({_PROGRAM: Path(small.mlir)}, inputs, files)
    report = publish.verified(context.directory, report, contents, context.toolchain)
    return publish.placed(settle, report, contents), report


def _prepared(
    small: Small, differing: Differing, loaded: Loaded, sides: tuple[Side, Side], context: Context
) -> tuple[Report, tuple[Input, ...], dict[str, bytes]]:
    side, against = sides
    inputs = tuple(Input(t, None if small.ones else Path(t.file)) for t in small.inputs)
    settled = Settled(
        function=small.function,
        inputs=small.inputs,
        expected=small.expected,
        wrong=_wrong(small.comparison, small.expected),
        kept=0,
        elements=0,
    )
    flags = (*side.flags, *small.flags)
    shown = folder.comparing(settled, elsewhere(side, context.toolchain), inputs)
    other = folder.comparing(settled, elsewhere(against, context.toolchain), inputs)
    level = bundle.level("mlir", flags, run=shown.run, check=shown.check)
    right = bundle.level("mlir", (*against.flags, *small.flags), run=other.run, check=other.check)
    level = msgspec.structs.replace(level, before=(*right.before, right.command, *level.before))
    report = Report(
        failure=msgspec.structs.replace(numerics.to_failure(small.comparison), also=()),
        target=side.name,
        flags=flags,
        release=context.toolchain.version,
        revision=context.toolchain.revision,
        source=loaded.program.source,
        command=Compile(mlir=loaded.mlir, flags=side.flags).command(context.toolchain, dumps=None),
        program=str(loaded.mlir),
        ops=len(small.ops),
        op_names=small.ops,
        oracle_calls=small.calls,
        seconds=small.seconds,
        minimal=small.minimal,
        verified=False,
        levels=(level,),
        time_limit=context.limits.seconds or DEFAULT_SECONDS,
        memory_limit=context.limits.memory_bytes,
        environment=environment.describe(side.name, side.plan.device, "compare"),
        tried=_tried(small, differing, against),
        wrong=settled.wrong,
        reference=against.name,
    )
    return report, inputs, shown.files


def elsewhere(side: Side, toolchain: Toolchain) -> str:
    """The side's device as another machine may have it: any of its driver, if there is one here."""
    device = side.plan.device
    assert device is not None, "checked before anything is compiled"
    alone = len(discovery.find(device.driver, toolchain).devices) == 1
    return device.driver if alone else device.uri


def _tried(small: Small, differing: Differing, against: Side) -> tuple[str, ...]:
    made = f" (from {'; '.join(differing.sources)})" if differing.sources else ""
    said = [
        f"Reduced from `{differing.name}`, dispatch {differing.number} of the program{made}.",
        f"The expected values are those of `{against.name}`, with `{shlex.join(against.flags)}`.",
    ]
    if small.ones:
        said.append("All inputs are ones.")
    if small.why_flow:
        said.append(f"It is flow IR because {small.why_flow}.")
    return tuple(said)


def _wrong(comparison: Comparison, expected: tuple[Tensor, ...]) -> tuple[Wrong, ...]:
    return tuple(
        _one(output, expected[output.index])
        for output in comparison.outputs
        if output.verdict == "mismatch"
    )


def _one(output: OutputComparison, expected: Tensor) -> Wrong:
    size = _size(expected)
    allowed = min(output.element_tolerance * size, output.max_abs * _WITHIN)
    worst = output.worst
    return Wrong(
        index=output.index,
        dtype=output.dtype,
        shape=output.shape,
        error=output.max_abs,
        own_error=None,
        threshold=allowed if output.element_tolerance else 0.0,
        size=size,
        wrong=output.mismatched,
        count=tensors.length(expected),
        limit=output.basis,
        elements=(WrongElement(worst.index, worst.got, worst.expected),) if worst else (),
    )


def _size(tensor: Tensor) -> float:
    """The largest absolute value of a tensor; 0 where there is none."""
    import numpy as np

    largest = 0.0
    for start in range(0, tensors.length(tensor), tensors.PIECE):
        values = np.abs(tensors.read(Path(tensor.file), tensor, start).astype(np.float64))
        values = values[np.isfinite(values)]
        largest = max(largest, float(values.max()) if values.size else 0.0)
    return largest


def fits(small: Small) -> bool:
    """True if its inputs are small enough to be handed on."""
    return small.ones or all(t.bytes <= LARGEST_BYTES for t in small.inputs)
