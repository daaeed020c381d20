"""Whose fault wrong numbers are: the same program compiled and run in other ways, and what it says.

Pure but for the `Try` that it is given; `others` lists the ways that this machine has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from iree_pilot.pipeline.errors import PilotError
from iree_pilot.pipeline.targets import discovery, targets
from iree_pilot.pipeline.targets.backends import BACKENDS, llvm_cpu
from iree_pilot.pipeline.targets.devices import LOCAL
from iree_pilot.pipeline.targets.targets import Plan, Target
from iree_pilot.pipeline.toolchain.toolchain import Toolchain
from iree_pilot.repro.attribution.variant_trial import Try, Verdict

Culprit = Literal["compiler", "driver", "target", "reference", "undecided"]
What = Literal["as reported", "device", "level", "target", "backend"]

_LEVEL = "iree-opt-level"
_LEVELS = ("O0", "O1", "O2", "O3")
#: Flags about one backend or target begin with one of these.
_SPECIAL = (
    "--iree-hal-",
    *(f"--{f.partition('target')[0]}" for one in BACKENDS.values() for f in one.arch_flags),
)


class Way(msgspec.Struct, frozen=True, kw_only=True):
    """A way to compile and run the program: `what` is other in it than reported, and `how`.

    backend: what makes the code.
    """

    what: What
    how: str
    flags: tuple[str, ...]
    device: str
    backend: str


class AttributionRow(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one way; digest: of all outputs, empty where there are none."""

    what: What
    how: str
    backend: str
    device: str
    verdict: Verdict
    why: str = ""
    digest: str = ""


class Attribution(msgspec.Struct, frozen=True, kw_only=True):
    """Whose fault it is, in one sentence, and what that rests on.

    culprit: `target` is an architecture that is not the device's; `undecided` gives the reason.
    flags: that make it right on the same device, where that was seen; () if none do.
    """

    culprit: Culprit
    conclusion: str
    rows: tuple[AttributionRow, ...] = ()
    flags: tuple[str, ...] = ()


class Narrowed(msgspec.Struct, frozen=True, kw_only=True):
    """What following the numbers from phase to phase has ruled out.

    step: what makes them wrong, a pass or a phase; "" where only `after` is known: the last phase
    whose IR is still right. generates: it is code generation, or comes after `after`.
    """

    step: str = ""
    after: str = ""
    generates: bool = False

    @property
    def shared(self) -> str:
        """What backends that are wrong alike have in common."""
        if self.step:
            return f"each of them runs {self.step}"
        return f"the IR after {self.after} is correct, so it is what each of them does after that"


def others(
    target: Target, flags: Sequence[str], device: str, toolchain: Toolchain
) -> tuple[Way, ...]:
    """The reported way first, then those that tell most.

    target: with its architecture. flags: for iree-compile, the target's and the user's; the latter
    stay, but for what a way is about. device: what the module ran on.
    """
    backend, own = target.backend, tuple(flags)
    target, users = targets.split_flags(target, own)
    reported = Way(what="as reported", how=target.spec, flags=own, device=device, backend=backend)
    bare = device.partition("?")[0]
    driver = bare.partition("://")[0]
    ways = [reported]
    for other in LOCAL if driver in LOCAL else (driver,):
        for found in discovery.find(other, toolchain).devices:
            if bare not in (found.uri, other if driver in LOCAL else "") and not found.unusable:
                how = found.uri if driver in LOCAL else f"{found.name} ({found.uri})"
                ways.append(
                    msgspec.structs.replace(reported, what="device", how=how, device=found.uri)
                )
    if _LEVEL in toolchain.flags:
        plain = tuple(flag for flag in own if not flag.startswith(f"--{_LEVEL}="))
        for level in _LEVELS:
            flag = f"--{_LEVEL}={level}"
            if flag not in own:
                made = (*plain, flag)
                ways.append(msgspec.structs.replace(reported, what="level", how=level, flags=made))
    portable = tuple(flag for flag in users if not flag.startswith(_SPECIAL))
    for spec in BACKENDS[backend].neighbours:
        plan = _plan(spec, toolchain)
        if plan is None:
            continue
        if plan.target.backend == backend:
            if not set(plan.flags) <= set(own):
                made = (*plan.flags, *users)
                ways.append(msgspec.structs.replace(reported, what="target", how=spec, flags=made))
        elif plan.device is not None:
            ways.append(
                Way(
                    what="backend",
                    how=plan.target.spec,
                    flags=(*plan.flags, *portable),
                    device=plan.device.uri,
                    backend=plan.target.backend,
                )
            )
    made = (*llvm_cpu.INTERPRETER, *portable)
    vmvx = Way(what="backend", how="vmvx", flags=made, device=LOCAL[0], backend="vmvx")
    return (*ways, vmvx)


