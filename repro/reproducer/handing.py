"""Folder of an isolated failure: written at each level, verified, remembered."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import msgspec

from iree_pilot.pipeline.execution import engine
from iree_pilot.pipeline.failures.diagnostics import Failure
from iree_pilot.pipeline.failures.signatures import is_specific
from iree_pilot.pipeline.frontends.load import Loaded
from iree_pilot.pipeline.plural import count
from iree_pilot.pipeline.program.program import Tensor
from iree_pilot.pipeline.quantities import DEFAULT_SECONDS
from iree_pilot.pipeline.targets.devices import Device
from iree_pilot.pipeline.toolchain.context import Context
from iree_pilot.repro import isolate
from iree_pilot.repro.attribution import origin
from iree_pilot.repro.isolate import Isolated
from iree_pilot.repro.oracles.oracle import STOPPED, RememberingOracle
from iree_pilot.repro.oracles.oracle_run import Running, describe
from iree_pilot.repro.reproducer import levels, publish, verify
from iree_pilot.repro.reproducer.folder import bundle, environment, marks
from iree_pilot.repro.reproducer.folder.bundle import LARGEST_BYTES, Input, Report
from iree_pilot.repro.reproducer.levels import MadeLevels
from iree_pilot.repro.reproducer.publish import Contents
from iree_pilot.repro.reproducer.verify import Ahead
from iree_pilot.repro.wrong_results import folder, inputs
from iree_pilot.repro.wrong_results.inputs import Settled
from iree_pilot.repro.wrong_results.mismatch_oracle import MismatchOracle
from iree_pilot.repro.wrong_results.wrong_record import Wrong

_PACKAGES = ("torch", "iree-turbine")
#: Operations that are named while the folder of theirs is made.
_NAMED = 2


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """The failing subject: a program compiled for a target.

    mlir: the program. source, target: the user's words. command: the compile. running: how it was
    run, if it is not the compile that failed. took_seconds, peak_bytes: of what failed. device:
    that it is compiled for, if there is one here.
    """

    mlir: Path
    source: str
    target: str
    flags: tuple[str, ...]
    command: tuple[str, ...]
    running: Running | None = None
    took_seconds: float
    peak_bytes: int
    device: Device | None = None

    def discriminator(self, failure: Failure) -> str:
        """Discriminator of programs with the same signature, if it is not specific:
        of wrong numbers, or without the operation."""
        if is_specific(failure.signature):
            return ""
        if failure.kind == "mismatch" and self.running is not None:
            return f"{self.running.loaded.program.digest} {self.running.function}"
        with self.mlir.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


def write(
    subject: Subject,
    oracle: RememberingOracle,
    isolated: Isolated,
    context: Context,
    settle: Callable[[], Path],
    on_progress: Callable[[str], None] = lambda _: None,
) -> tuple[Path, Report]:
    """Writes the folder, verified from copies, without what does not reproduce: (where, report).

    It is made and verified in the context's directory, and comes to the place that `settle` gives
    at once: an interruption leaves nothing there.
    """
    about = f"{_about(isolated)} for {subject.target}"
    on_progress(f"making the reproducer of {about}")
    failure = oracle.wanted
    mlir = Path(isolated.mlir)
    companions = () if failure.kind == "mismatch" else failure.also
    alone = msgspec.structs.replace(_as_shown(failure, oracle, mlir), also=companions)
    shown = _shown(subject, oracle, isolated, context.within("run"))
    wrong = shown.settled.wrong if shown.settled else ()
    if wrong:
        alone = _described(alone, isolated, wrong[0], shown.reference)
    report = _report(subject, isolated, alone, shown, context)
    draft = context.directory / "folder"
    making = f"making the reproducer of {about}"
    made, ahead = _levels(
        subject,
        isolated,
        shown,
        report,
        context,
        lambda done, total: on_progress(f"{making}, {done} of {total} levels made"),
    )
    report = msgspec.structs.replace(report, levels=made.levels)
    contents = Contents({}, shown.inputs, shown.files).of(made.files)
    files = contents.files
    on_progress(f"verifying the reproducer of {about}: running copies of {', '.join(files)}")
    settled = publish.verified(draft, report, contents, context.toolchain, *ahead)
    if isolated.rate == 1 and not (settled.verified and settled.levels[0].verified):
        rate = _rate(oracle, mlir)
        if rate < 1:
            report = msgspec.structs.replace(report, rate=rate)
            settled = publish.verified(draft, report, contents, context.toolchain)
    origins = context.within("origin")
    report = _traced(
        _named(settled), subject, shown, origins, lambda doing: on_progress(f"{about}: {doing}")
    )
    kept = {one.file for one in report.levels if one.verified}
    good = {name: file for name, file in files.items() if name in kept}
    contents = contents._replace(files=good or files)
    contents.write(draft, report)
    report = verify.settle_current(report, verify.current(draft, context.toolchain))
    place = publish.publish(
        settle, report, contents, failure.signature, subject.discriminator(failure)
    )
    return place, report


def _levels(
    subject: Subject,
    isolated: Isolated,
    shown: Shown,
    report: Report,
    context: Context,
    on_levels: Callable[[int, int], None],
) -> tuple[MadeLevels, list[Ahead | None]]:
    """(the levels, what was verified of them while others were made)."""
    draft, contents = context.directory / "folder", Contents({}, shown.inputs, shown.files)
    ahead: list[Ahead | None] = []

    def check_ahead(made: MadeLevels) -> None:
        """Verifies what only compiles; a whole program has the memory alone."""
        if shown.run or isolated.whole:
            return
        some, its = msgspec.structs.replace(report, levels=made.levels), contents.of(made.files)
        ahead.append(publish.ahead(draft, some, its, context.toolchain))

    maker = levels.Maker(
        Path(isolated.mlir),
        report.failure,
        context.within("levels"),
        subject.flags,
        shown.run,
        shown.check,
    )
    made = maker.make(isolated.whole, isolated.rate == 1, check_ahead, on_levels)
    if shown.settled is not None:
        made = _compared(made, shown.settled, shown.inputs)
    assert made.levels[0].name == "mlir", "what was isolated comes first"
    return made, ahead


def _report(
    subject: Subject, isolated: Isolated, alone: Failure, shown: Shown, context: Context
) -> Report:
    """Record of what was isolated, before it has levels. alone: the reproducer's own failure."""
    settled = shown.settled
    return Report(
        failure=alone,
        target=subject.target,
        flags=subject.flags,
        release=context.toolchain.version,
        revision=context.toolchain.revision,
        source=subject.source,
        command=subject.running.command if subject.running else subject.command,
        program=str(subject.mlir),
        ops=len(isolated.ops),
        op_names=tuple(dict.fromkeys(isolated.ops)) if isolated.whole else isolated.ops,
        oracle_calls=isolated.calls,
        seconds=isolated.seconds,
        minimal=isolated.minimal,
        verified=False,
        levels=(),
        time_limit=context.limits.seconds or DEFAULT_SECONDS,
        memory_limit=context.limits.memory_bytes,
        packages={name: version(name) for name in _PACKAGES},
        environment=environment.describe(subject.target, subject.device, alone.phase),
        tried=(*isolated.remarks, *(settled.remarks if settled else ())),
        wrong=settled.wrong if settled else (),
        reference=shown.reference,
        whole=isolated.whole,
        rate=isolated.rate,
    )


