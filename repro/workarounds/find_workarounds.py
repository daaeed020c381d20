"""Finds what gets a failing case past its failure, and what that costs against the default."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal, Protocol

import msgspec

from iree_pilot.pipeline import case
from iree_pilot.pipeline.case import Settings
from iree_pilot.pipeline.case_result import CaseResult
from iree_pilot.pipeline.errors import PilotError, UsageError
from iree_pilot.pipeline.failures.diagnostics import Failure
from iree_pilot.pipeline.frontends import source as sources
from iree_pilot.pipeline.frontends.job import Job, TraceFailed
from iree_pilot.pipeline.frontends.load import Loaded, load
from iree_pilot.pipeline.processes import process
from iree_pilot.pipeline.store.locks import Locks
from iree_pilot.pipeline.store.store import Store, data_directory
from iree_pilot.pipeline.targets import targets
from iree_pilot.pipeline.targets.targets import Plan, Target
from iree_pilot.pipeline.toolchain.compiler import Dispatches
from iree_pilot.pipeline.toolchain.context import Context
from iree_pilot.pipeline.toolchain.toolchain import Toolchain
from iree_pilot.repro.reducer import effort
from iree_pilot.repro.reproducer.folder import bundle
from iree_pilot.repro.reproducer.folder.bundle import LevelName
from iree_pilot.repro.reproducer.known import known
from iree_pilot.repro.since_release import question
from iree_pilot.repro.trust.trust import open_folder
from iree_pilot.repro.workarounds import architectures, combination_search, edit_ir, rewrites
from iree_pilot.repro.workarounds.answers import Cost, WorkaroundAnswer, confirmed, cost, rank
from iree_pilot.repro.workarounds.candidate import Candidate, ordered, usable
from iree_pilot.repro.workarounds.combination_search import (
    ANSWERS,
    PATIENCE,
    Combination,
    CombinationOutcome,
    SearchBounds,
    State,
    Tried,
)
from iree_pilot.repro.workarounds.combination_trial import FailingCase, Trials
from iree_pilot.repro.workarounds.search_progress import CombinationProgress, ProgressCounter
from iree_pilot.repro.workarounds.table import TABLE

#: Limit of a workaround for a program that hangs, as a share of that program's limit.
_SHARE_OF_LIMIT = 0.1
_LEAST_SECONDS = 60.0
#: A program that takes longer to compile is rehearsed with its reproducer, where one is known.
_LONG_SECONDS = 1.0
#: Factor of the time limit for trials that took too long, if nothing else works.
_LONGER_TIMES = 4.0
#: Share of the time that may be spent on the reproducer, before the program itself is tried.
_REHEARSING = 0.5
_BYTECODE = b"ML\xefR"


class SearchOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Options of a search for workarounds.

    job: what the program was made of; words: its source and options as the user gave them;
    settings: the fields among them. flags: the user's for iree-compile. enough: so many answers do,
    None: all. seconds: of time for the search; what was found until then is returned. place: where
    programs that were rewritten go; without it they stay where the search keeps its state. on_wait:
    is called before waiting for another search for the same.
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
    on_wait: Callable[[], None] | None = None


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """Outcome of a trial, in the order of the trials."""

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
    answers: tuple[WorkaroundAnswer, ...] = ()
    tried: tuple[Attempt, ...] = ()
    default: Cost = Cost()
    complete: bool = True
    compiles: int = 0
    seconds: float = 0.0
    why: str = ""


def find(
    loaded: Loaded,
    result: CaseResult,
    plan: Plan,
    toolchain: Toolchain,
    options: SearchOptions,
    *,
    on_progress: Callable[[CombinationProgress], None] = lambda progress: None,
) -> Workarounds:
    """Searches for workarounds for the failure of `result`, a case of `loaded` with `plan`.

    The same call goes on where an earlier one was stopped. Raises OSError where its state cannot be
    kept.
    """
    if result.failure is None:
        return Workarounds(status="passes", why=_passes(result))
    subject = FailingCase(
        loaded=loaded,
        job=options.job,
        settings=options.settings,
        target=result.target,
        plan=plan,
        flags=options.flags,
        device=options.device,
        failure=result.failure,
    )
    return _Lookup(subject, result, toolchain, options, on_progress).found()


class _Lookup:
    """Search with its state in the data directory, by one process at a time."""

    def __init__(
        self,
        subject: FailingCase,
        result: CaseResult,
        toolchain: Toolchain,
        options: SearchOptions,
        on_progress: Callable[[CombinationProgress], None],
    ) -> None:
        self._started = time.monotonic()
        self._subject, self._result, self._options = subject, result, options
        self._root = data_directory() / "workarounds"
        self._key = _key(subject, toolchain)
        each = effort_of(result, options.limits)
        self._progress, self._width = ProgressCounter(on_progress), each.width
        self._rehearsing = 0
        self._context = Context(
            toolchain=toolchain, limits=each.limits, directory=self._root / self._key[:16]
        )
        self._longer_limits = _longer(each.limits, options.limits)

    def found(self) -> Workarounds:
        self._root.mkdir(parents=True, exist_ok=True)
        locks = Locks(self._root / "locks")
        with locks.hold(self._key, on_wait=self._options.on_wait):
            trials = self._trials(self._subject, self._context)
            longer = self._trials(
                self._subject, self._context.bounded(self._longer_limits), fresh=False
            )
            tried = self._tried(trials, longer)
            answers = [*self._confirmed(tried, longer)]
            bare = Context(toolchain=self._context.toolchain, limits=self._options.limits)
            default = _default(self._subject, self._result, bare)
        answers.sort(key=rank)
        return Workarounds(
            status="found" if answers else "none",
            failure=self._result.failure,
            answers=tuple(answers),
            tried=tuple(_attempt(one) for one in tried),
            default=default,
            complete=not self._expired() or bool(answers),
            compiles=trials.compiles + longer.compiles + self._rehearsing,
            seconds=time.monotonic() - self._started,
            why="" if answers else _gave_up(tried, self._expired()),
        )

    def _tried(self, trials: Trials, longer: Trials) -> list[Tried]:
        """Outcome of each combination; if none works, those that took too long get more time."""
        options = self._options
        candidates = wanted(self._subject, self._context.toolchain)
        small = _known(self._subject, self._result, self._context.toolchain, options)
        if small is not None:
            oracle = self._trials(small, self._context.within("reproducer"))
            self._progress.begin("reproducer", len(with_reproducer(candidates)))
            candidates = rehearsed(candidates, oracle, lambda: self._expired(_REHEARSING))
            self._rehearsing = oracle.compiles
        self._progress.begin("program", len(candidates))
        bounds = SearchBounds(
            enough=options.enough,
            patience=PATIENCE if options.enough else None,
            width=self._width,
            expired=self._expired,
        )
        tried = combination_search.search(candidates, trials.ask, ordered, bounds)
        if any(one.outcome.state in ANSWERS for one in tried) or self._expired():
            return tried
        slow = [one for one in tried if one.outcome.state == "unresolved"]
        self._progress.begin("longer", len(slow))
        return _again_slowly(tried, slow, longer)

    def _confirmed(self, tried: Sequence[Tried], longer: Trials) -> Iterator[WorkaroundAnswer]:
        """Workarounds that work, each confirmed by a second run alone."""
        phases, options = self._context.toolchain.phases, self._options
        for one in tried:
            if one.outcome.state in ANSWERS:
                answer = confirmed(one, longer, phases, options.words, options.place)
                if answer is not None:
                    yield answer

    def _trials(self, subject: FailingCase, context: Context, *, fresh: bool = True) -> Trials:
        return Trials(
            subject,
            context,
            width=self._width,
            fresh=fresh and self._options.fresh,
            on_progress=self._progress.add,
        )

    def _expired(self, share: float = 1.0) -> bool:
        """True if the time is over, or that share of it."""
        seconds = self._options.seconds
        return seconds is not None and time.monotonic() - self._started > share * seconds


def _key(subject: FailingCase, toolchain: Toolchain) -> str:
    """Identity of a search: program, plan, failure, compiler, device, our own rewrites."""
    plan, program = subject.plan, subject.loaded
    return Store.key(
        program.program.digest,
        program.directory,
        plan.flags,
        subject.flags,
        toolchain.revision,
        plan.device.fingerprint if plan.device else "",
        subject.failure.signature,
        Path(edit_ir.__file__).read_text(encoding="utf-8"),
    )


class CombinationOracle(Protocol):
    """Answers for combinations, `width` at once."""

    width: int

    def ask(self, combinations: Sequence[Combination]) -> Sequence[CombinationOutcome]: ...


def _known(
    subject: FailingCase, result: CaseResult, toolchain: Toolchain, options: SearchOptions
) -> FailingCase | None:
    """The reproducer of the failure, where one is known and the program takes long to compile."""
    if result.compile_seconds < _LONG_SECONDS:
        return None
    flags = (*subject.plan.flags, *subject.flags)
    recalled = known.recall(subject.failure.signature, toolchain.revision, result.target, flags)
    if recalled is None:
        return None
    entry, report = recalled
    context = Context(toolchain=toolchain, limits=options.limits)
    return reduced(subject, Path(entry.path), report.failure, context)


def reduced(
    subject: FailingCase, folder: Path, failure: Failure, context: Context
) -> FailingCase | None:
    """The case of a reproducer's program in place of the whole one; None where it cannot be made.

    failure: the reproducer's.
    """
    try:
        held = of_reproducer(folder)
        inputs = question.inputs(held.inputs)
        job = Job(source=sources.parse(held.source, {}, None), inputs=inputs)
        loaded = load(job, context)
    except (PilotError, TraceFailed):
        return None
    return msgspec.structs.replace(subject, loaded=loaded, job=job, settings={}, failure=failure)


def with_reproducer(wanted: Sequence[Candidate]) -> list[Candidate]:
    """Candidates that a reproducer can be tried with: it is not traced anew."""
    return [one for one in wanted if not one.fields and one.inline is None]


def rehearsed(
    wanted: Sequence[Candidate], trials: CombinationOracle, expired: Callable[[], bool]
) -> list[Candidate]:
    """Candidates, first those that avoid the reproducer's failure, last those that do not."""
    tried = combination_search.search(
        with_reproducer(wanted),
        trials.ask,
        ordered,
        SearchBounds(enough=None, width=trials.width, most_pairs=0, expired=expired),
    )
    seen = {one.candidates[0].name: one.outcome.state for one in tried}

    def key(one: Candidate) -> int:
        state = seen.get(one.name)
        return 0 if state in ANSWERS else 2 if state == "same" else 1

    return sorted(wanted, key=key)


