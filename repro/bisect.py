"""Bisection of a failing case into reproducer folders: isolate, write at each level, verify."""

from __future__ import annotations

import functools
import time
from contextlib import closing
from pathlib import Path

import msgspec

from iree_pilot.pipeline.errors import UsageError
from iree_pilot.pipeline.failures.diagnostics import Failure
from iree_pilot.pipeline.failures.signatures import is_specific
from iree_pilot.pipeline.numerics import expected
from iree_pilot.pipeline.processes import fork_servers, process
from iree_pilot.pipeline.processes.fork_servers import TORCH
from iree_pilot.pipeline.toolchain.context import Context
from iree_pilot.pipeline.toolchain.toolchain import Toolchain
from iree_pilot.repro import isolate
from iree_pilot.repro.ir.graph import Cut
from iree_pilot.repro.isolate import GaveUp, Isolated
from iree_pilot.repro.options import Listeners, Options
from iree_pilot.repro.oracles.oracle import CompileOracle, NotAProgram, RememberingOracle
from iree_pilot.repro.oracles.oracle_run import RunOracle
from iree_pilot.repro.reducer import blockers
from iree_pilot.repro.reducer.effort import Effort, estimate
from iree_pilot.repro.reducer.shrink import Progress
from iree_pilot.repro.reproducer import handing, levels
from iree_pilot.repro.reproducer.handing import Subject
from iree_pilot.repro.reproducer.known import known, places
from iree_pilot.repro.reproducer.known.found import (
    Bisection,
    Found,
    Reproducer,
    placed,
    recalled,
    reproduced,
)
from iree_pilot.repro.reproducer.known.places import Identity
from iree_pilot.repro.since_release.trials import BYTECODE, as_text
from iree_pilot.repro.wrong_results import isolate_numbers as numbers
from iree_pilot.repro.wrong_results.mismatch_oracle import MismatchOracle

__all__ = ["Bisection", "Found", "Reproducer", "Subject", "bisect", "reproduced"]


def bisect(
    subject: Subject, failure: Failure, context: Context, options: Options, listeners: Listeners
) -> Bisection:
    """Isolates a failure into its folder (`Options.folder`).

    options.default: nobody named that folder, see `places.settled`; one that the user named gets a
    copy of what was isolated before. options.everything: then its cause is masked in the whole
    program, and so on with what fails next, until the program does not fail: each signature into a
    folder of its own. The context's directory keeps the oracle's answers, so the same call resumes.
    Its limits are those of the run that failed. A failure that was isolated before is not
    isolated again, unless `fresh` or `everything`.
    """
    if (
        not options.everything
        and not options.fresh
        and (before := _known(subject, failure, context.toolchain))
    ):
        if not options.default:
            before = placed(before, options.folder(failure), _identity(subject, failure))
        return Bisection(status="isolated", failures=(before,))
    search = _Isolations(context, options, listeners)
    with fork_servers.serving():
        if levels.has_torch(subject.mlir):
            fork_servers.start(TORCH)  # while it is searched for: what is found is written for it
        if options.everything:
            return search.done(search.all(subject, failure))
        search.one(subject, failure, context.directory)
        return search.done(None)