def _about(isolated: Isolated) -> str:
    """`2 operations (torch.aten.mm, torch.aten.relu)`."""
    names = [*dict.fromkeys(isolated.ops)]
    shown = ", ".join([*names[:_NAMED], *["..."] * (len(names) > _NAMED)])
    about = count(len(isolated.ops), "operation") + (f" ({shown})" if shown else "")
    return f"the whole program, {about}," if isolated.whole else about


def _traced(
    report: Report,
    subject: Subject,
    shown: Shown,
    context: Context,
    on_progress: Callable[[str], None],
) -> Report:
    """The report with where wrong numbers come from, where they are verified."""
    if shown.loaded is None or subject.running is None or not report.verified:
        return report
    device = subject.running.device
    found = origin.find(shown.loaded, subject.target, subject.flags, device, context, on_progress)
    if found is None:
        return report
    failure = msgspec.structs.replace(report.failure, pass_=found.phase.pass_name or None)
    return msgspec.structs.replace(report, origin=found, failure=failure)


def _named(report: Report) -> Report:
    """The report with the pass that `iree-opt` showed to fail, where nothing else named it.

    It stays out where `run.sh` would look for its name in what the compiler says.
    """
    shown = next((one for one in report.levels if one.name == "pass" and one.verified), None)
    if shown is None or report.failure.pass_:
        return report
    failure = msgspec.structs.replace(report.failure, pass_=shown.pass_name or None)
    told_alike = marks.marks(failure) == marks.marks(report.failure)
    return msgspec.structs.replace(report, failure=failure) if told_alike else report