def _longer(each: process.Limits, given: process.Limits) -> process.Limits:
    """Limits for what the first time was too short for, and for what is to be timed."""
    seconds = each.seconds and _LONGER_TIMES * each.seconds
    if given.seconds and seconds:
        seconds = min(given.seconds, seconds)
    return msgspec.structs.replace(each, seconds=seconds)


def _again_slowly(tried: Sequence[Tried], slow: Sequence[Tried], trials: Trials) -> list[Tried]:
    """Trials, of which those that took too long are repeated."""
    outcomes = trials.ask([one.candidates for one in slow])
    again = [
        msgspec.structs.replace(one, outcome=outcome)
        for one, outcome in zip(slow, outcomes, strict=True)
    ]
    return [one for one in tried if one not in slow] + again


class FolderSubject(msgspec.Struct, frozen=True, kw_only=True):
    """Subject of a search from a reproducer's folder: its program, with inputs as `--input` takes
    them, its target, the user's flags.
    """

    source: str
    target: str
    flags: tuple[str, ...]
    inputs: tuple[str, ...] = ()


def of_reproducer(directory: Path, *, trust: bool = False) -> FolderSubject:
    """Reads the subject from a reproducer's folder.

    Where it fails to compile, the program in PyTorch if it was seen to fail, as it brings inputs.
    Raises UsageError for a folder whose failure is one to trace, and as `open_folder` does.
    """
    opened = open_folder(directory, trust=trust)
    report = opened.report
    if report.failure.phase == "trace":
        raise UsageError(
            f"{directory} shows a failure to trace, which flags do not change",
            advice="Try the model's own options: iree-pilot workaround with its source.",
        )
    target, flags = targets.split_flags(targets.parse(report.target), report.flags)
    levels = [level.name for level in report.levels if level.verified]
    if opened.refuses(bundle.FILES["pytorch"]):
        levels = []
    given = bundle.inputs_of(report, directory)
    name: LevelName = "pytorch" if "pytorch" in levels and not given else "mlir"
    return FolderSubject(
        source=str(directory / bundle.FILES[name]), target=target.spec, flags=flags, inputs=given
    )


