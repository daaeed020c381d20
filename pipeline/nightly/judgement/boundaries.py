"""Between which two of the matrix's releases a failure comes or goes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

import msgspec
from packaging.version import InvalidVersion, Version

from iree_pilot.pipeline.case_result import tells
from iree_pilot.pipeline.nightly.records import Case, CaseOutcome, Judgement


class Boundary(msgspec.Struct, frozen=True, kw_only=True):
    """Two neighbouring releases of a night: the one shows the failure, the other does not.

    passes: of the release without it, whether it passes; otherwise it fails in another way.
    """

    without: str
    shows: str
    passes: bool

    @property
    def text(self) -> str:
        how = "passes" if self.passes else "fails in another way"
        return f"{self.shows} fails, {self.without} {how}"


def boundaries(
    cases: Iterable[Case], outcomes: Mapping[str, CaseOutcome]
) -> dict[str, tuple[Boundary, ...]]:
    """Releases of the night between which the failure of each failing case comes or goes.

    Cases are compared that differ in the release only. A release is left out if the case could not
    be tried with it, or was not judged at the step of the failure.
    """
    families: dict[tuple[object, ...], list[tuple[Version, str, CaseOutcome]]] = {}
    for case in cases:
        outcome = outcomes[case.name]
        version = _version(outcome)
        if version is not None:
            family = (case.program, case.target, case.flags)
            families.setdefault(family, []).append((version, case.name, outcome))
    found = {}
    for members in families.values():
        members.sort(key=lambda member: member[0])
        for _, name, outcome in members:
            failure = outcome.failure
            if failure is not None:
                telling = [m for m in members if tells(m[2].status, failure.phase)]
                found[name] = _around(telling, failure.signature)
    return {name: around for name, around in found.items() if around}


def with_boundaries(
    judgements: Sequence[Judgement], found: Mapping[str, tuple[Boundary, ...]]
) -> list[Judgement]:
    """The judgements, with the releases around each failure in their words."""
    return [
        msgspec.structs.replace(
            judgement, why="; ".join(filter(None, [judgement.why, *(b.text for b in around)]))
        )
        if (around := found.get(judgement.case)) and judgement.signature
        else judgement
        for judgement in judgements
    ]


def _around(
    members: Sequence[tuple[Version, str, CaseOutcome]], signature: str
) -> tuple[Boundary, ...]:
    found = []
    for (older, _, before), (newer, _, after) in pairwise(members):
        if older == newer:
            continue
        shown = [_shows(before, signature), _shows(after, signature)]
        if shown[0] == shown[1]:
            continue
        other = before if shown[1] else after
        found.append(
            Boundary(
                without=str(older if shown[1] else newer),
                shows=str(newer if shown[1] else older),
                passes=other.failure is None,
            )
        )
    return tuple(found)


def _shows(outcome: CaseOutcome, signature: str) -> bool:
    return outcome.failure is not None and outcome.failure.shows(signature)


def _version(outcome: CaseOutcome) -> Version | None:
    """The release that a case was tried with; None where it was not, or it has no version."""
    if outcome.result is None:
        return None
    try:
        return Version(outcome.result.release)
    except InvalidVersion:
        return None
