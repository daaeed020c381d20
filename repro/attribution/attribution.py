"""Attribution of wrong numbers: variants of the same program are compiled, run and compared.

Pure but for the `Try` that it is given; `others` lists the variants that this machine offers.
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
    """A variant, one way to compile and run the program: `what` differs from the report, and `how`.

    backend: what makes the code.
    """

    what: What
    how: str
    flags: tuple[str, ...]
    device: str
    backend: str


class AttributionRow(msgspec.Struct, frozen=True, kw_only=True):
    """Result of one variant; digest: of all outputs, empty where there are none."""

    what: What
    how: str
    backend: str
    device: str
    verdict: Verdict
    why: str = ""
    digest: str = ""


class Attribution(msgspec.Struct, frozen=True, kw_only=True):
    """Attribution in one sentence, and the rows that it rests on.

    culprit: `target` is an architecture that may not be the device's; `undecided` gives the reason.
    flags: that make it right on the same device, where that was seen; () if none do.
    """

    culprit: Culprit
    conclusion: str
    rows: tuple[AttributionRow, ...] = ()
    flags: tuple[str, ...] = ()


class Narrowed(msgspec.Struct, frozen=True, kw_only=True):
    """Result of the search for the first wrong phase, which rules attributions out.

    step: the first wrong pass or phase; "" where only `after` is known: the last phase whose IR is
    correct. generates: it is code generation, or comes after `after`. untargeted: it comes before
    anything of a target.
    """

    step: str = ""
    after: str = ""
    generates: bool = False
    untargeted: bool = False

    @property
    def shared(self) -> str:
        """The step that backends with the same wrong results have in common."""
        if self.step:
            return f"each of them runs {self.step}"
        return f"the IR after {self.after} is correct, so a later step that they share is wrong"


def others(
    target: Target, flags: Sequence[str], device: str, toolchain: Toolchain
) -> tuple[Way, ...]:
    """The reported variant first, then the most telling ones.

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


def suits(target: Target, flags: Sequence[str], device: str, toolchain: Toolchain) -> bool:
    """True if what is compiled for is what the device itself, when asked, is compiled for."""
    plan = _plan(target.backend, toolchain)
    if plan is None or plan.device is None:
        return False
    return plan.device.uri == device.partition("?")[0] and set(plan.flags) <= set(flags)


def attribute(
    mlir: Path,
    ways: Sequence[Way],
    trial: Try,
    on_progress: Callable[[str], None] = lambda _: None,
    fits: bool = False,
) -> Attribution:
    """Runs all variants, the reported one first, and draws the conclusion (fits: as in `conclude`).

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
    culprit, conclusion = conclude(rows, doubtful=doubtful, fits=fits)
    right = [row.how for row in rows if row.what == "level" and row.verdict == "right"]
    mended = [way.flags for way in ways if way.what == "level" and way.how in right]
    return Attribution(
        culprit=culprit,
        conclusion=conclusion,
        rows=tuple(rows),
        flags=mended[-1] if mended else (),
    )


def conclude(
    rows: Sequence[AttributionRow],
    *,
    doubtful: bool = False,
    narrowed: Narrowed | None = None,
    fits: bool = False,
) -> tuple[Culprit, str]:
    """(culprit, reason in one sentence) from the rows, the reported one first.

    doubtful: PyTorch's own result is as far from the precise one as the device's. fits: the
    reported architecture is the one that is chosen for the device (`suits`). A row that does not
    compile or run says nothing. What is nearest to the reported way says most: its module on
    another device, then other levels, other architectures, other backends. What a wrong phase or
    pass rules out (`narrowed`) is not said: before code generation there is no target, no driver.
    """
    own, *rest = rows
    if own.verdict != "wrong":
        how = "gave correct results" if own.verdict == "right" else f"failed: {own.why}"
        return "undecided", f"a second compile and run {how}"
    if narrowed and narrowed.untargeted and not doubtful:
        return "compiler", _untargeted(rows, narrowed)
    named = {what: _names(rest, what) for what in ("device", "level", "target", "backend")}
    step = narrowed.step if narrowed and not narrowed.generates else ""
    right, wrong = named["device"]["right"], named["device"]["wrong"]
    if right:
        on = f"the same module is correct on {_list(right)}"
        return (
            ("compiler", f"{step}, although {on}")
            if step
            else (
                "driver",
                f"{on}: the device or its driver",
            )
        )
    if right := named["level"]["right"]:
        wrong = named["level"]["wrong"]
        also = f" and wrong at {_list(wrong)}" if wrong else ""
        return "compiler", f"{step or 'an optimisation'}: correct at {_list(right)}{also}"
    if right := named["target"]["right"]:
        why = f"code for {own.how} is wrong, code for {_list(right)} correct on the same device"
        if step:
            return "compiler", f"{step}: {why}"
        # A processor without an instruction says so; a GPU computes something else.
        if BACKENDS[own.backend].on_host:
            return "compiler", why
        if fits:
            return "undecided", f"{why}, for which {own.how} is chosen: the compiler or the driver"
        return "target", f"{why}, which may not support {own.how}"
    return _across_backends(rows, doubtful, narrowed, step)


def _untargeted(rows: Sequence[AttributionRow], narrowed: Narrowed) -> str:
    """The conclusion for a step whose result is the same for all targets.

    What is correct there is so by chance: the IR that it is made of is as wrong.
    """
    own, *rest = rows
    wrong = [own.how, *(r.how for r in rest if r.what == "backend" and r.verdict == "wrong")]
    lucky = [row.how for row in rest if row.verdict == "right"]
    said = f"{narrowed.step}, which all targets share: the results are wrong for {_list(wrong)}"
    if lucky:
        said += f"; with {_list(lucky)} they are right by chance, from the same wrong IR"
    return said


def _across_backends(
    rows: Sequence[AttributionRow], doubtful: bool, narrowed: Narrowed | None, step: str
) -> tuple[Culprit, str]:
    """The conclusion from other backends, where no nearer variant is correct."""
    own, *rest = rows
    backends, levels = _names(rest, "backend"), _names(rest, "level")["wrong"]
    devices_too = " and on every device tried" if _names(rest, "device")["wrong"] else ""
    right, wrong = backends["right"], backends["wrong"]
    at = f" at {_list(levels)} too" if levels else ""
    if right:
        where = f"wrong{at}{devices_too}, correct with {_list(right)}"
        if step:
            return "compiler", f"{step}: {where}"
        if BACKENDS[own.backend].on_host or devices_too:
            return "compiler", f"code generation for {own.backend}: {where}"
        return (
            "undecided",
            f"code generation for {own.backend} or the driver of its only device here: "
            f"wrong{at}, correct with {_list(right)}",
        )
    if not wrong:
        alone = f"wrong{at}; no other backend compiles and runs it here"
        return ("compiler", f"{step}: {alone}") if step else ("undecided", alone)
    alike = all(
        r.digest == own.digest for r in rest if r.what == "backend" and r.verdict == "wrong"
    )
    if doubtful:
        return (
            "reference",
            f"{_list([own.how, *wrong])} agree with each other, and the reference in the program's "
            "own types is as far from float64: the program is ill-conditioned",
        )
    agree = "give the same wrong results" if alike else "are wrong"
    shared = (
        "a step that all backends share (the conversion from torch, or another common pass), "
        "unless the reference is wrong"
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