def _passes(result: CaseResult) -> str:
    if result.status == "compiled":
        return f"it compiles for {result.target} and is not run here ({result.steps[-1].why})"
    runs = f"it compiles and runs for {result.target}"
    return runs if result.status == "ok" else f"{runs} ({result.why})"


def effort_of(result: CaseResult, given: process.Limits) -> effort.Effort:
    assert result.failure is not None
    took = max((result.compile_seconds, *(s.seconds for s in result.steps[2:])))
    peak = max((result.peak_bytes, *(f.peak_bytes for f in result.functions)))
    each = effort.estimate(result.failure, took, peak, given)
    if result.failure.kind == "timeout" and given.seconds:
        less = min(given.seconds, max(_LEAST_SECONDS, _SHARE_OF_LIMIT * given.seconds))
        limits = msgspec.structs.replace(each.limits, seconds=less)
        return msgspec.structs.replace(each, limits=limits)
    return each


def wanted(subject: FailingCase, toolchain: Toolchain) -> list[Candidate]:
    """Candidates to try, in order, without flags that the user already gives."""
    own = [
        *architectures.fitting(subject.plan, subject.device, toolchain),
        *rewrites.of_zoo(subject.job),
        *rewrites.of_library(subject.loaded.program.switches),
        *rewrites.of_weights(subject.job, subject.loaded),
    ]
    target = subject.plan.target
    return _fitting(own, target, subject.flags, subject.loaded.mlir, subject.failure, toolchain)


