"""One night from its plan to its report: reuse, run, run again, judge, look into what is new."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Protocol

import msgspec

from iree_pilot.pipeline.nightly import versions
from iree_pilot.pipeline.nightly.cases.config import Nightly
from iree_pilot.pipeline.nightly.cases.keys import Keys
from iree_pilot.pipeline.nightly.history.history import History, NightRun
from iree_pilot.pipeline.nightly.investigation import inquiry, isolation, news
from iree_pilot.pipeline.nightly.judgement import opinion
from iree_pilot.pipeline.nightly.judgement.boundaries import boundaries, with_boundaries
from iree_pilot.pipeline.nightly.judgement.expectations import Expectation, acceptable, is_added
from iree_pilot.pipeline.nightly.records import Case, CaseOutcome, Judgement
from iree_pilot.pipeline.nightly.reports import report
from iree_pilot.pipeline.nightly.reports.report import NightReport
from iree_pilot.pipeline.nightly.workers import worker
from iree_pilot.pipeline.nightly.workers.orders import Order, Scheduler, jobs
from iree_pilot.repro import failed


class NightWatcher(news.NewsWatcher, Protocol):
    """Callbacks during a night."""

    def night_started(self, run: NightRun, cases: Sequence[Case], done: int) -> None: ...
    def started(self, name: str, worker: str) -> None: ...
    def traced(self, program: str, outcome: CaseOutcome) -> None: ...
    def ended(self, outcome: CaseOutcome) -> None: ...
    def again(self, cases: Sequence[Case]) -> None: ...
    def note(self, text: str) -> None: ...


@dataclass(frozen=True, kw_only=True)
class NightOptions:
    """Options of a night.

    artifacts: where reproducers go. unused: expectations of no case, tonight or another night.
    fresh: reuse nothing. notes: what its report is to say beside the cases. accept: the command
    that accepts what it finds, but for the reason. isolate, ask: what isolates a new failure, and
    what looks into it.
    """

    keys: Keys
    artifacts: Path
    expectations: Sequence[Expectation] = ()
    unused: Sequence[Expectation] = ()
    fresh: bool = False
    notes: Sequence[str] = ()
    accept: Sequence[str] = ("iree-pilot", "nightly", "expect", "--accept")
    isolate: news.Isolate = isolation.isolate
    ask: news.Ask = inquiry.ask


class Night:
    """One night on a history that is held.

    Every outcome is in the history before the next one is waited for: the same call after a kill
    goes on with what is missing.
    """

    def __init__(
        self,
        nightly: Nightly,
        cases: Sequence[Case],
        history: History,
        scheduler: Scheduler,
        watcher: NightWatcher,
        options: NightOptions,
    ) -> None:
        self._nightly, self._config = nightly, nightly.config
        self._cases = {case.name: case for case in cases}
        self._history = history
        self._scheduler = scheduler
        self._watcher = watcher
        self._options = options
        self._run: NightRun | None = None
        self._news = news.News(
            nightly, history, watcher, options.artifacts, isolate=options.isolate, ask=options.ask
        )

    def run(self) -> NightReport:
        """Begins the night, or goes on with the same one that was not finished."""
        revision = versions.revision()
        digest = versions.digest(self._nightly.digest, self._cases, revision)
        run = self._history.unfinished(digest) or self._history.begin(
            list(self._cases.values()),
            config=digest,
            title=self._config.title,
            machine=worker.machine(),
            revision=revision,
        )
        self._run = run
        course = _RunningNight(self._history, run, self._watcher)
        missing = [case for name, case in self._cases.items() if name not in course.outcomes]
        self._watcher.night_started(run, missing, len(course.outcomes))
        if self._scheduler.here and not self._options.fresh:
            self._reuse(missing, course)
        self._do([case for case in missing if case.name not in course.outcomes], course)
        while doubted := self._doubted(course):
            self._watcher.again(doubted)
            self._do(doubted, course, again=True)
        judgements = self._news.look_into(run.id, self._cases, course.outcomes, self._judge(course))
        accept = tuple(self._options.accept)
        if any(map(is_added, judgements)):
            accept += ("--reason", f"known since {run.begun[:10]}")
        outdated = [*self._outdated(course, judgements, shlex.join(accept))]
        if not outdated and not acceptable(
            [j for j in judgements if j.news], self._options.expectations
        ):
            accept = ()
        notes = [*self._options.notes, *self._expired(), *outdated]
        self._history.finish(run.id, judgements, notes, accept=accept)
        return report.of(self._history, self._history.run(run.id))

    def so_far(self) -> NightReport | None:
        """Partial report of a night that was stopped, with all its cases; None before it
        was started."""
        return report.of(self._history, self._history.run(self._run.id)) if self._run else None

    def _reuse(self, cases: Sequence[Case], course: _RunningNight) -> None:
        """Takes what would come out the same from an earlier night, unless it is to be measured.

        Where that is not known yet, because a program is not traced or the case's device is
        elsewhere, a worker finds out (`Order.known`).
        """
        past = self._history.past([case.name for case in cases], before=course.run.id)
        for case in cases:
            key = "" if opinion.unsettled(past[case.name]) else self._options.keys.key(case)
            if before := self._history.reusable(key) if key else None:
                course.reuse(case.name, before)

    def _do(self, cases: Sequence[Case], course: _RunningNight, *, again: bool = False) -> None:
        """Runs cases; `again`: for another outcome of the same night."""
        if not cases:
            return
        names = [case.name for case in cases]
        usual = self._history.usual(names)
        past = self._history.past(names, before=course.run.id)
        known = self._history.known(names)
        orders = [
            Order(
                what="case",
                case=case,
                directory=str(self._nightly.directory),
                release=self._options.keys.release(case),
                fresh=again or self._options.fresh or opinion.unsettled(past[case.name]),
                known=known[case.name],
            )
            for case in cases
        ]
        here = cases if self._scheduler.here else ()
        traced = [case.program for case in here if self._options.keys.program(case) is not None]
        self._scheduler.run(jobs(orders, usual, traced), course.again() if again else course)

    def _doubted(self, course: _RunningNight) -> list[Case]:
        """Cases to run again: new failures, which may be flaky; an error of the source is not."""
        wanted = 1 + self._config.schedule.reruns
        judged = {judgement.case: judgement for judgement in self._judge(course)}
        return [
            case
            for name, case in self._cases.items()
            if judged[name].verdict in news.NEW
            and not course.outcomes[name].reused
            and not _of_the_source(course.outcomes[name])
            and len(tried(course.outcomes[name])) < max(wanted, case.repeats)
        ]

    def _judge(self, course: _RunningNight) -> list[Judgement]:
        past = self._history.past(self._cases, before=course.run.id)
        judged = [
            opinion.judge(
                course.outcomes[name], past[name], self._options.expectations, course.run.begun
            )
            for name in self._cases
        ]
        return with_boundaries(judged, boundaries(self._cases.values(), course.outcomes))

    def _outdated(
        self, course: _RunningNight, judgements: Sequence[Judgement], accept: str
    ) -> Iterable[str]:
        """Sentences on expectations that have not held for some nights."""
        past = self._history.past(self._cases, before=course.run.id)
        for one in judgements:
            outcome, before = course.outcomes[one.case], past[one.case]
            found = opinion.outdated(
                outcome, one, before, self._options.expectations, course.run.begun
            )
            if found:
                fails = one.verdict == "same failure"
                does = "bring it up to date" if fails else "remove the expectation"
                yield f"{one.case} is {found}: {does} with {accept}"

    def _expired(self) -> Iterable[str]:
        today = date.today()
        for expectation in self._options.expectations:
            if not expectation.holds(today):
                yield f"the expectation of {expectation.case} expired on {expectation.expires}"
        for expectation in self._options.unused:
            yield (
                f"the expectation of {expectation.case} is of no case of {self._nightly.path.name},"
                " nor of another configuration beside it: take it out of the file, or bring the "
                "case back"
            )


class _RunningNight:
    """State of a night so far; a watcher of the scheduler that records what it receives."""

    def __init__(self, history: History, run: NightRun, watcher: NightWatcher) -> None:
        self.run = run
        self.outcomes = history.outcomes(run.id)
        self._history = history
        self._watcher = watcher
        self._again = False

    def again(self) -> _RunningNight:
        """From now on an outcome is added to the one that is there already."""
        self._again = True
        return self

    def reuse(self, case: str, before: CaseOutcome) -> None:
        """Takes the outcome of an earlier night."""
        self._keep(
            msgspec.structs.replace(
                before, case=case, reused=True, begun=worker.now(), seconds=0.0, attempts=()
            )
        )

    def began(self, order: Order, worker: str) -> None:
        self._watcher.started(order.name, worker)

    def traced(self, order: Order, outcome: CaseOutcome) -> None:
        self._watcher.traced(order.name, outcome)

    def done(self, outcome: CaseOutcome) -> None:
        before = self._history.reusable(outcome.key) if outcome.reused else None
        if before is not None:
            self.reuse(outcome.case, before)
        elif self._again:
            self._keep(combined(self.outcomes[outcome.case], outcome))
        else:
            self._keep(outcome)

    def note(self, text: str) -> None:
        self._watcher.note(text)

    def _keep(self, outcome: CaseOutcome) -> None:
        self._history.record(self.run.id, outcome)
        self.outcomes[outcome.case] = outcome
        self._watcher.ended(outcome)


def tried(outcome: CaseOutcome) -> tuple[str, ...]:
    """The status of each time that a case was run in a night."""
    return outcome.attempts or (outcome.status,)


def combined(first: CaseOutcome, again: CaseOutcome) -> CaseOutcome:
    """One outcome of two runs of a case in one night; the failure stays in sight if one failed."""
    shown = first if first.failure is not None or again.failure is None else again
    return msgspec.structs.replace(
        shown,
        attempts=(*tried(first), *tried(again)),
        seconds=first.seconds + again.seconds,
        begun=first.begun,
    )


def _of_the_source(outcome: CaseOutcome) -> bool:
    """True if the source itself does not parse or run: it will not the second time, either."""
    return outcome.failure is not None and bool(failed.of_the_source(outcome.failure))
