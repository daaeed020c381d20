"""Investigation of new failures, each once (`identity`), while there is time.

First all are isolated, within the times of [bisect]; then all are asked about, within those of
[news]: since which release, then what avoids it. What there was no time for is done on the next
night that shows the failure; what was answered is kept with it, and not asked again.
"""

from __future__ import annotations

import contextlib
import re
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from iree_pilot.pipeline.errors import PilotError
from iree_pilot.pipeline.failures.diagnostics import Failure
from iree_pilot.pipeline.nightly import identity
from iree_pilot.pipeline.nightly.cases.config import Nightly
from iree_pilot.pipeline.nightly.history.history import History
from iree_pilot.pipeline.nightly.investigation import alone, inquiry, isolation
from iree_pilot.pipeline.nightly.investigation.inquiry import Inquiry
from iree_pilot.pipeline.nightly.records import Case, CaseOutcome, Finding, Judgement, Question
from iree_pilot.repro.bisect import Bisection

#: Verdicts of failures that nobody has looked into.
NEW = ("new failure", "changed failure")
_LATER = "there was no time left; the next night that shows it resumes"

Isolate = Callable[[isolation.Orders, Path, float], Bisection]
Ask = Callable[[Inquiry, Path], Finding]


class NewsWatcher(Protocol):
    """Callbacks for each question and answer."""

    def isolating(self, case: Case, signature: str) -> None: ...
    def isolated(self, case: Case, found: Bisection) -> None: ...
    def asking(self, case: Case, signature: str, question: Question) -> None: ...
    def answered(self, case: Case, finding: Finding) -> None: ...


class _Subject(msgspec.Struct, frozen=True):
    """A failure that is looked into, on one of the cases that show it. failure: `identity.of`."""

    failure: str
    signature: str
    case: Case
    outcome: CaseOutcome
    new: bool


