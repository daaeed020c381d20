"""Finds what gets a failing case past its failure, and what that costs against the default."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from pipeline import case, process, runtime, targets
from pipeline.architectures import GENERIC_VULKAN
from pipeline.case import CaseResult, Settings
from pipeline.compiler import Dispatches
from pipeline.diagnostics import Failure
from pipeline.errors import PilotError, UsageError
from pipeline.frontends.job import Job
from pipeline.frontends.load import Loaded
from pipeline.locks import Locks
from pipeline.numerics import Comparison
from pipeline.store import Store, data_directory
from pipeline.targets import Plan, Target
from pipeline.toolchain import Toolchain
from repro import bundle, effort
from repro.bundle import LevelName
from repro.workarounds import edit, rewrites, search
from repro.workarounds.candidate import PRICES, Candidate, Price, ordered, usable
from repro.workarounds.rewrites import Unusable
from repro.workarounds.search import ANSWERS, Combination, Outcome, State, Tried
from repro.workarounds.table import TABLE
from repro.workarounds.trial import Subject, Trials, judge

#: What takes a limit as long as the program that hangs is no way around it.
_SHARE_OF_LIMIT = 0.1
_LEAST_SECONDS = 60.0
_BYTECODE = b"ML\xefR"
#: A candidate that takes so much longer than the failing run is not waited for.
_PATIENCE_SECONDS = 30.0
_PATIENCE_TIMES = 10.0
#: Processors that code is compiled for in place of the one at hand, the modest ones last.
_PROCESSORS = ("generic", "x86-64-v4", "x86-64-v3", "x86-64-v2")


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """How workarounds are to be looked for.

    job: what the program was made of; words: its source and options as the user gave them;
    settings: the fields among them. flags: the user's for iree-compile. enough: so many answers do,
    None: all. seconds: of time for the search; what was found until then is returned. place: where
    programs that were rewritten go; without it they stay where the search keeps its state.
    """

    job: Job
    words: tuple[str, ...]
    settings: dict[str, str] = {}
    flags: tuple[str, ...] = ()
    device: str | None = None
    limits: process.Limits = process.Limits()
    enough: int | None = 3
    seconds: float | None = None
    fresh: bool = False
    place: Path | None = None


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """What a case costs: seconds to compile it and to run it once, dispatches, the module's bytes.

    None where it is not known: nothing ran, or the compiler did not get so far.
    """

    compile_seconds: float | None = None
    latency_seconds: float | None = None
    dispatches: int | None = None
    module_bytes: int | None = None


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What works. names, reasons: of the candidates. state `compiles`: it was NOT run here.

    price: what is lost with it. flags: for iree-compile, those of the target and the user's among
    them. command: to be pasted; compile: the iree-compile command that it stands for. program: the
    file that was written, where the program is another one. drift: how far the outputs of that
    program's reference are from the original's, relative; None where it is the original's.
    """

    names: tuple[str, ...]
    reasons: tuple[str, ...]
    state: State
    price: Price
    target: str
    flags: tuple[str, ...]
    settings: dict[str, str]
    command: tuple[str, ...]
    compile: tuple[str, ...]
    cost: Cost
    program: str = ""
    comparison: Comparison | None = None
    drift: float | None = None
    why: str = ""


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """What came of what was tried, in the order in which it was."""

    names: tuple[str, ...]
    state: State
    why: str = ""
    signature: str = ""
    phase: str | None = None


class Workarounds(msgspec.Struct, frozen=True, kw_only=True):
    """status: `found`, `none` or `passes` (nothing fails). answers: the best first.

    default: what the case costs as it is. complete: all that could be tried was, or enough was
    found. compiles: how many cases were compiled; seconds: of the search.
    """

    status: Literal["found", "none", "passes"]
    failure: Failure | None = None
    answers: tuple[Answer, ...] = ()
    tried: tuple[Attempt, ...] = ()
    default: Cost = Cost()
    complete: bool = True
    compiles: int = 0
    seconds: float = 0.0
    why: str = ""


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """One combination that was answered: the `count`-th of about `total`."""

    names: tuple[str, ...]
    outcome: Outcome
    count: int
    total: int