def attribute(
    mlir: Path,
    ways: Sequence[Way],
    trial: Try,
    on_progress: Callable[[str], None] = lambda _: None,
) -> Attribution:
    """Tries all ways, the reported one first, and says what they say.

    Levels are tried up to the first that is wrong as well: which one it is matters only where some
    are right.
    """
    rows: list[AttributionRow] = []
    doubtful = False
    for way in ways:
        if way.what == "level" and any(r.what == "level" and r.verdict == "wrong" for r in rows):
            continue
        on_progress(f"{way.what} {way.how}")
        tried = trial(mlir, way.flags, way.device)
        rows.append(
            AttributionRow(
                what=way.what,
                how=way.how,
                backend=way.backend,
                device=way.device,
                verdict=tried.verdict,
                why=tried.why,
                digest=tried.digest,
            )
        )
        doubtful |= way is ways[0] and tried.reference_doubtful
        if way is ways[0] and tried.verdict != "wrong":
            break
    culprit, conclusion = conclude(rows, doubtful=doubtful)
    right = [row.how for row in rows if row.what == "level" and row.verdict == "right"]
    mended = [way.flags for way in ways if way.what == "level" and way.how in right]
    return Attribution(
        culprit=culprit,
        conclusion=conclusion,
        rows=tuple(rows),
        flags=mended[-1] if mended else (),
    )


def conclude(
    rows: Sequence[AttributionRow], *, doubtful: bool = False, narrowed: Narrowed | None = None
) -> tuple[Culprit, str]:
    """(who, why in one sentence) from the rows, the reported one first.

    doubtful: PyTorch's own result is as far from the precise one as the device's. A row that does
    not compile or run says nothing. What is nearest to the reported way says most: its module on
    another device, then other levels, other architectures, other backends. What a wrong phase or
    pass rules out (`narrowed`) is not said: before code generation there is no target, no driver.
    """
    own, *rest = rows
    if own.verdict != "wrong":
        how = "right" if own.verdict == "right" else own.why
        return "undecided", f"when it was compiled and run again, it was {how}"
    told = {what: _names(rest, what) for what in ("device", "level", "target", "backend")}
    step = narrowed.step if narrowed and not narrowed.generates else ""
    right, wrong = told["device"]["right"], told["device"]["wrong"]
    if right:
        on = f"the same module is right on {_list(right)}"
        return (
            ("compiler", f"{step}, although {on}")
            if step
            else (
                "driver",
                f"{on}: the device or its driver",
            )
        )
    if right := told["level"]["right"]:
        wrong = told["level"]["wrong"]
        also = f" and wrong at {_list(wrong)}" if wrong else ""
        return "compiler", f"{step or 'an optimisation'}: it is right at {_list(right)}{also}"
    if right := told["target"]["right"]:
        why = f"code for {own.how} is wrong, code for {_list(right)} right on the same device"
        if step:
            return "compiler", f"{step}: {why}"
        # A processor without an instruction says so; a GPU computes something else.
        if BACKENDS[own.backend].on_host:
            return "compiler", why
        return "target", f"{why}, which the former may not fit"
    return _across_backends(rows, doubtful, narrowed, step)


def _across_backends(
    rows: Sequence[AttributionRow], doubtful: bool, narrowed: Narrowed | None, step: str
) -> tuple[Culprit, str]:
    """What other backends say, where nothing nearer to the reported way is right."""
    own, *rest = rows
    backends, levels = _names(rest, "backend"), _names(rest, "level")["wrong"]
    devices_too = " and on every device tried" if _names(rest, "device")["wrong"] else ""
    right, wrong = backends["right"], backends["wrong"]
    at = f" at {_list(levels)} too" if levels else ""
    if right:
        where = f"wrong{at}{devices_too}, right with {_list(right)}"
        if step:
            return "compiler", f"{step}: {where}"
        if BACKENDS[own.backend].on_host or devices_too:
            return "compiler", f"code generation for {own.backend}: {where}"
        return (
            "undecided",
            f"code generation for {own.backend} or the driver of its only device here: "
            f"wrong{at}, right with {_list(right)}",
        )
    if not wrong:
        alone = f"wrong{at}; nothing else compiles and runs it here"
        return ("compiler", f"{step}: {alone}") if step else ("undecided", alone)
    alike = all(
        r.digest == own.digest for r in rest if r.what == "backend" and r.verdict == "wrong"
    )
    if doubtful:
        return (
            "reference",
            f"{_list([own.how, *wrong])} agree with each other, and the reference in the program's "
            "own types is as far from its float64 one: it is ill-conditioned",
        )
    agree = "give the same wrong numbers" if alike else "are wrong"
    shared = (
        "what all backends share (the conversion from torch, or another pass that each of them "
        "runs), unless the reference is wrong"
    )
    why = narrowed.shared if narrowed else shared
    return "compiler", f"{_list([own.how, *wrong])} {agree}: {why}"


def _names(rows: Iterable[AttributionRow], what: str) -> dict[str, list[str]]:
    """The rows that change one thing, by their verdicts."""
    found: dict[str, list[str]] = {"right": [], "wrong": [], "fails": []}
    for row in rows:
        if row.what == what:
            found[row.verdict].append(row.how)
    return found


def _list(names: Sequence[str]) -> str:
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"


def _plan(spec: str, toolchain: Toolchain) -> Plan | None:
    """A target's plan where this toolchain and machine have one."""
    try:
        return targets.plan(targets.parse(spec), toolchain)
    except PilotError:
        return None
