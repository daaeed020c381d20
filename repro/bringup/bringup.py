"""Gets a model past one failure after the other: isolate it, find a way past, apply that, go on.

A way is looked for with the failure's reproducer, where a trial takes a fraction of a second, and
kept only if the whole program then no longer fails in that way. Nothing here decides what is right:
the whole program is compiled, run and compared with PyTorch after each step, as `run` does.
"""

from __future__ import annotations

import heapq
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import msgspec

from iree_pilot.pipeline import case
from iree_pilot.pipeline.case import CaseWatcher, Settings
from iree_pilot.pipeline.case_result import CaseResult, tells
from iree_pilot.pipeline.failures.diagnostics import Failure
from iree_pilot.pipeline.store.store import Store, data_directory
from iree_pilot.pipeline.toolchain.context import Context
from iree_pilot.repro import failed
from iree_pilot.repro.options import Listeners, Options
from iree_pilot.repro.reproducer.known.found import Bisection, Found, Reproducer
from iree_pilot.repro.workarounds import applied, combination_search, find_workarounds, rewrites
from iree_pilot.repro.workarounds.applied import Applied, Unchanged
from iree_pilot.repro.workarounds.candidate import PRICES, Candidate, made_for, ordered
from iree_pilot.repro.workarounds.combination_search import (
    ANSWERS,
    Combination,
    CombinationOutcome,
    SearchBounds,
)
from iree_pilot.repro.workarounds.combination_trial import FailingCase, Trials
from iree_pilot.repro.workarounds.rewrites import Unusable

#: Failures that are got past one after the other, before it is given up.
_MOST = 30
#: So many ways that work with the reproducer are tried with the whole program.
_WAYS = 4


class Obstacle(msgspec.Struct, frozen=True, kw_only=True):
    """One failure on the way. names: what gets past it, () if nothing does that is known.

    op_names: operations of its reproducer, in the folder `reproducer`; "" where it was not
    isolated, why says why. reasons, price: of what gets past it. tried: how many candidates were.
    since: since which release it fails, where that was asked.
    """

    failure: Failure
    op_names: tuple[str, ...] = ()
    reproducer: str = ""
    verified: bool = False
    names: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    price: str = ""
    tried: int = 0
    why: str = ""
    since: str = ""


class BroughtUp(msgspec.Struct, frozen=True, kw_only=True):
    """Outcome for one target. status: `works` (it compiles, runs as far as that is possible here,
    and nothing differs), `remains`, or `budget` (time is up).

    result: of the whole program with all that was found. remaining: what nothing is known against.
    combination: what the recipe is made of, and the failure that each part answers. compiles: of
    the whole program. kept, dropped: names of the steps of a recipe that was checked again.
    instead: a command with which nothing fails, where what is left is due to random numbers.
    """

    status: Literal["works", "remains", "budget"]
    result: CaseResult
    past: tuple[Obstacle, ...] = ()
    remaining: tuple[Obstacle, ...] = ()
    drift: float | None = None
    compiles: int = 0
    seconds: float = 0.0
    kept: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    instead: tuple[str, ...] = ()


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """A candidate that is applied, and the failure that it answers."""

    candidate: Candidate
    failure: Failure
    operation: str = ""


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """Folder of the reproducers; seconds of time for all of it, None: no limit; seed of inputs."""

    place: Path
    seconds: float | None = None
    seed: int = 0
    fresh: bool = False


@dataclass(frozen=True, kw_only=True)
class Heard:
    """Listeners: of the whole program's compile and run, of what is isolated, of each step, and of
    how many candidates of how many were tried with a reproducer."""

    watcher: CaseWatcher = field(default_factory=case.Silent)
    listeners: Listeners = field(default_factory=Listeners)
    note: Callable[[str], None] = lambda text: None
    tried: Callable[[int, int], None] = lambda count, total: None


def bring_up(
    subject: Unchanged, context: Context, bounds: Bounds, heard: Heard
) -> tuple[BroughtUp, tuple[Answered, ...]]:
    """Brings a program up for the target of its plan; what is applied, in order, beside."""
    search = _BringUp(subject, context, bounds, heard)
    return search.outcome(), tuple(search.answered)


class _OpenFailure:
    """A failure that is being got past: what is left to try of what may."""

    def __init__(self, failure: Failure, found: Reproducer | None, why: str) -> None:
        self.failure, self.found, self.why = failure, found, why
        self.ways: Iterator[Combination] = iter(())
        self.rehearsed: list[Combination] = []
        self.taken: Combination = ()
        self.tried = 0

    @property
    def key(self) -> tuple[str, tuple[str, ...]]:
        """The same of what is the same failure of the same operation."""
        return self.failure.signature, self.found.op_names if self.found else ()

    def obstacle(self) -> Obstacle:
        """The record of it."""
        price = PRICES[_cost(self.taken)] if self.taken else ""
        return Obstacle(
            failure=self.failure,
            op_names=self.found.op_names if self.found else (),
            reproducer=self.found.path if self.found else "",
            verified=bool(self.found and self.found.verified),
            names=tuple(one.name for one in self.taken),
            reasons=tuple(one.reason for one in self.taken),
            price=price,
            tried=self.tried,
            why=self.why,
        )