def find(
    loaded: Loaded,
    result: CaseResult,
    plan: Plan,
    toolchain: Toolchain,
    wish: Wish,
    *,
    told: Callable[[Progress], None] = lambda progress: None,
    on_wait: Callable[[], None] | None = None,
) -> Workarounds:
    """Looks for what gets `result`, a case of `loaded` as `plan` says, past its failure.

    The same call goes on where an earlier one was stopped. Raises OSError where its state cannot be
    kept.
    """
    if result.failure is None:
        return Workarounds(status="passes", why=_passes(result))
    begun = time.monotonic()
    subject = Subject(
        loaded=loaded,
        job=wish.job,
        settings=wish.settings,
        target=result.target,
        plan=plan,
        flags=wish.flags,
        device=wish.device,
        failure=result.failure,
    )
    machine = plan.device.fingerprint if plan.device else ""
    key = Store.key(
        loaded.program.digest,
        loaded.directory,
        plan.flags,
        wish.flags,
        toolchain.revision,
        machine,
        result.failure.signature,
        Path(edit.__file__).read_text(),
    )
    root = data_directory() / "workarounds"
    root.mkdir(parents=True, exist_ok=True)
    tells = _Teller(told)
    with Locks(root / "locks").hold(key, on_wait=on_wait):
        each = _effort(result, wish.limits)
        trials = Trials(
            subject,
            toolchain,
            root / key[:16],
            limits=each.limits,
            width=each.width,
            fresh=wish.fresh,
            told=tells.told,
        )
        wanted = _wanted(subject, toolchain)
        tells.total = len(wanted)

        def expired() -> bool:
            return wish.seconds is not None and time.monotonic() - begun > wish.seconds

        tried = search.search(
            wanted,
            trials.ask,
            ordered,
            enough=wish.enough,
            patience=search.PATIENCE if wish.enough else None,
            width=each.width,
            expired=expired,
        )
        found = [one for one in tried if one.outcome.state in ANSWERS]
        answers = [a for one in found if (a := _answer(one, trials, wish, toolchain)) is not None]
        default = _default(subject, result, toolchain, wish.limits)
    answers.sort(key=_rank)
    return Workarounds(
        status="found" if answers else "none",
        failure=result.failure,
        answers=tuple(answers),
        tried=tuple(_attempt(one) for one in tried),
        default=default,
        complete=not expired() or bool(answers),
        compiles=trials.compiles,
        seconds=time.monotonic() - begun,
        why="" if answers else _gave_up(tried, expired()),
    )


class _Teller:
    """Counts what is told."""

    def __init__(self, told: Callable[[Progress], None]) -> None:
        self._told, self._count, self.total = told, 0, 0

    def told(self, combination: Combination, outcome: Outcome) -> None:
        self._count += 1
        names = tuple(one.name for one in combination)
        total = max(self.total, self._count)
        self._told(Progress(names=names, outcome=outcome, count=self._count, total=total))


def of_reproducer(directory: Path) -> tuple[str, str, tuple[str, ...]]:
    """(the source, the target, the user's flags) of a reproducer's folder.

    The program in PyTorch where it was seen to fail, as it brings a reference. Raises UsageError
    for a folder whose failure is one to trace.
    """
    report = bundle.read(directory)
    if report.failure.phase == "trace":
        raise UsageError(
            f"{directory} shows a failure to trace, which flags do not change",
            advice="Try the model's own options: iree-pilot workaround with its source.",
        )
    target, flags = targets.split_flags(targets.parse(report.target), report.flags)
    levels = [level.name for level in report.levels if level.verified]
    name: LevelName = "pytorch" if "pytorch" in levels else "mlir"
    return str(directory / bundle.FILES[name]), target.spec, flags


def _passes(result: CaseResult) -> str:
    if result.status == "not-run":
        return f"it compiles for {result.target} and is not run here ({result.steps[-1].why})"
    return f"it compiles and runs for {result.target}"