class News:
    """Investigates the news of a night. artifacts: where folders go."""

    def __init__(
        self,
        nightly: Nightly,
        history: History,
        watcher: NewsWatcher,
        artifacts: Path,
        *,
        isolate: Isolate = isolation.isolate,
        ask: Ask = inquiry.ask,
    ) -> None:
        self._directory, self._config = nightly.directory, nightly.config
        self._history, self._watcher, self._artifacts = history, watcher, artifacts
        self._isolate, self._ask = isolate, ask
        self._places: dict[str, str] = {}
        self._findings: dict[str, dict[Question, Finding]] = {}

    def look_into(
        self,
        run: int,
        cases: Mapping[str, Case],
        outcomes: Mapping[str, CaseOutcome],
        judgements: Sequence[Judgement],
    ) -> list[Judgement]:
        """The judgements with reproducers and findings: of tonight, or kept from before."""
        signatures = {j.signature for j in judgements if j.signature}
        kept = self._history.findings(signatures)
        failures = {
            j.case: identity.of(j.signature, outcomes[j.case].model, cases[j.case].source)
            for j in judgements
        }
        self._findings = {
            failure: {f.question: self._promised(f) for f in kept.get(failure, ())}
            for failure in failures.values()
        }
        subjects = _subjects(cases, outcomes, judgements)
        self._isolate_all(subjects)
        for judgement in judgements:
            if place := self._places.get(failures[judgement.case]):
                self._history.artifact(run, judgement.case, "reproducer", place)
        before = self._history.reproducers(signatures)
        places = {f: path for f, path in before.items() if Path(path).is_dir()} | self._places
        for judgement in judgements:
            failure, shown = failures[judgement.case], outcomes[judgement.case].failure
            if shown is not None and failure in places:
                places[failure] = self._brought(failure, Path(places[failure]), shown)
        self._ask_all(subjects, places)
        return [
            msgspec.structs.replace(
                judgement,
                reproducer=places.get(failures[judgement.case], ""),
                findings=tuple(self._findings[failures[judgement.case]].values()),
            )
            for judgement in judgements
        ]

    def _brought(self, failure: str, folder: Path, shown: Failure) -> str:
        """A folder of an earlier night among the artifacts of this one, where it can be copied."""
        with contextlib.suppress(PilotError, OSError):
            return str(isolation.brought_to(self._place(failure), folder, shown))
        return str(folder)

    def _isolate_all(self, subjects: Sequence[_Subject]) -> None:
        left, each = self._config.bisect.seconds, self._config.bisect.seconds_each
        for subject in subjects if self._config.news.isolate else ():
            if not subject.new and not self._open(subject, "isolate"):
                continue
            if left <= 0:
                self._found(subject, Finding(question="isolate", said=_LATER, done=False))
                continue
            started = time.monotonic()
            self._isolate_one(subject, min(left, each))
            left -= time.monotonic() - started

    def _isolate_one(self, subject: _Subject, seconds: float) -> None:
        """Notes the folder that verifiably shows the failure of a case, or why there is none."""
        assert subject.outcome.result is not None
        self._watcher.isolating(subject.case, subject.signature)
        orders = isolation.Orders(
            case=subject.case,
            result=subject.outcome.result,
            place=str(self._place(subject.failure)),
            directory=str(self._directory),
        )
        done = True
        with tempfile.TemporaryDirectory(prefix="iree-pilot-") as scratch:
            try:
                found = self._isolate(orders, Path(scratch), seconds)
            except alone.Unfinished as fault:
                done = not fault.late
                on = "; the next night resumes there" if fault.late else ""
                found = Bisection(status="gave-up", why=f"{fault}{on}")
        self._watcher.isolated(subject.case, found)
        made = [one.reproducer for one in found.failures]
        shown = next((one for one in made if one and one.verified), None)
        if shown:
            self._places[subject.failure] = shown.path
            self._findings[subject.failure].pop("isolate", None)
            if shown.attribution:
                self._found(subject, Finding(question="attribution", said=shown.attribution))
        else:
            why = found.why or "no smaller program was confirmed to show it"
            self._found(subject, Finding(question="isolate", said=why, done=done))

    def _ask_all(self, subjects: Sequence[_Subject], places: Mapping[str, str]) -> None:
        wanted = self._config.news
        left, each = wanted.seconds, wanted.seconds_each
        questions: dict[Question, bool] = {
            "releases": wanted.releases,
            "workaround": wanted.workaround,
        }
        for question in (name for name, on in questions.items() if on):
            for subject in subjects:
                before = self._findings[subject.failure].get(question)
                if before.done if before else not subject.new:
                    continue
                if _untraced(subject.outcome):
                    continue
                if left <= 0:
                    self._found(subject, Finding(question=question, said=_LATER, done=False))
                    continue
                started = time.monotonic()
                self._ask_one(subject, question, places, {"budget": left, "each": each})
                left -= time.monotonic() - started

    def _ask_one(
        self,
        subject: _Subject,
        question: Question,
        places: Mapping[str, str],
        limits: Mapping[str, float],
    ) -> None:
        """limits: in seconds, by the setting of [news]."""
        assert subject.outcome.result is not None
        seconds = min(limits.values())
        self._watcher.asking(subject.case, subject.signature, question)
        place = self._place(subject.failure)
        asked = Inquiry(
            question=question,
            case=subject.case,
            result=subject.outcome.result,
            reproducer=places.get(subject.failure, ""),
            place=str(place.with_name(f"{place.name}-{question}")),
            directory=str(self._directory),
            seconds=seconds,
            limits=tuple(name for name, limit in limits.items() if limit == seconds),
        )
        with tempfile.TemporaryDirectory(prefix="iree-pilot-") as scratch:
            finding = self._ask(asked, Path(scratch))
        self._found(subject, finding)
        self._watcher.answered(subject.case, finding)

    def _promised(self, finding: Finding) -> Finding:
        """A finding of an earlier night, without the promise to go on where that is off now."""
        news = self._config.news
        on = {"isolate": news.isolate, "releases": news.releases, "workaround": news.workaround}
        if finding.done or on[finding.question]:
            return finding
        said = f"not looked for yet: [news] {finding.question} = false"
        return msgspec.structs.replace(finding, said=said, off=True)

    def _place(self, failure: str) -> Path:
        return self._artifacts / re.sub("[/: ]", "-", failure)

    def _open(self, subject: _Subject, question: Question) -> bool:
        """True if an earlier night had no time for it."""
        before = self._findings[subject.failure].get(question)
        return before is not None and not before.done

    def _found(self, subject: _Subject, finding: Finding) -> None:
        self._findings[subject.failure][finding.question] = finding


def _subjects(
    cases: Mapping[str, Case], outcomes: Mapping[str, CaseOutcome], judgements: Sequence[Judgement]
) -> list[_Subject]:
    """One for each failure; a case on which it is new before one that had it already."""
    found: dict[str, _Subject] = {}
    for judgement in sorted(judgements, key=lambda j: j.verdict not in NEW):
        case, outcome = cases[judgement.case], outcomes[judgement.case]
        # One that was accepted is no news, but what was left open of it is gone on with.
        shown = judgement.verdict in (*NEW, "same failure", "fail") and judgement.signature
        if shown and case.bisect and outcome.result is not None:
            failure = identity.of(shown, outcome.model, case.source)
            subject = _Subject(failure, shown, case, outcome, judgement.verdict in NEW)
            found.setdefault(failure, subject)
    return list(found.values())


def _untraced(outcome: CaseOutcome) -> bool:
    """True if there is no program, which is no failure of the compiler."""
    return outcome.failure is not None and outcome.failure.phase == "trace"
