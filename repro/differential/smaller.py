"""The first dispatch that differs as a program of its own, as small as it can be."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from iree_pilot.pipeline.frontends.inputs import examples
from iree_pilot.pipeline.numerics import numerics
from iree_pilot.pipeline.program.program import Tensor
from iree_pilot.repro import isolate
from iree_pilot.repro.differential.compare import Comparer, Culprit
from iree_pilot.repro.differential.flow_editor import NotEditable
from iree_pilot.repro.differential.side import FLOW_PHASE, Broken, Side
from iree_pilot.repro.differential.sides_oracle import BothSides, SideFailed, SidesOracle
from iree_pilot.repro.isolate import Isolated
from iree_pilot.repro.oracles.oracle import NotAProgram
from iree_pilot.repro.reducer.shrink import Progress


class Small(msgspec.Struct, frozen=True, kw_only=True):
    """A program whose results differ: what is called with what, and what is expected.

    flags: for iree-compile, besides the side's. inputs, expected: files with absolute paths; an
    input without a file is all ones. minimal: taking any one operation away was tried.
    """

    mlir: str
    function: str
    flags: tuple[str, ...]
    inputs: tuple[Tensor, ...]
    ones: bool
    expected: tuple[Tensor, ...]
    ops: tuple[str, ...]
    minimal: bool
    calls: int
    seconds: float
    comparison: numerics.Comparison
    why_flow: str = ""


def smaller(
    culprit: Culprit,
    comparer: Comparer,
    sides: tuple[Side, Side],
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> Small:
    """The dispatch as a program on tensors with nothing in it that can be spared.

    Where that does not differ, or cannot be made, it stays the flow IR that it is.
    """
    started, context = time.monotonic(), comparer.context
    failure = numerics.to_failure(culprit.differing.comparison)
    why = ""
    try:
        if culprit.differing.levels:
            raise NotEditable("it is several dispatches")
        mlir, inputs = comparer.lifted(culprit)
        oracle = SidesOracle(context, *sides, failure, inputs=inputs, width=os.cpu_count() or 1)
        asked = oracle.asked(mlir, context.directory / "whole")
        if asked.differs:
            small = _shrunk(mlir, asked, oracle, sides[0], on_progress)
            seconds = oracle.spent.earlier_seconds + time.monotonic() - started
            return msgspec.structs.replace(small, seconds=seconds)
        why = "compiled from linalg its results agree"
    except (NotEditable, NotAProgram) as fault:
        why = str(fault)
    except (SideFailed, Broken) as fault:
        why = f"compiled from linalg it fails: {fault}"
    return Small(
        mlir=culprit.mlir,
        function=culprit.cut.name,
        flags=(f"--compile-from={FLOW_PHASE}",),
        inputs=culprit.inputs,
        ones=False,
        expected=culprit.expected,
        ops=culprit.differing.operations,
        minimal=False,
        calls=0,
        seconds=time.monotonic() - started,
        comparison=culprit.differing.comparison,
        why_flow=why,
    )


def _shrunk(
    mlir: Path,
    whole: BothSides,
    oracle: SidesOracle,
    side: Side,
    on_progress: Callable[[Progress], None],
) -> Small:
    context = oracle.context
    job = isolate.IsolationJob(
        mlir=mlir,
        failure=oracle.wanted,
        context=context.within("isolation"),
        flags=side.flags,
        width=os.cpu_count() or 1,
    )
    job.context.directory.mkdir(exist_ok=True)
    found = isolate.isolate(job, oracle, on_progress)
    file, asked = mlir, whole
    if isinstance(found, Isolated):
        again = oracle.asked(Path(found.mlir), context.directory / "isolated")
        if again.differs:
            file, asked = Path(found.mlir), again
    with_ones = _with_ones(file, asked, oracle, context.directory / "ones")
    asked = with_ones or asked
    isolated = isinstance(found, Isolated) and file == Path(found.mlir)
    return Small(
        mlir=str(file),
        function=asked.call.function.name,
        flags=(),
        inputs=asked.call.inputs,
        ones=with_ones is not None,
        expected=asked.expected,
        ops=found.ops if isolated and isinstance(found, Isolated) else (),
        minimal=isolated and isinstance(found, Isolated) and found.minimal,
        calls=oracle.spent.calls,
        seconds=0.0,
        comparison=asked.comparison,
    )


def _with_ones(file: Path, asked: BothSides, oracle: SidesOracle, place: Path) -> BothSides | None:
    """Result with inputs of ones only, which need no files; None if the sides agree then."""
    place.mkdir(exist_ok=True)
    inputs = []
    for number, tensor in enumerate(asked.call.inputs):
        data = place / f"in{number}.bin"
        data.write_bytes(examples.ones(tensor.dtype, math.prod(tensor.shape)))
        inputs.append(msgspec.structs.replace(tensor, file=str(data.absolute())))
    try:
        again = oracle.asked(file, place / "asked", tuple(inputs))
    except (SideFailed, NotAProgram):
        return None
    return again if again.differs else None