def _effort(result: CaseResult, given: process.Limits) -> effort.Effort:
    assert result.failure is not None
    took = max((result.compile_seconds, *(s.seconds for s in result.steps[2:])))
    peak = max((result.peak_bytes, *(f.peak_bytes for f in result.functions)))
    each = effort.estimate(result.failure, took, peak, given)
    if result.failure.kind == "timeout" and given.seconds:
        less = min(given.seconds, max(_LEAST_SECONDS, _SHARE_OF_LIMIT * given.seconds))
        limits = msgspec.structs.replace(each.limits, seconds=less)
        return msgspec.structs.replace(each, limits=limits)
    if result.failure.kind != "out-of-memory":
        allowed = max(_PATIENCE_SECONDS, _PATIENCE_TIMES * took)
        seconds = min(allowed, given.seconds or allowed)
        limits = msgspec.structs.replace(each.limits, seconds=seconds)
        return msgspec.structs.replace(each, limits=limits)
    return each


def _wanted(subject: Subject, toolchain: Toolchain) -> list[Candidate]:
    """What is to be tried, in order; flags that the user gives already are none."""
    own = [
        *_architectures(subject, toolchain),
        *rewrites.of_zoo(subject.job),
        *rewrites.of_weights(subject.job, subject.loaded),
    ]
    known = usable([*own, *TABLE], subject.plan.target.backend, toolchain.flags)
    text = subject.loaded.mlir.read_bytes()
    new = [
        one
        for one in known
        if (not one.flags or not set(one.flags) <= set(subject.flags))
        and (one.edit is None or text.startswith(_BYTECODE) or edit.NEEDS[one.edit].search(text))
    ]
    return ordered(new, subject.failure)


def _architectures(subject: Subject, toolchain: Toolchain) -> list[Candidate]:
    """Other architectures of the target's backend that fit the device at hand."""
    target = subject.plan.target
    if target.backend == "hip" or not target.arch:
        return []
    names: Sequence[str] = _PROCESSORS
    if target.backend == "vulkan":
        names = (_fitting(subject, toolchain), *GENERIC_VULKAN)
    found = []
    for arch in dict.fromkeys(names):
        if not arch or arch == target.arch:
            continue
        other = Target(spec=f"{target.backend}:{arch}", backend=target.backend, arch=arch)
        try:
            plan = targets.plan(other, toolchain, subject.device)
        except PilotError:
            continue
        if plan.warnings:
            continue
        what = "its device" if target.backend == "vulkan" else "this processor"
        found.append(
            Candidate(
                name=f"-t {other.spec}",
                reason=f"fits {what}: another choice of types, vector widths and lowerings",
                group="target",
                price="free" if target.backend == "vulkan" else "slower",
                arch=arch,
                helps=".",
            )
        )
    return found


def _fitting(subject: Subject, toolchain: Toolchain) -> str:
    """The architecture that fits the device best, as a target without one is planned."""
    backend = subject.plan.target.backend
    try:
        plan = targets.plan(Target(spec=backend, backend=backend), toolchain, subject.device)
    except PilotError:
        return ""
    return plan.target.arch or ""


def _answer(one: Tried, trials: Trials, wish: Wish, toolchain: Toolchain) -> Answer | None:
    """The answer that a trial is, seen a second time and timed; None where it came and went."""
    combination = one.candidates
    try:
        loaded = trials.program(combination)
        result = trials.run(combination, latency_budget=runtime.LATENCY_BUDGET)
    except (Unusable, PilotError):
        return None
    outcome = judge(result, trials.subject.failure, toolchain.phases)
    if outcome.state not in ANSWERS:
        return None
    fields = {k: v for c in combination for k, v in c.fields.items()}
    edited = any(c.edit for c in combination)
    program = _placed(loaded, combination, wish.place) if edited else ""
    plan = trials.plan(combination)
    command = result.command
    if program:
        command = (command[0], program, *command[2:])
    return Answer(
        names=tuple(c.name for c in combination),
        reasons=tuple(c.reason for c in combination),
        state=outcome.state,
        price=max((c.price for c in combination), key=PRICES.index),
        target=result.target,
        flags=(*plan.flags, *trials.flags(combination)),
        settings=fields,
        command=command if program else _command(combination, result.target, trials, wish),
        compile=command,
        cost=cost(result),
        program=program,
        comparison=result.comparison,
        drift=rewrites.drift(trials.subject.loaded, loaded) if fields else None,
        why=outcome.why,
    )


