"""Isolates the operation or module because of which a source does not trace, into a folder."""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import msgspec

from iree_pilot.pipeline.failures import diagnostics
from iree_pilot.pipeline.failures.diagnostics import Failure
from iree_pilot.pipeline.frontends.job import Job, TraceFailed
from iree_pilot.pipeline.processes import process, task
from iree_pilot.pipeline.quantities import DEFAULT_SECONDS
from iree_pilot.pipeline.store.store import Store
from iree_pilot.pipeline.toolchain.context import Context
from iree_pilot.pipeline.toolchain.toolchain import Toolchain
from iree_pilot.repro.options import Listeners, Options
from iree_pilot.repro.reducer.effort import estimate
from iree_pilot.repro.reducer.shrink import Progress
from iree_pilot.repro.reducer.spent import Spent
from iree_pilot.repro.reproducer import publish
from iree_pilot.repro.reproducer.folder import bundle, environment, issue
from iree_pilot.repro.reproducer.folder.bundle import Report
from iree_pilot.repro.reproducer.known import known, places
from iree_pilot.repro.reproducer.known.found import (
    Bisection,
    Found,
    gave_up,
    placed,
    recalled,
    reproduced,
)
from iree_pilot.repro.reproducer.known.places import Identity
from iree_pilot.repro.tracing.journal import ANSWERS, Ask, Result, TraceAnswer, Traces

PACKAGES = ("torch", "iree-turbine", "iree-base-compiler", "transformers")
_PROGRAM = bundle.FILES["pytorch"]
_SPENT = "spent.json"
_ISOLATED = "iree_pilot.repro.tracing.child:isolated"
#: Paths in stack frames: of installed packages, and of anything else.
_INSTALLED = re.compile(r"/[^\s()]*/(?:(?:site|dist)-packages/|lib/(?=python3\.\d+/))")
_ELSEWHERE = re.compile(r"(?<![^\s(])/[^\s()]*/(?=[^/\s()]+)")


def state_of(job: Job, failure: Failure, data: Path) -> Path:
    """Directory of a search's journal for this failure, in the user's data directory.

    What the source is made of may change and is looked at when the search begins; that the
    tracing packages are others is another search.
    """
    path = job.source.path
    named = msgspec.structs.replace(job, inputs=None)
    key = Store.key(named, path or "", failure.signature, *map(version, PACKAGES))
    return data / "bisect" / key[:16]


def bisect(
    job: Job,
    failed: TraceFailed,
    target: str,
    context: Context,
    options: Options,
    listeners: Listeners,
) -> Bisection:
    """Isolates why `frontends.load` failed with `job`, into the folder `options.place`.

    target: as the user named it. The context's directory keeps what was asked; the same call goes
    on where it was. A failure that was isolated before is not isolated again, unless
    `options.fresh`.
    """
    failure, place, state = failed.failure, options.place, context.directory
    wanted = Identity(failure=failure, source=job.source.text)
    if not options.fresh and (before := _known(job, failure, target, context.toolchain)):
        if not options.default:
            before = placed(before, place, wanted)
        return Bisection(status="isolated", failures=(before,))
    if job.source.kind == "onnx":
        return gave_up(failure, "an ONNX file holds no modules to trace one by one")
    settle = functools.partial(places.settled, place, wanted, default=options.default)
    settle()
    state.mkdir(parents=True, exist_ok=True)
    if options.fresh:
        Traces(state).forget()
        (state / _SPENT).unlink(missing_ok=True)
    spent = Spent(state / _SPENT)
    seconds = estimate(failure, failed.seconds, 0, context.limits).limits.seconds or DEFAULT_SECONDS
    each = msgspec.structs.replace(context.limits, seconds=seconds)

    def report_progress(progress: Progress) -> None:
        spent.keep()
        listeners.progress(progress)

    result, calls = _search(Ask(job=job, failure=failure), state, each, report_progress)
    spent.keep()
    if not result.file:
        return gave_up(failure, result.why, calls, spent.seconds)
    assert result.failure is not None
    report = Report(
        failure=_alone(result.failure, failure),
        target=target,
        flags=(),
        release=context.toolchain.version,
        revision=context.toolchain.revision,
        source=job.source.text,
        command=_command(job),
        program="",
        ops=len(result.ops),
        op_names=result.ops,
        oracle_calls=calls,
        seconds=spent.seconds,
        minimal=result.minimal,
        verified=False,
        levels=(bundle.level("pytorch", traces=False),),
        time_limit=seconds,
        memory_limit=context.limits.memory_bytes,
        packages={name: version(name) for name in PACKAGES[:2]},
        environment=environment.describe(target, None, failure.phase),
        tried=(*result.tried, *_where(failure)),
        not_iree=issue.not_iree(result.failure, exported=result.exported),
    )
    contents = publish.Contents(
        {_PROGRAM: state / result.file},
        beside={name: Path(file) for name, file in result.beside.items()},
    )
    doing = f"verifying the reproducer of {result.subject}: running a copy of {_PROGRAM}"
    listeners.progress(Progress(trying=doing, ops=0, asked=calls, unit="trace"))
    report = publish.verified(state / "folder", report, contents, context.toolchain)
    settled = publish.publish(settle, report, contents, failure.signature)
    found = Found(
        failure=failure,
        reproducer=reproduced(settled, report),
        why=result.subject,
        beside="" if settled == place else places.beside(place),
    )
    return Bisection(
        status="isolated", failures=(found,), oracle_calls=calls, seconds=spent.seconds
    )


