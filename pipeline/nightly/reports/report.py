"""The report of one night: each case with its outcome and the judgement of it."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, get_args

import msgspec

from iree_pilot.pipeline.nightly import identity
from iree_pilot.pipeline.nightly.history.history import History, NightRun
from iree_pilot.pipeline.nightly.records import (
    Case,
    CaseOutcome,
    Finding,
    Judgement,
    Question,
    Verdict,
)
from iree_pilot.pipeline.plural import count
from iree_pilot.pipeline.program.source_lines import SourceLines

_ORDER: tuple[Verdict, ...] = (
    "new failure",
    "changed failure",
    "flaky",
    "comparison lost",
    "slower",
    "bigger",
    "fixed",
    "same failure",
    "fail",
    "not run",
    "compiled",
    "ran",
    "pass",
)
assert set(_ORDER) == set(get_args(Verdict))


_ASKED: dict[Question, str] = {
    "isolate": "not isolated",
    "attribution": "attribution",
    "releases": "releases",
    "workaround": "workaround",
}


def _named(finding: Finding) -> str:
    """The first workaround of a finding and what it costs; empty for other findings."""
    answers = finding.details.get("answers") if finding.question == "workaround" else None
    if not answers:
        return ""
    return f"{' + '.join(answers[0]['names'])} ({answers[0]['price']})"


class CaseRow(msgspec.Struct, frozen=True, kw_only=True):
    """One case of a night; outcome and judgement are None while they are to come."""

    case: Case
    outcome: CaseOutcome | None = None
    judgement: Judgement | None = None

    @property
    def verdict(self) -> Verdict:
        return self.judgement.verdict if self.judgement else "not run"

    @property
    def news(self) -> bool:
        return self.judgement is not None and self.judgement.news

    @property
    def failure(self) -> str:
        """The failure that is reported, by `identity.of`; empty where there is none."""
        if self.judgement is None or not self.judgement.signature:
            return ""
        state = self.outcome.model if self.outcome else ""
        return identity.of(self.judgement.signature, state, self.case.source)

    @property
    def why(self) -> str:
        """The reason beside the verdict, in words."""
        if self.judgement and self.judgement.why:
            return self.judgement.why
        return self.outcome.why if self.outcome else "to come"

    @property
    def places(self) -> dict[str, str]:
        """Locations of its failure in the program and in Python, with the lines of that night."""
        failure = self.outcome.failure if self.outcome else None
        source = (self.outcome and self.outcome.source) or SourceLines()
        found = {
            "location": (failure.location if failure else None, source.text),
            "python": (source.python, source.python_text),
        }
        return {
            name: f"{place}: {line}" if line else place
            for name, (place, line) in found.items()
            if place
        }

    @property
    def findings(self) -> tuple[tuple[str, str], ...]:
        """(question, finding) of its failure, in words; empty if it is fixed."""
        if self.judgement is None or self.verdict == "fixed":
            return ()
        found = self.judgement.findings
        return tuple((_ASKED[one.question], f"{self._tried(one)}{one.said}") for one in found)

    @property
    def brief_findings(self) -> tuple[tuple[str, str], ...]:
        """The same, short: workarounds by their names alone, without the command."""
        if self.judgement is None or self.verdict == "fixed":
            return ()
        return tuple(
            (_ASKED[one.question], f"{self._tried(one)}{_named(one) or one.said}")
            for one in self.judgement.findings
        )

    def _tried(self, finding: Finding) -> str:
        """Clause for a finding of another case with this failure, which had another target."""
        target = finding.details.get("target", self.case.target)
        return "" if target == self.case.target else f"tried on {target} only: "


class NightReport(msgspec.Struct, frozen=True, kw_only=True):
    """A night, its cases in the order of the plan. notes: for the people who keep the nightly."""

    run: NightRun
    rows: tuple[CaseRow, ...]
    notes: tuple[str, ...] = ()

    @property
    def news(self) -> tuple[CaseRow, ...]:
        """The news, the gravest first."""
        return tuple(ordered(row for row in self.rows if row.news))

    @property
    def accept(self) -> str:
        """The command that accepts what was found, to be pasted here; empty where there is nothing
        to accept."""
        return shlex.join(self.accept_words)

    @property
    def accept_words(self) -> tuple[str, ...]:
        """The words of that command; files below this directory are named relative to it."""
        here = Path.cwd()
        return tuple(
            str(Path(word).relative_to(here)) if Path(word).is_relative_to(here) else word
            for word in self.run.accept
        )

    @property
    def removes(self) -> bool:
        """True if that command only removes what is no longer expected."""
        return bool(self.run.accept) and "--reason" not in self.run.accept

    @property
    def going_on(self) -> bool:
        """True if nothing is judged yet: the night runs, or was stopped."""
        return all(row.judgement is None for row in self.rows)

    @property
    def stories(self) -> tuple[tuple[CaseRow, ...], ...]:
        """The news, grouped by failure."""
        groups: dict[object, list[CaseRow]] = {}
        for row in self.news:
            groups.setdefault((row.verdict, row.failure or row.case.name), []).append(row)
        return tuple(map(tuple, groups.values()))

    @property
    def counts(self) -> dict[Verdict, int]:
        """Number of cases with each verdict, the gravest first."""
        counted = Counter(row.verdict for row in self.rows)
        return {verdict: counted[verdict] for verdict in _ORDER if counted[verdict]}

    @property
    def counted(self) -> str:
        """The counts in words."""
        return counted(self.counts)

    @property
    def unjudged(self) -> dict[tuple[Verdict, str], int]:
        """Number of cases that neither failed nor were compared, by verdict and reason."""
        rows = [row for row in ordered(self.rows) if row.verdict in ("compiled", "ran")]
        return dict(Counter((row.verdict, row.why) for row in rows))

    @property
    def reused(self) -> int:
        return sum(row.outcome is not None and row.outcome.reused for row in self.rows)

    @property
    def title(self) -> str:
        """`nightly of 2026-11-21: news in 2 of 81 cases`."""
        news = len(self.news)
        said = f"news in {news} of" if news else "nothing new in"
        if self.going_on:
            said = f"not finished, {self.run.done} done in"
        return f"{self.run.title} of {self.run.begun[:10]}: {said} {count(len(self.rows), 'case')}"


def counted(verdicts: Mapping[Any, int]) -> str:
    """`2 new failures, 1 pass`: numbers of cases by verdict, in words."""
    return ", ".join(
        count(number, verdict) if verdict.endswith("failure") else f"{number} {verdict}"
        for verdict, number in verdicts.items()
    )


def ordered(rows: Iterable[CaseRow]) -> list[CaseRow]:
    """The gravest verdicts first, each in the order of the plan."""
    return sorted(rows, key=lambda row: _ORDER.index(row.verdict))


def of(history: History, run: NightRun) -> NightReport:
    """The night `run` as the history has it now. What `expect` accepts is that of the latest."""
    if run.id != history.run().id:
        run = msgspec.structs.replace(run, accept=())
    outcomes = history.outcomes(run.id)
    judgements = {judgement.case: judgement for judgement in history.judgements(run.id)}
    rows = tuple(
        CaseRow(case=case, outcome=outcomes.get(case.name), judgement=judgements.get(case.name))
        for case in history.planned(run.id)
    )
    return NightReport(run=run, rows=rows, notes=(*run.notes, *_notes(rows)))


def _notes(rows: Iterable[CaseRow]) -> Iterable[str]:
    """Notes on the limits of the failures' findings, each line once."""
    found = {
        (row.failure, f.question): (row.judgement.signature, f)
        for row in rows
        if row.judgement
        for f in row.judgement.findings
    }
    yield from dict.fromkeys(f.note for _, f in found.values() if f.note)
    left = dict.fromkeys(
        f"{f.question} of {signature}" for signature, f in found.values() if not (f.done or f.off)
    )
    if left:
        yield f"not done for lack of time, the next night resumes: {', '.join(left)}"