class _BringUp:
    """The search for one target. answered: what is applied."""

    def __init__(self, subject: Unchanged, context: Context, bounds: Bounds, heard: Heard) -> None:
        self._subject, self._context = subject, context
        self._bounds, self._heard = bounds, heard
        self._started = time.monotonic()
        self._root = data_directory() / "bringup" / _state(subject, context)
        self._compiles = 0
        self._open: list[_OpenFailure] = []

    @property
    def answered(self) -> list[Answered]:
        """Steps that are applied, with the failures that they answer."""
        return [
            Answered(
                candidate=candidate,
                failure=one.failure,
                operation=", ".join(one.found.op_names) if one.found else "",
            )
            for one in self._open
            for candidate in one.taken
        ]

    def outcome(self) -> BroughtUp:
        """Goes on until nothing fails, nothing is known, or time is up."""
        made, result = self._run()
        while result.failure is not None and len(self._open) < _MOST and not self._expired():
            further = self._next(made, result)
            if further is None:
                return self._done("budget" if self._expired() else "remains", made, result)
            made, result = further
        if result.failure is None:
            return self._done("works", made, result)
        return self._done("budget", made, result)

    def _next(self, made: Applied, result: CaseResult) -> tuple[Applied, CaseResult] | None:
        """The program after one more way; None where there is none for what fails."""
        assert result.failure is not None
        bisection = self._isolated(made, result)
        found = next((f for f in bisection.failures if f.reproducer), None)
        now = _OpenFailure(result.failure, *_reduced(bisection, found))
        before = next((one for one in self._open if one.taken and one.key == now.key), None)
        if before is not None:  # what was taken has not got the whole program past it
            now = before
        else:
            self._open.append(now)
            self._heard.note(f"\n{result.target}: {_summary(now)}")
            now.ways = self._ways(now, made, result)
        for combination in now.ways:
            if self._expired():
                break
            now.taken, now.tried = combination, now.tried + 1
            try:
                after, then = self._run()
            except Unusable:
                continue
            if _gone(result.failure, then, rehearsed=combination in now.rehearsed):
                self._heard.note(f"  past it with {' + '.join(one.name for one in combination)}")
                return after, then
        now.taken = ()
        return None

    def _run(self) -> tuple[Applied, CaseResult]:
        """The whole program with what is applied. Raises Unusable where there is none."""
        combination = [one.candidate for one in self.answered]
        made = applied.apply(combination, self._subject, self._context.at(self._root / "programs"))
        self._compiles += 1
        settings = Settings(flags=made.flags, fresh=self._bounds.fresh, latency_budget=0)
        return made, case.run(made.loaded, made.plan, self._context, settings, self._heard.watcher)

    def _isolated(
        self, made: Applied, result: CaseResult, *, everything: bool = False
    ) -> Bisection:
        number = len(self._open) + 1
        options = Options(
            place=self._bounds.place / ("remaining" if everything else f"gap-{number}"),
            flags=made.flags,
            seed=self._bounds.seed,
            everything=everything,
            fresh=self._bounds.fresh,
        )
        return failed.isolate(
            made.loaded, result, made.plan, self._context, options, self._heard.listeners
        )

    def _ways(self, now: _OpenFailure, made: Applied, result: CaseResult) -> Iterator[Combination]:
        """Combinations that may get past a failure, the most likely and the cheapest first.

        What works with the reproducer, and what only a source takes (switches, fields, where
        its weights are), of which a reproducer knows nothing. What is free of that, and made for
        such a failure, comes before the reproducer is asked: one compile, in place of dozens.
        """
        assert result.failure is not None
        subject = FailingCase(
            loaded=made.loaded,
            job=self._subject.job,
            settings=self._subject.settings,
            plan=made.plan,
            flags=made.flags,
            device=self._subject.device,
            target=result.target,
            failure=result.failure,
        )
        applied_now = tuple(one.candidate for one in self.answered)
        wanted = find_workarounds.wanted(subject, self._context.toolchain)
        wanted = _undecided(wanted, applied_now)
        at_source = [one for one in wanted if one.fields or one.inline is not None]
        likely = [one for one in at_source if made_for(one, now.failure)]
        free = [one for one in likely if one.price == PRICES[0]][:_WAYS]
        yield from ((one,) for one in free)
        known = self._rehearsed(now, subject, result, applied_now)
        costly = sorted(((one,) for one in likely if one not in free), key=_cost)
        ways = itertools.islice(heapq.merge(known, costly, key=_cost), _WAYS)
        first = next(ways, None)
        if first is not None:
            yield first
            yield from ways
        elif not free:
            yield from ((one,) for one in at_source[:_WAYS])

    def _rehearsed(
        self, now: _OpenFailure, subject: FailingCase, result: CaseResult, applied_now: Combination
    ) -> Iterator[Combination]:
        """Combinations that get the reproducer past its failure, the cheapest first.

        What is free comes as soon as it is found: the others are looked for only if that is not
        enough for the whole program. A trial has the time that the whole program took, and more.
        """
        if now.found is None or now.found.whole:
            return
        folder = Path(now.found.path)
        small = find_workarounds.reduced(subject, folder, now.failure, self._context)
        if small is None:
            return
        wanted = find_workarounds.wanted(small, self._context.toolchain)
        wanted = _undecided(wanted, applied_now)
        asked: list[Combination] = []
        free: list[Combination] = []

        def counted(combination: Combination, outcome: CombinationOutcome) -> None:
            if combination not in asked:
                asked.append(combination)
                now.tried += 1
                self._heard.tried(len(asked), max(len(asked), len(wanted)))
                if outcome.state in ANSWERS and not _cost(combination):
                    free.append(combination)

        each = find_workarounds.effort_of(result, self._context.limits)
        place = self._context.at(self._root / Store.key(str(now.key))[:12]).bounded(each.limits)
        trials = Trials(small, place, width=each.width, on_progress=counted)

        def answers(is_enough: Callable[[], bool]) -> list[Combination]:
            def ended() -> bool:
                return self._expired() or is_enough()

            bounds = SearchBounds(enough=_WAYS, width=each.width, expired=ended)
            tried = combination_search.search(wanted, trials.ask, ordered, bounds)
            ways = [one.candidates for one in tried if one.outcome.state in ANSWERS]
            return sorted(ways, key=_cost)

        found = answers(lambda: bool(free))
        now.rehearsed = found[:1] if free else found
        yield from now.rehearsed
        if free:
            others = [one for one in answers(lambda: False) if one not in found[:1]]
            now.rehearsed = [*found[:1], *others]
            yield from others

    def _done(
        self, status: Literal["works", "remains", "budget"], made: Applied, result: CaseResult
    ) -> BroughtUp:
        past = [one.obstacle() for one in self._open if one.taken]
        remaining = [one.obstacle() for one in self._open if not one.taken]
        if status == "remains":
            signatures = {one.failure.signature for one in remaining}
            for found in self._isolated(made, result, everything=True).failures:
                if found.failure.signature not in signatures:
                    remaining.append(
                        _OpenFailure(found.failure, found.reproducer, found.why).obstacle()
                    )
        changed = any(one.candidate.fields for one in self.answered)
        return BroughtUp(
            status=status,
            result=result,
            past=tuple(past),
            remaining=tuple(remaining),
            drift=rewrites.drift(self._subject.loaded, made.loaded) if changed else None,
            compiles=self._compiles,
            seconds=time.monotonic() - self._started,
        )

    def _expired(self) -> bool:
        seconds = self._bounds.seconds
        return seconds is not None and time.monotonic() - self._started > seconds