class _Isolations:
    """Isolations one after the other, and what came of them."""

    def __init__(self, context: Context, options: Options, listeners: Listeners) -> None:
        self._context = context
        self._options = options
        self._listeners = listeners
        self._started = time.monotonic()
        self._calls = 0
        self._earlier_seconds = 0.0
        self._found: dict[str, Found] = {}
        self._seen: dict[str, Failure] = {}

    def one(self, subject: Subject, failure: Failure, state: Path) -> Isolated | None:
        """Isolates one failure; its folder is written unless its signature has one."""
        if not is_specific(failure.signature) or self._is_new(failure.signature):
            self._folder(subject, failure)
        self._listeners.started(failure)
        context = self._context.at(_directory(state, failure, self._context.limits))
        effort = estimate(failure, subject.took_seconds, subject.peak_bytes, context.limits)
        with closing(_oracle(subject, failure, context, effort)) as oracle:
            job = isolate.IsolationJob(
                mlir=subject.mlir,
                failure=failure,
                context=context.bounded(effort.limits),
                flags=subject.flags,
                width=effort.width,
                focus=subject.running.line(subject.mlir) if subject.running else 0,
            )
            outcome = self._outcome(job, oracle)
            if isinstance(outcome, GaveUp):
                if self._is_new(failure.signature):
                    whole = self._whole(subject, oracle, outcome, context)
                    self._found[failure.signature] = whole
                return None
            key = _key(failure, outcome)
            if self._is_new(key):
                try:
                    found = self._handed(subject, oracle, outcome, context)
                except NotAProgram as fault:
                    why = f"the isolated part ({', '.join(outcome.ops)}) is intermittent: {fault}"
                    self._found.setdefault(failure.signature, Found(failure=failure, why=why))
                    return None
                self._found[key] = found
        return outcome

    def _outcome(self, job: isolate.IsolationJob, oracle: RememberingOracle) -> Isolated | GaveUp:
        """Isolated program, or the reason that nothing was isolated."""
        outcome: Isolated | GaveUp
        if isinstance(oracle, MismatchOracle):
            outcome = numbers.run(job, oracle, self._listeners.progress)
        else:
            outcome = isolate.isolate(job, oracle, self._listeners.progress)
        spent = oracle.spent
        spent.keep()
        self._calls += spent.calls
        self._earlier_seconds += spent.earlier_seconds
        self._seen |= oracle.others
        return msgspec.structs.replace(outcome, calls=spent.calls, seconds=spent.seconds)

    def _handed(
        self, subject: Subject, oracle: RememberingOracle, isolated: Isolated, context: Context
    ) -> Found:
        """The folder of what was isolated, as `handing.write` makes it."""
        failure = oracle.wanted
        settle = functools.partial(self._folder, subject, failure)
        folder, report = handing.write(subject, oracle, isolated, context, settle, self._report)
        return Found(
            failure=_also(report.failure, failure),
            reproducer=reproduced(folder, report),
            rate=report.rate if report.rate < 1 else None,
            beside=self._beside(folder, failure),
        )

    def _whole(
        self, subject: Subject, oracle: RememberingOracle, outcome: GaveUp, context: Context
    ) -> Found:
        """Result if nothing was isolated: the whole program, and a record of what was tried."""
        failure = oracle.wanted
        found = Found(failure=failure, why=outcome.why, rate=outcome.rate)
        if isinstance(oracle, MismatchOracle):
            if oracle.hidden:
                return found
            if subject.running and subject.running.is_users_word:
                why = f"{outcome.why}; check what {expected.OPTION} says"
                return msgspec.structs.replace(found, why=why)
        mlir = subject.mlir
        if mlir.read_bytes().startswith(BYTECODE):
            mlir = context.directory / "whole.mlir"
            mlir.write_bytes(as_text(subject.mlir, context.toolchain, context.directory))
        isolated = Isolated(
            mlir=str(mlir),
            ops=outcome.ops,
            cut=Cut(keep=()),
            focus=0,
            minimal=False,
            located=False,
            calls=outcome.calls,
            seconds=outcome.seconds,
            whole=True,
            rate=outcome.rate or 1.0,
            remarks=(f"Nothing smaller reproduces it: {outcome.why}.", *oracle.summary),
        )
        try:
            made = self._handed(subject, oracle, isolated, context)
        except (NotAProgram, UsageError) as fault:
            why = f"{outcome.why}; the whole program stays at {subject.mlir}: {fault}"
            return msgspec.structs.replace(found, why=why)
        return msgspec.structs.replace(made, why=outcome.why, rate=outcome.rate)

    def _folder(self, subject: Subject, failure: Failure) -> Path:
        """Path of a failure's folder. Raises UsageError if the one that the user named is taken."""
        wanted = _identity(subject, failure)
        return places.settled(self._usual(failure), wanted, default=self._options.default)

    def _usual(self, failure: Failure) -> Path:
        """The usual name of the folder: beside that of another failure with its signature."""
        place = self._options.folder(failure)
        made = [one for one in self._found.values() if one.reproducer is not None]
        alike = sum(one.failure.signature == failure.signature for one in made)
        return place.with_name(f"{place.name}-{alike + 1}") if alike else place

    def _beside(self, folder: Path, failure: Failure) -> str:
        """Reason that the folder does not have the usual name; empty if it has."""
        usual = self._usual(failure)
        return "" if folder == usual else places.beside(usual)

    def _is_new(self, key: str) -> bool:
        """True if there is no folder yet for a failure with this key."""
        before = self._found.get(key)
        return before is None or before.reproducer is None or before.reproducer.whole

    def _report(self, doing: str) -> None:
        self._listeners.progress(Progress(trying=doing, ops=0, asked=self._calls))

    def all(self, subject: Subject, first: Failure) -> bool:
        """Isolates and masks until the program does not fail (True) or nothing can be isolated."""
        failure: Failure | None = first
        stuck: set[str] = set()
        masks, state = 0, self._context.directory
        while failure is not None:
            reported = {f.signature: f for f in (failure, *failure.also)}
            self._seen |= reported
            wanted = next((f for s, f in reported.items() if s not in stuck), None)
            if wanted is None:
                return False
            others = tuple(
                msgspec.structs.replace(f, also=())
                for f in reported.values()
                if f.signature != wanted.signature
            )
            wanted = msgspec.structs.replace(wanted, also=others)
            directory = state / "masked" / str(masks) if masks else state
            isolated = self.one(subject, wanted, directory)
            if isolated is None:
                stuck.add(wanted.signature)
                continue
            masks += 1
            masked = self._context.at(state / "masked" / str(masks))
            subject, failure = self._mask(subject, wanted, isolated, masked)
        return True

    def _mask(
        self, subject: Subject, failure: Failure, isolated: Isolated, context: Context
    ) -> tuple[Subject, Failure | None]:
        """(the program without what was isolated, how that fails)."""
        self._report("compiling the program without what was isolated")
        masked = blockers.masked(subject.mlir, isolated, context)
        key = _key(failure, isolated)
        found = self._found[key]
        self._found[key] = msgspec.structs.replace(
            found, blocks=found.blocks + masked.operations, places=found.places + masked.places
        )
        program = Path(masked.program)
        self._calls += 1
        result = blockers.compiled(program, context, subject.flags)
        left = msgspec.structs.replace(
            subject,
            mlir=program,
            command=result.command,
            took_seconds=max(result.seconds, subject.took_seconds if subject.running else 0.0),
            peak_bytes=max(result.peak_bytes, subject.peak_bytes if subject.running else 0),
        )
        if result.failure is not None or subject.running is None:
            return msgspec.structs.replace(left, running=None), result.failure
        effort = estimate(failure, left.took_seconds, left.peak_bytes, context.limits)
        self._calls += 1
        with closing(_oracle(left, failure, context, effort)) as oracle:
            return left, oracle.again(program)

    def done(self, unblocked: bool | None) -> Bisection:
        found = sorted(self._found.values(), key=lambda one: -one.blocks)
        named = {one.failure.signature for one in found}
        for one in found:
            made = one.reproducer
            named |= {companion.signature for companion in made.companions} if made else set()
        return Bisection(
            status="isolated" if any(map(_isolated, found)) else "gave-up",
            failures=tuple(found),
            oracle_calls=self._calls,
            seconds=self._earlier_seconds + time.monotonic() - self._started,
            why="; ".join(one.why for one in found if one.why),
            seen=tuple(f for s, f in self._seen.items() if s not in named),
            unblocked=unblocked,
        )


