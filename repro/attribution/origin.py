"""Origin of an isolated program's wrong numbers: the phase, the pass, the attribution."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import msgspec

from iree_pilot.pipeline.frontends.load import Loaded
from iree_pilot.pipeline.targets import targets
from iree_pilot.pipeline.toolchain.context import Context
from iree_pilot.pipeline.toolchain.phases import UNTARGETED
from iree_pilot.repro.attribution import attribution
from iree_pilot.repro.attribution.attribution import Attribution, Narrowed
from iree_pilot.repro.attribution.variant_trial import AttributionTrial
from iree_pilot.repro.failing_pass import phases
from iree_pilot.repro.failing_pass.bench import RealBench
from iree_pilot.repro.failing_pass.phases import WrongPhase

#: Time limit for one compile or run of an isolated program, which takes a fraction of that in
#: processor time: the phase and the pass must be found on a busy machine too.
_SECONDS = 60.0


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """Result of both searches. calls: the compiles that they took."""

    phase: WrongPhase
    attribution: Attribution
    calls: int


def find(
    loaded: Loaded,
    target: str,
    flags: tuple[str, ...],
    device: str,
    context: Context,
    on_progress: Callable[[str], None] = lambda _: None,
) -> Origin | None:
    """Origin of a program's wrong numbers; None if it is correct when compiled again.

    loaded: with inputs and references. target: as the user named it; flags: for iree-compile, the
    target's and the user's. device: what it runs on. The context's directory is made anew.
    """
    shutil.rmtree(context.directory, ignore_errors=True)
    context.directory.mkdir(parents=True)
    seconds = min(context.limits.seconds or _SECONDS, _SECONDS)
    context = context.bounded(
        msgspec.structs.replace(context.limits, seconds=seconds, of_processor=True)
    )
    named = targets.parse(target)
    trial = AttributionTrial(loaded, context.within("trial"))
    on_progress("compiling and running variants")
    fits = attribution.suits(named, flags, device, context.toolchain)
    ways = attribution.others(named, flags, device, context.toolchain)
    who = attribution.attribute(loaded.mlir, ways, trial, fits=fits)
    if who.rows[0].verdict != "wrong":
        return None
    doing = "searching for the first wrong phase and pass"
    on_progress(doing)
    bench = RealBench(trial, flags, device, context.within("bench"), backend=named.backend)
    found = phases.find(bench, lambda trying: on_progress(f"{doing}: {trying}"))
    shutil.rmtree(context.directory, ignore_errors=True)
    if narrowed := _narrowed(found):
        doubtful = who.culprit == "reference"
        culprit, why = attribution.conclude(
            who.rows, doubtful=doubtful, narrowed=narrowed, fits=fits
        )
        who = msgspec.structs.replace(who, culprit=culprit, conclusion=why)
    return Origin(phase=found, attribution=who, calls=trial.calls)


def _narrowed(found: WrongPhase) -> Narrowed | None:
    """Attributions that the phases rule out; None if they rule out none."""
    if found.state == "later":
        return Narrowed(after=found.phase, generates=True)
    if found.state != "earliest":
        return None
    step = f"phase {found.phase}"
    if found.pass_name:
        step = f"{found.pass_name} in {step}"
    return Narrowed(
        step=step,
        after=found.since,
        generates=found.path == phases.PLAIN,
        untargeted=found.phase in UNTARGETED,
    )
