"""Answers for since which release, and for workarounds: on one line, and as a folder keeps them."""

from __future__ import annotations

import shlex

from iree_pilot.pipeline.plural import count
from iree_pilot.repro.reproducer.folder import further
from iree_pilot.repro.reproducer.folder.further import SinceRelease
from iree_pilot.repro.since_release.release_search import TELLING, Change
from iree_pilot.repro.since_release.trials import ReleasesFound
from iree_pilot.repro.workarounds.find_workarounds import Workarounds

_UNSURE = {
    "compiles": "; compiles, not run here",
    "runs": "; runs, not compared",
}


def since_release(found: ReleasesFound) -> SinceRelease:
    """The answer as a folder keeps it."""
    return SinceRelease(
        said=summary(found),
        releases=found.releases,
        assumed=found.assumed,
        boundaries=found.boundaries,
    )


def workarounds(found: Workarounds) -> further.WorkaroundSummary:
    """The answer as a folder keeps it."""
    return further.WorkaroundSummary(
        said=way_around(found),
        tried=len(found.tried),
        answers=tuple(
            further.Workaround(
                names=one.names,
                reasons=one.reasons,
                price=one.price,
                state=one.state,
                flags=one.flags,
                program=one.program,
                command=one.command,
            )
            for one in found.answers
        ),
    )


def way_around(found: Workarounds) -> str:
    """An answer for a workaround on one line: what it costs, and the command to paste."""
    if found.status == "passes":
        return f"none is needed: {found.why}"
    if not found.answers and not found.tried:
        return f"not searched yet: {found.why}"
    if not found.answers:
        return f"none was found among {count(len(found.tried), 'candidate')}: {found.why}"
    best = found.answers[0]
    price = f"{best.price}{_UNSURE.get(best.state, '')}"
    return f"{' + '.join(best.names)} ({price}): {shlex.join(best.command)}"


def summary(found: ReleasesFound) -> str:
    """An answer for releases on one line."""
    said = [_change(change) for change in found.boundaries]
    if not said:
        telling = [name for name, verdict in found.releases.items() if verdict in TELLING]
        shown = [name for name in telling if found.releases[name] == "same"]
        if len(shown) == 1:
            said = [f"reproduces in {shown[0]}, the only release that gives a verdict"]
        elif shown:
            said = [f"in all releases that give a verdict, {shown[0]} to {shown[-1]}"]
    return "; ".join(said) or "no release reproduces it"


def _change(change: Change) -> str:
    words = {"passes": "passes", "different": "fails in another way", "same": "reproduces it"}
    commits = ", ".join(
        f"{commit[:12]} to {other[:12]}"
        for commit, other in [(change.older_revision, change.newer_revision)]
        if commit and other
    )
    revisions = f", commits {commits}" if commits else ""
    if change.came and change.bad_verdict == "same":
        return f"since {change.bad} ({change.good} {words[change.good_verdict]}{revisions})"
    if change.bad_verdict == "same":
        return f"gone in {change.good} ({change.bad} reproduces it{revisions})"
    older, newer = words[change.older_verdict], words[change.newer_verdict]
    return f"{change.older} {older}, {change.newer} {newer}{revisions}"