def _isolated(found: Found) -> bool:
    return found.reproducer is not None and not found.reproducer.whole


def _key(failure: Failure, isolated: Isolated) -> str:
    """Identity of a failure: its signature, and the operations if the signature is not specific."""
    more = () if is_specific(failure.signature) else isolated.ops
    return " ".join((failure.signature, *more))


def _known(subject: Subject, failure: Failure, toolchain: Toolchain) -> Found | None:
    """Result of an earlier bisection of a failure, if there is one."""
    how = (toolchain.revision, subject.target, subject.flags, subject.discriminator(failure))
    entry = known.recall(failure.signature, *how)
    if entry is None:
        return None
    before, report = entry
    return recalled(before, report, _also(report.failure, failure))


def _identity(subject: Subject, failure: Failure) -> Identity:
    return Identity(
        failure=failure,
        source=subject.source,
        target=subject.target,
        flags=subject.flags,
        program=str(subject.mlir),
    )


def _also(isolated: Failure, failure: Failure) -> Failure:
    """A failure with the pass that was found where it was isolated."""
    return msgspec.structs.replace(failure, pass_=failure.pass_ or isolated.pass_)


def _directory(state: Path, failure: Failure, limits: process.Limits) -> Path:
    """Directory of the state of one failure; a timeout has one for each time limit."""
    name = failure.signature.replace("/", "-")
    if failure.kind == "timeout" and limits.seconds is not None:
        name += f"-{limits.seconds:g}s"
    directory = state / name
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def _oracle(
    subject: Subject, failure: Failure, context: Context, effort: Effort
) -> RememberingOracle:
    running, flags, width = subject.running, subject.flags, effort.width
    context = context.bounded(effort.limits)
    if running is None:
        return CompileOracle(context, flags, failure, width=width)
    if failure.kind == "mismatch":
        return MismatchOracle(context, flags, failure, running, width=width)
    return RunOracle(context, flags, failure, running, width=width)
