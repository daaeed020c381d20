"""`bisect --deep`: since which release it fails and what works around it, into the folder."""

from __future__ import annotations

from pathlib import Path

import msgspec

from pipeline.cli import releases_bisect, workaround
from pipeline.cli.live import Live
from pipeline.cli.options import SourceOptions
from pipeline.cli.session import Session
from pipeline.errors import PilotError
from pipeline.frontends.load import TraceFailed
from repro import bundle, deep, further
from repro.bisect import Bisection
from repro.found import Found
from repro.further import SinceRelease


def ask(
    session: Session, result: Bisection, chosen: SourceOptions, device: str | None, live: Live
) -> Bisection:
    """The bisection with what else is known of each reproducer that was verified.

    What was answered before is not asked again, unless the user wants it fresh.
    """
    failures = tuple(_found(session, one, chosen, device, live) for one in result.failures)
    return msgspec.structs.replace(result, failures=failures)


def _found(
    session: Session, found: Found, chosen: SourceOptions, device: str | None, live: Live
) -> Found:
    made = found.reproducer
    if made is None or not made.verified:
        return found
    if found.failure.phase == "trace":
        live.note("it does not trace: neither a release of the compiler nor a flag changes that")
        return found
    folder, since, around = Path(made.path), made.since_release, made.workarounds
    if since is None or not since.releases or chosen.fresh:
        since = _since_release(session, folder, chosen, live)
        bundle.add(folder, since_release=since)
    if around is None or not around.tried or chosen.fresh:
        around = _workarounds(session, folder, chosen, device, live)
        bundle.add(folder, workarounds=around)
    made = msgspec.structs.replace(made, since_release=since, workarounds=around)
    return msgspec.structs.replace(found, reproducer=made)


def _since_release(
    session: Session, folder: Path, chosen: SourceOptions, live: Live
) -> SinceRelease:
    live.note("\nlooking for the release since which it fails")
    try:
        return deep.since_release(releases_bisect.of_reproducer(session, folder, chosen, live))
    except (PilotError, TraceFailed) as fault:
        return SinceRelease(said=_unknown(fault))


def _workarounds(
    session: Session, folder: Path, chosen: SourceOptions, device: str | None, live: Live
) -> further.Workarounds:
    try:
        return deep.workarounds(workaround.of_reproducer(session, folder, chosen, device, live))
    except (PilotError, TraceFailed) as fault:
        return further.Workarounds(said=_unknown(fault))


def _unknown(fault: PilotError | TraceFailed) -> str:
    return f"not known: {fault.message if isinstance(fault, PilotError) else fault}"