def _fitting(
    own: Sequence[Candidate],
    target: Target,
    flags: tuple[str, ...],
    mlir: Path,
    failure: Failure,
    toolchain: Toolchain,
) -> list[Candidate]:
    able = usable([*own, *TABLE], target.backend, toolchain.flags)
    text = mlir.read_bytes()
    new = [
        one
        for one in able
        if (not one.flags or not set(one.flags) <= set(flags))
        and (one.edit is None or text.startswith(_BYTECODE) or edit_ir.NEEDS[one.edit].search(text))
    ]
    return ordered(new, failure)


def expected(directory: Path, toolchain: Toolchain) -> int:
    """Number of candidates for the program of a reproducer's folder, before it is loaded:
    other architectures of the target come on top."""
    report = bundle.read(directory)
    target, flags = targets.split_flags(targets.parse(report.target), report.flags)
    mlir = directory / bundle.FILES["mlir"]
    return len(_fitting((), target, flags, mlir, report.failure, toolchain))


def _default(subject: FailingCase, result: CaseResult, context: Context) -> Cost:
    """Cost of the failing case, as far as it gets: the dispatches are known after `stream`."""
    failure = result.failure
    phases = list(context.toolchain.phases)
    if failure is None or failure.phase not in phases or "stream" not in phases:
        if failure is not None and failure.kind == "mismatch":
            return cost(_again(subject, context, Settings(flags=subject.flags)))
        return cost(result)
    dispatches = None
    if phases.index(failure.phase) > phases.index("stream"):
        settings = Settings(flags=subject.flags, to="stream", confirm=False)
        found: Dispatches | None = _again(subject, context, settings).dispatches
        dispatches = found.dispatches if found else None
    return Cost(dispatches=dispatches)


def _again(subject: FailingCase, context: Context, settings: Settings) -> CaseResult:
    return case.run(subject.loaded, subject.plan, context, settings, case.Silent())


def _attempt(one: Tried) -> Attempt:
    failure = one.outcome.failure
    return Attempt(
        names=tuple(c.name for c in one.candidates),
        state=one.outcome.state,
        why=one.outcome.why,
        signature=failure.signature if failure else "",
        phase=failure.phase if failure else None,
    )


def _gave_up(tried: Sequence[Tried], late: bool) -> str:
    if late and not tried:
        return "the time was over before the first candidate"
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