def _command(combination: Combination, target: str, trials: Trials, wish: Wish) -> tuple[str, ...]:
    """The `iree-pilot run` that does it."""
    fields = {k: v for c in combination for k, v in c.fields.items()}
    words = wish.words[:1]
    rest = iter(wish.words[1:])
    for word in rest:  # the user's own fields give way
        value = next(rest) if word == "--set" else ""
        if word == "--set" and value.partition("=")[0] in fields:
            continue
        words = (*words, word, value) if value else (*words, word)
    for name, value in fields.items():
        words = (*words, "--set", f"{name}={value}")
    inline = next((c.inline for c in combination if c.inline is not None), None)
    if inline is False:
        words = tuple(w for w in words if w != "--inline-parameters")
    elif inline:
        words = (*words, "--inline-parameters")
    device = ("--device", wish.device) if wish.device else ()
    flags = trials.flags(combination)
    given = ("--", *flags) if flags else ()
    return ("iree-pilot", "run", *words, "-t", target, *device, *given)


def _placed(loaded: Loaded, combination: Combination, place: Path | None) -> str:
    """The rewritten program's file, copied to where the user wants it."""
    if place is None:
        return str(loaded.mlir)
    place.mkdir(parents=True, exist_ok=True)
    stem = "-".join(rewrites.in_words(c.name) for c in combination if c.edit)
    file = place / f"{stem}.mlir"
    file.write_bytes(loaded.mlir.read_bytes())
    own = Path(loaded.directory, rewrites.FNUZ_WEIGHTS)
    if own.is_file():
        (place / own.name).write_bytes(own.read_bytes())
    return str(file)


def _default(
    subject: Subject, result: CaseResult, toolchain: Toolchain, limits: process.Limits
) -> Cost:
    """What the failing case costs, as far as it gets: the dispatches are known after `stream`."""
    failure = result.failure
    phases = list(toolchain.phases)
    if failure is None or failure.phase not in phases or "stream" not in phases:
        if failure is not None and failure.kind == "mismatch":
            return cost(_again(subject, toolchain, Settings(flags=subject.flags, limits=limits)))
        return cost(result)
    dispatches = None
    if phases.index(failure.phase) > phases.index("stream"):
        settings = Settings(flags=subject.flags, limits=limits, to="stream", confirm=False)
        found: Dispatches | None = _again(subject, toolchain, settings).dispatches
        dispatches = found.dispatches if found else None
    return Cost(dispatches=dispatches)


def _again(subject: Subject, toolchain: Toolchain, settings: Settings) -> CaseResult:
    return case.run(
        subject.target, subject.loaded, subject.plan, toolchain, Store(), settings, case.Silent()
    )


def cost(result: CaseResult) -> Cost:
    """What a case that compiled costs; latencies of several functions are added up."""
    latencies = [f.latency.median_seconds for f in result.functions if f.latency]
    return Cost(
        compile_seconds=result.compile_seconds if result.output else None,
        latency_seconds=math.fsum(latencies) if latencies else None,
        dispatches=result.dispatches.dispatches if result.dispatches else None,
        module_bytes=result.output_bytes or None,
    )


def _attempt(one: Tried) -> Attempt:
    failure = one.outcome.failure
    return Attempt(
        names=tuple(c.name for c in one.candidates),
        state=one.outcome.state,
        why=one.outcome.why,
        signature=failure.signature if failure else "",
        phase=failure.phase if failure else None,
    )


def _rank(answer: Answer) -> tuple[int, int, int, float, float]:
    """The best first: seen to agree, nothing lost, one thing changed, fast, few dispatches."""
    return (
        ANSWERS.index(answer.state),
        PRICES.index(answer.price),
        len(answer.names),
        answer.cost.latency_seconds or 0.0,
        answer.cost.dispatches or 0,
    )


def _gave_up(tried: Sequence[Tried], late: bool) -> str:
    moved = [one for one in tried if one.outcome.state == "further"]
    if moved:
        best = max(moved, key=lambda one: one.outcome.rank)
        names = " and ".join(c.name for c in best.candidates)
        far = (
            f"{names} got furthest, to {best.outcome.failure.phase}" if best.outcome.failure else ""
        )
    else:
        far = "nothing got further than the program as it is"
    return f"{far}; there was no time for the rest" if late else far
