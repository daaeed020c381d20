"""Orders for workers and what is called with their outcomes: the values between both sides."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Literal, Protocol

import msgspec

from iree_pilot.pipeline.nightly.history.history import Usual
from iree_pilot.pipeline.nightly.metrics import metrics
from iree_pilot.pipeline.nightly.records import Case, CaseOutcome

What = Literal["trace", "case"]
#: Prefix of the name of a trace, to tell it from those of cases.
TRACE = "trace "

#: Estimates for a job that has never run; a trace imports PyTorch and transformers.
TRACE_SECONDS, TRACE_BYTES = 20.0, 2 * 2**30
CASE_SECONDS, CASE_BYTES = 10.0, 2**30


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """One job for a worker: to trace a case's program, or to do the case.

    directory: what the sources' files are relative to. release: what the case's release stands for
    tonight, if that was found out already. memory_limit: bytes for each step, unless the case
    has its own. fresh: compile and run whatever was found before. known: keys under which an
    earlier outcome is at hand: a case with one of them is not done again. parcel: a file that a
    trace packs its program into and a case unpacks it from (see `parcels`); empty where both
    use one store.
    """

    what: What
    case: Case
    directory: str
    release: str = ""
    memory_limit: int | None = None
    fresh: bool = False
    known: tuple[str, ...] = ()
    parcel: str = ""

    @property
    def name(self) -> str:
        """The name shown to people."""
        return f"{TRACE}{self.case.program}" if self.what == "trace" else self.case.name


class NightJob(msgspec.Struct, frozen=True, kw_only=True):
    """An order and what it needs. after: the program whose trace it waits for.

    guessed: the need is no more than a guess, for want of a history.
    """

    order: Order
    need: Usual
    after: str = ""
    guessed: bool = False


class JobWatcher(Protocol):
    """Callbacks for each job, always in the thread that called `Scheduler.run`.

    Each case is `done` exactly once. What a watcher raises ends all jobs and passes through.
    """

    def began(self, order: Order, worker: str) -> None: ...
    def traced(self, order: Order, outcome: CaseOutcome) -> None: ...
    def done(self, outcome: CaseOutcome) -> None: ...
    def note(self, text: str) -> None: ...


class Scheduler(Protocol):
    """Runs jobs, each case's trace first, and returns when all are done.

    here: True on this machine, so that its store and devices are those that a case is done with.
    """

    @property
    def here(self) -> bool: ...

    def run(self, jobs: Sequence[NightJob], watcher: JobWatcher) -> None:
        """Raises what the watcher raises, and EnvironmentFault where no job can be done at all."""
        ...


def jobs(
    orders: Sequence[Order], needs: Mapping[str, Usual], traced: Collection[str] = ()
) -> tuple[NightJob, ...]:
    """The jobs for cases' orders: one trace for each program, then its cases.

    needs: of cases, by name. traced: programs that need no trace: they are in the store.
    """
    first: dict[str, Order] = {}
    for order in orders:
        if order.case.program not in traced:
            first.setdefault(order.case.program, order)
    traces = [
        NightJob(
            order=msgspec.structs.replace(order, what="trace"),
            need=Usual(seconds=TRACE_SECONDS, peak_bytes=TRACE_BYTES),
        )
        for order in first.values()
    ]
    cases = [
        NightJob(
            order=order,
            need=needs.get(order.case.name, Usual(seconds=CASE_SECONDS, peak_bytes=CASE_BYTES)),
            after=order.case.program if order.case.program in first else "",
            guessed=order.case.name not in needs,
        )
        for order in orders
    ]
    return (*traces, *cases)


def untraced(order: Order, trace: CaseOutcome) -> CaseOutcome:
    """The outcome of a case whose program's trace came to `trace`, which is no success."""
    result = trace.result
    if result is not None:
        release = order.release or order.case.release
        result = msgspec.structs.replace(result, target=order.case.target, release=release)
    return msgspec.structs.replace(trace, case=order.case.name, result=result, metrics={})


def with_trace(outcome: CaseOutcome, trace: CaseOutcome | None) -> CaseOutcome:
    """The outcome of the case that a program was traced for, with what that took.

    Of the cases that share a trace one has it, so that a slower one is reported once.
    """
    if outcome.result is None or trace is None or trace.result is None:
        return outcome
    if trace.case != outcome.case:
        return outcome
    steps = (*trace.result.steps, *(s for s in outcome.result.steps if s.name != "trace"))
    result = msgspec.structs.replace(outcome.result, steps=steps)
    return msgspec.structs.replace(outcome, result=result, metrics=metrics(result))


class Preview(msgspec.Struct, frozen=True, kw_only=True):
    """A case as a dry run tells of it. seconds: expected; None where it never ran."""

    case: str
    cached: bool
    seconds: float | None


def preview(
    cases: Sequence[Case], reused: Collection[str], needs: Mapping[str, Usual]
) -> tuple[Preview, ...]:
    """Jobs that would run. reused: names of cases with a stored outcome."""
    return tuple(
        Preview(
            case=case.name,
            cached=case.name in reused,
            seconds=0.0
            if case.name in reused
            else needs[case.name].seconds
            if case.name in needs
            else None,
        )
        for case in cases
    )


def shared_out(seconds: Sequence[float], width: int) -> float:
    """Lower bound of the time of jobs, `width` at a time: their sum shared out, or the longest."""
    return max([sum(seconds) / max(width, 1), *seconds], default=0.0)
