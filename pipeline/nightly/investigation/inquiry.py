"""Investigation of a night's failure: since which release, and which workaround.

A search that was killed goes on where it was the next time: what was tried is remembered.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from iree_pilot.pipeline.case_result import CaseResult
from iree_pilot.pipeline.errors import PilotError, UsageError
from iree_pilot.pipeline.frontends.load import TraceFailed, load
from iree_pilot.pipeline.nightly.cases import keys
from iree_pilot.pipeline.nightly.investigation import alone
from iree_pilot.pipeline.nightly.records import Case, Finding, Question
from iree_pilot.pipeline.nightly.workers import worker
from iree_pilot.pipeline.nightly.workers.orders import Order
from iree_pilot.pipeline.toolchain import releases
from iree_pilot.pipeline.toolchain.context import Context
from iree_pilot.repro import deep
from iree_pilot.repro.since_release import question as release_question
from iree_pilot.repro.since_release import trials as release_trials
from iree_pilot.repro.workarounds import find_workarounds as workarounds

#: The share of the time that is searched: what was found has to be seen again after that.
_SEARCHING = 0.7
#: The releases that a search has tried, one a line.
_TRIED = "tried.txt"


class Inquiry(msgspec.Struct, frozen=True, kw_only=True):
    """A question about a case and its outcome.

    reproducer: the folder that shows the failure; empty where there is none, then the case itself
    is asked about. place: a folder for what is written. directory: what a source's file is
    relative to. seconds: the time there is; limits: the settings of [news] that end it then.
    """

    question: Question
    case: Case
    result: CaseResult
    reproducer: str
    place: str
    directory: str
    seconds: float
    limits: tuple[str, ...] = ("each",)


def ask(inquiry: Inquiry, scratch: Path) -> Finding:
    """The answer, within the inquiry's seconds. What keeps it from coming is in its words."""
    try:
        return alone.run(
            f"{__name__}:answered",
            inquiry,
            Finding,
            directory=Path(inquiry.directory),
            scratch=scratch,
            seconds=inquiry.seconds,
        )
    except alone.Unfinished as fault:
        said = f"{fault}{_so_far(inquiry, scratch)}" if fault.late else str(fault)
        return Finding(question=inquiry.question, said=said, done=not fault.late)


def _so_far(inquiry: Inquiry, scratch: Path) -> str:
    """Progress of a search whose time was over."""
    tried = scratch / _TRIED
    if tried.is_file():
        names = ", ".join(tried.read_text(encoding="utf-8").split())
        return f", tried until then: {names}; the next night resumes there"
    if inquiry.question == "releases":
        more = " and ".join(f"`{name}`" for name in inquiry.limits)
        return f", and none was installed and tried until then: give [news] more time for {more}"
    return "; the next night resumes there"


def answered(inquiry: Inquiry, scratch: Path) -> Finding:
    """The answer, found out in this process."""
    try:
        return _WAYS[inquiry.question](inquiry, scratch)
    except TraceFailed as fault:
        return Finding(question=inquiry.question, said=f"it does not trace: {fault}")
    except PilotError as fault:
        return Finding(question=inquiry.question, said=fault.message)


def _releases(inquiry: Inquiry, scratch: Path) -> Finding:
    """Since which release: of the reproducer, as far as it travels; else of the case."""

    def note(release: str, seen: str) -> None:
        with (scratch / _TRIED).open("a") as file:
            file.write(f"{release}\n")

    case, notes = inquiry.case, list[str]()
    order = Order(what="case", case=case, directory=inquiry.directory)
    reader, limits = worker.toolchain_of(order), worker.limits(order)
    question = None
    if inquiry.reproducer:
        try:
            question = release_question.of_reproducer(Path(inquiry.reproducer), limits)
        except UsageError as fault:
            notes.append(f"{fault.message}: the whole program is asked about")
    if question is None:
        question = release_question.Question(
            job=keys.job(case),
            target=keys.planned(case, reader).target,
            flags=case.flags,
            failure=inquiry.result.failure,
            time_limit=limits.seconds,
            memory_limit=limits.memory_bytes,
        )
    names = releases.here_or_available(notes.append)
    trials = release_question.trials(question, reader, releases.find, on_progress=note)
    found = release_trials.bisect(names, trials, wanted=question.failure)
    if found.boundaries:
        place = Path(inquiry.place)
        scripts = release_question.write(place, question, found.boundaries, default=True)
        found = msgspec.structs.replace(found, boundaries=scripts)
    return Finding(
        question="releases",
        said=deep.summary(found),
        note="; ".join(notes),
        details=msgspec.to_builtins(found),
    )


def _workaround(inquiry: Inquiry, scratch: Path) -> Finding:
    """First workaround that avoids the case's failure, in the time that is left."""
    case = inquiry.case
    order = Order(what="case", case=case, directory=inquiry.directory)
    toolchain, limits = worker.toolchain_of(order), worker.limits(order)
    job = keys.job(case)
    settings = case.fields | ({"dtype": case.dtype} if case.dtype else {})
    seed = ("--seed", str(case.seed)) if case.seed else ()
    chosen = (word for key, value in settings.items() for word in ("--set", f"{key}={value}"))
    traced = (*(f"--no-decompose={op}" for op in case.leave), *["--seeded"] * case.seeded)
    options = workarounds.SearchOptions(
        job=job,
        words=(case.source, *chosen, *seed, *traced),
        settings=settings,
        flags=case.flags,
        limits=limits,
        enough=1,
        seconds=_SEARCHING * inquiry.seconds,
        place=Path(inquiry.place),
    )
    found = workarounds.find(
        load(job, Context(toolchain=toolchain, limits=limits)),
        inquiry.result,
        keys.planned(case, toolchain),
        toolchain,
        options,
    )
    return Finding(
        question="workaround",
        said=deep.way_around(found),
        done=found.complete,
        details=msgspec.to_builtins(
            {"status": found.status, "answers": found.answers, "target": case.target}
        ),
    )


_WAYS: dict[Question, Callable[[Inquiry, Path], Finding]] = {
    "releases": _releases,
    "workaround": _workaround,
}
