"""Verification of the expected numbers of somebody else's folder.

Its commands show that the device gives others; that those are wrong is the folder's word. So the
program is evaluated again, by PyTorch or numpy, with the inputs that lie in the folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

import msgspec

from iree_pilot.pipeline.errors import PilotError, UsageError
from iree_pilot.pipeline.frontends import source
from iree_pilot.pipeline.frontends.inputs import examples
from iree_pilot.pipeline.frontends.job import Job, TraceFailed
from iree_pilot.pipeline.frontends.load import Loaded, load
from iree_pilot.pipeline.numerics import expected, numerics
from iree_pilot.pipeline.numerics.expected import IGNORED
from iree_pilot.pipeline.program.program import TensorType
from iree_pilot.pipeline.toolchain.context import Context
from iree_pilot.repro.reproducer.folder import bundle
from iree_pilot.repro.reproducer.folder.bundle import EXPECTED, Level, Report
from iree_pilot.repro.wrong_results import folder as wrong_numbers

_FUNCTION = "--function="


class Doubt(NamedTuple):
    """Doubt about a level's evidence. refuted: its evidence is none; else it cannot be checked."""

    why: str
    refuted: bool


def doubt(directory: Path, report: Report, level: Level, context: Context) -> Doubt | None:
    """Doubt about the inputs and the expected numbers of a level that was run.

    None where they fit the program, and are right where the failure is wrong numbers. Files go to
    the context's directory.
    """
    command = next((c for c in (*level.before, level.command) if c[0] == "iree-run-module"), None)
    if command is None or level.name == "pytorch":
        return None
    compares = report.failure.kind == "mismatch"
    function = next((w for w in command if w.startswith(_FUNCTION)), _FUNCTION)
    inputs = tuple(bundle.placed(word, directory) for word in bundle.typed(report, command))
    try:
        job = Job(
            source=source.parse(str(directory / level.file), {}, None),
            inputs=examples.from_files(inputs, context.directory),
            evaluate=compares,
            function=function.removeprefix(_FUNCTION).removesuffix("$async"),
        )
    except UsageError as fault:
        return Doubt(f"its inputs cannot be read: {fault.message}", refuted=True)
    try:
        loaded = load(job, context)
    except UsageError as fault:
        if _is_read(msgspec.structs.replace(job, inputs=None, evaluate=False), context):
            return Doubt(f"its inputs do not fit: {fault.message}", refuted=True)
        why = fault.message
    except (PilotError, TraceFailed) as fault:
        why = str(fault)
    else:
        return _of_numbers(directory, report, command, loaded, context) if compares else None
    return Doubt(f"the program cannot be evaluated: {why}", refuted=False) if compares else None


def _is_read(job: Job, context: Context) -> bool:
    try:
        load(job, context)
    except (PilotError, TraceFailed):
        return False
    return True


def _of_numbers(
    directory: Path, report: Report, command: Sequence[str], loaded: Loaded, context: Context
) -> Doubt | None:
    program, place = loaded.program, Path(loaded.directory)
    function = program.functions[0] if len(program.functions) == 1 else None
    if function is None or function.reference is None:
        why = function.unevaluated if function else "which function is called is not clear"
        return Doubt(
            f"the program cannot be evaluated: {why or 'its weights are not there'}", refuted=False
        )
    try:
        found = _specs(directory, report, command, len(function.outputs))
        typed = zip_longest(found, function.outputs[: len(found)])
        specs = tuple(_signed(spec, want, context.directory) for spec, want in typed)
        stated = expected.with_outputs(loaded, specs, context.store).program.functions[0].reference
    except UsageError as fault:
        return Doubt(f"its expected numbers do not fit: {fault.message}", refuted=True)
    assert stated is not None
    own = function.reference.outputs
    chosen = zip(own, stated.outputs, stated.incomparable, strict=True)
    outputs = tuple(right if ignored else given for right, given, ignored in chosen)
    judged = numerics.compare(outputs, loaded.call(function), outputs_directory=place)
    if judged.differs:
        why = f"its expected numbers are not what {function.reference.evaluator} computes"
        return Doubt(f"{why}: {judged.why}", refuted=True)
    if numerics.hides(judged):
        return Doubt(f"the program's numbers cannot be judged: {judged.why}", refuted=False)
    return None


def _signed(spec: str, want: TensorType | None, scratch: Path) -> str:
    """An expected output as the program types it: a device's integers carry no sign."""
    if spec == IGNORED or want is None:
        return spec
    place = scratch / f"{want.name}.expected"
    place.mkdir()
    (tensor,) = examples.from_files((spec,), place)
    if tensor.dtype == want.dtype or want.dtype != f"u{tensor.dtype}":
        return spec
    return f"{'x'.join([*map(str, tensor.shape), want.dtype])}=@{place / tensor.file}"


def _specs(directory: Path, report: Report, command: Sequence[str], count: int) -> tuple[str, ...]:
    """The expected outputs as `--expected-output` takes them."""
    words = [w.removeprefix(EXPECTED) for w in command if w.startswith(EXPECTED)]
    if words:
        return tuple(bundle.placed(word, directory) for word in words)
    wrong = {one.index: one for one in report.wrong}
    specs = [IGNORED] * count
    for index, file in wrong_numbers.compared(directory).items():
        if index not in wrong or index >= count:
            raise UsageError(f"output {index} is not among the wrong ones of report.json")
        one = wrong[index]
        spelled = "x".join([*map(str, one.shape), one.dtype])
        at = "@" if file.expected.endswith(".npy") else f"{spelled}=@"
        specs[index] = f"{at}{directory.absolute() / file.expected}"
    return tuple(specs)