def _rate(oracle: RememberingOracle, program: Path) -> float:
    """Share of the runs in which a program fails in the wanted way, which it did once."""
    seen = [True]
    seen += (oracle.shows(oracle.again(program)) for _ in range(isolate.FLAKY_RUNS - 1))
    return sum(seen) / len(seen)


class Shown(NamedTuple):
    """The run of a reproducer, if it is not the compile that fails.

    check: what judges its outputs, where that is a command of its own. files: what these need
    besides the inputs. settled: of wrong numbers, what they are. loaded: what gives wrong
    numbers, with references; reference: who computed these.
    """

    run: tuple[str, ...] = ()
    check: tuple[str, ...] = ()
    inputs: tuple[Input, ...] = ()
    files: Mapping[str, bytes] = {}
    settled: Settled | None = None
    loaded: Loaded | None = None
    reference: str = engine.TORCH.name


def _shown(
    subject: Subject, oracle: RememberingOracle, isolated: Isolated, context: Context
) -> Shown:
    running, mlir = subject.running, Path(isolated.mlir)
    if running is None:
        return Shown()
    if isinstance(oracle, MismatchOracle):
        if isolated.whole:
            settled, weights = inputs.of_whole(running, context.directory), running.parameters
        else:
            settled, weights = inputs.settle(oracle, mlir, context.directory), ()
        given = _given(settled.inputs, Path())
        compared = folder.comparing(settled, running.elsewhere, given, weights)
        return Shown(
            run=compared.run,
            check=compared.check,
            inputs=given,
            files=compared.files,
            settled=settled,
            loaded=settled.loaded,
            reference=oracle.values.evaluator.engine.name,
        )
    if isolated.whole:
        loaded = running.loaded
        function, place = loaded.program.function(running.function), Path(loaded.directory)
        given = _given(function.example or (), place)
        words = (running.elsewhere, given, running.parameters)
        return Shown(run=bundle.run_command(function.name, *words), inputs=given)
    (function,) = describe(mlir, running, context).program.functions
    given = _given(function.example or (), context.directory)
    run = bundle.run_command(function.name, running.elsewhere, given)
    return Shown(run=run, inputs=given)


def _compared(made: MadeLevels, settled: Settled, given: Sequence[Input]) -> MadeLevels:
    """Levels with a repro.py that has these inputs, and is compared with PyTorch's results."""
    if "repro.py" in made.files:
        file = Path(made.files["repro.py"])
        file.write_text(
            folder.with_inputs(file.read_text(encoding="utf-8"), settled, given), encoding="utf-8"
        )
    parts = (folder.eager(one) if one.name == "pytorch" else one for one in made.levels)
    return msgspec.structs.replace(made, levels=tuple(parts))


def _given(tensors: Sequence[Tensor], directory: Path) -> tuple[Input, ...]:
    return tuple(
        Input(t, directory / t.file if t.bytes <= LARGEST_BYTES // 2 else None) for t in tensors
    )


def _as_shown(failure: Failure, oracle: RememberingOracle, program: Path) -> Failure:
    """The failure in the words that the program itself draws from the compiler."""
    shown = oracle.seen(program)
    if shown is None or failure.kind == "mismatch" or failure.kind in STOPPED:
        return failure
    one = next((f for f in (shown, *shown.also) if f.signature == failure.signature), None)
    if one is None:
        return failure
    return msgspec.structs.replace(failure, message=one.message, op=one.op or failure.op)


def _described(failure: Failure, isolated: Isolated, wrong: Wrong, reference: str) -> Failure:
    """The failure as the reproducer shows it."""
    shape = "x".join([*map(str, wrong.shape), wrong.dtype])
    named = f"{wrong.path}, {shape}" if wrong.path else shape
    said = f"{wrong.wrong} of {wrong.count} elements are wrong"
    if not wrong.wrong and wrong.own_error is not None:
        said = f"max error {wrong.error:.3g} ({reference} itself: {wrong.own_error:.3g})"
    for worst in wrong.elements[:1]:
        place = ", ".join(map(str, worst.index))
        said += f", worst [{place}]: {worst.got} where {worst.expected} is expected"
    return msgspec.structs.replace(
        failure,
        op=isolated.ops[-1] if len(isolated.ops) == 1 else None,
        message=f"output {wrong.index} ({named}): {said}",
    )