def _search(
    ask: Ask, state: Path, limits: process.Limits, on_progress: Callable[[Progress], None]
) -> tuple[Result, int]:
    """(the child's result, how many traces it took, with those of a search that was stopped);
    a child that dies is an answer to its last question, and the next one goes on from there."""
    asked, seconds = len(Traces(state).known), limits.seconds or DEFAULT_SECONDS
    limits = msgspec.structs.replace(limits, seconds=None)
    while True:
        watch = _Watch(state, seconds, asked, on_progress)
        before = Traces(state).size
        done = task.call(_ISOLATED, ask, Result, state, limits=limits, on_tick=watch)
        traces = Traces(state)
        calls = len(traces.known)
        if done.reply is not None:
            return done.reply, calls
        failure = diagnostics.trace_death(done.outcome, done.stderr)
        if traces.pending is None or traces.size == before:
            return Result(why=f"the search itself ended: {failure.message}"), calls
        traces.settle(traces.pending, TraceAnswer(failure=failure))


class _Watch:
    """Reports each new question, and ends a child that takes too long for one."""

    def __init__(
        self, state: Path, seconds: float, asked: int, on_progress: Callable[[Progress], None]
    ) -> None:
        self._file, self._seconds, self._asked, self._on_progress = (
            state / ANSWERS,
            seconds,
            asked,
            on_progress,
        )
        self._size, self._since = -1, time.monotonic()

    def __call__(self) -> bool:
        """True if the child has been at one question for too long."""
        size = self._file.stat().st_size if self._file.is_file() else 0
        now = time.monotonic()
        if size != self._size:
            self._size, self._since = size, now
            traces = Traces(self._file.parent)
            if traces.pending is not None:
                asked = len(traces.known) - self._asked
                self._on_progress(Progress(trying=traces.pending, ops=0, asked=asked, unit="trace"))
        return now - self._since > self._seconds


def _alone(shown: Failure, first: Failure) -> Failure:
    """The failure as the reproducer shows it, without the paths of this machine."""
    stack = tuple(_ELSEWHERE.sub("", _INSTALLED.sub("", frame)) for frame in shown.stack)
    return msgspec.structs.replace(shown, also=(), location=_place_of(first), stack=stack)


def _place_of(failure: Failure) -> str | None:
    """`file:line` of the source."""
    return failure.location and _ELSEWHERE.sub("", failure.location)


def _where(failure: Failure) -> tuple[str, ...]:
    place = _place_of(failure)
    return (f"The line of the source is {place}",) if place else ()


def _command(job: Job) -> tuple[str, ...]:
    words = [job.source.text]
    if job.source.kind in ("file", "module", "library"):  # of the zoo's models these are all fields
        for key, value in job.source.fields.items():
            words += ["--set", f"{key}={value}"]
    words += ["--seed", str(job.seed)] if job.seed else []
    words += ["--inline-parameters"] if job.inline else []
    return ("iree-pilot", "trace", *words, "-o", "DIR")


def _known(job: Job, failure: Failure, target: str, toolchain: Toolchain) -> Found | None:
    """Result of an earlier search for a failure, if there is one.

    A tracer's error about an operation is the same failure in every source; an error about the
    user's own code is a different failure in each source.
    """
    entry = known.recall(failure.signature, toolchain.revision, target)
    if entry is None:
        return None
    before, report = entry
    alike = (before.source, report.failure.location) == (job.source.text, _place_of(failure))
    if not alike and failure.location is not None:
        return None
    return recalled(before, report, failure)