def _state(subject: Unchanged, context: Context) -> str:
    plan = subject.plan
    device = plan.device.fingerprint if plan.device else ""
    digest = subject.loaded.program.digest
    return Store.key(digest, plan.flags, subject.flags, context.toolchain.revision, device)[:16]


def _reduced(bisection: Bisection, found: Found | None) -> tuple[Reproducer | None, str]:
    """(the reproducer, why there is none)."""
    if found is not None and found.reproducer is not None:
        return found.reproducer, ""
    return None, bisection.why or next((one.why for one in bisection.failures), "")


def _cost(way: Combination) -> int:
    """Place of the highest price in a combination among the prices; 0: it is free."""
    return max(PRICES.index(one.price) for one in way)


def _undecided(wanted: Sequence[Candidate], applied_now: Combination) -> list[Candidate]:
    """Wanted candidates that decide nothing that the applied ones decide."""
    return [one for one in wanted if all(one.goes_with(other) for other in applied_now)]


def _gone(failure: Failure, result: CaseResult, *, rehearsed: bool) -> bool:
    """True if a failure does not show any more, in a case that got to where it would.

    Wrong numbers of two operations look alike in the whole program: whether they are those of the
    one that was isolated is known after the next isolation. rehearsed: its reproducer was right.
    """
    if result.failure is None:
        return tells(result.status, failure.phase)
    seen = {result.failure.signature, *(one.signature for one in result.failure.also)}
    return failure.signature not in seen or (failure.kind == "mismatch" and rehearsed)


def _summary(now: _OpenFailure) -> str:
    names = ", ".join(now.found.op_names) if now.found else now.why
    return f"{now.failure.signature} ({names})"
