"""`bisect --deep`: since which release it fails and what works around it, into the folder."""

from __future__ import annotations

import contextlib
from pathlib import Path

import msgspec

from iree_pilot.pipeline.cli.display.live import Live
from iree_pilot.pipeline.cli.display.output import seconds
from iree_pilot.pipeline.cli.failures import releases_bisect, workaround
from iree_pilot.pipeline.cli.options import SourceOptions
from iree_pilot.pipeline.cli.session import Session
from iree_pilot.pipeline.errors import PilotError
from iree_pilot.pipeline.frontends.load import TraceFailed
from iree_pilot.pipeline.plural import count
from iree_pilot.pipeline.toolchain import releases
from iree_pilot.repro import deep
from iree_pilot.repro.bisect import Bisection
from iree_pilot.repro.reproducer.folder import bundle, further
from iree_pilot.repro.reproducer.folder.further import SinceRelease
from iree_pilot.repro.reproducer.known.found import Found, Reproducer
from iree_pilot.repro.workarounds import find_workarounds

#: Disk space of an installed release; measured: 0.3 to 0.4 GB.
_RELEASE_GB = 0.4


def ask(
    session: Session, result: Bisection, chosen: SourceOptions, device: str | None, live: Live
) -> Bisection:
    """The bisection with what else is known of each reproducer that was verified.

    What was answered before is not asked again, unless the user wants it fresh.
    """
    _announce(session, result, chosen, live)
    failures = tuple(_found(session, one, chosen, device, live) for one in result.failures)
    return msgspec.structs.replace(result, failures=failures)


def _asks(made: Reproducer, chosen: SourceOptions) -> tuple[bool, bool]:
    """(True to search the releases, True to search for workarounds) of a reproducer."""
    since, around = made.since_release, made.workarounds
    return (
        since is None or not since.releases or chosen.fresh,
        around is None or not around.tried or chosen.fresh,
    )


def _announce(session: Session, result: Bisection, chosen: SourceOptions, live: Live) -> None:
    """Announces the searches, which take minutes, with the time of one compile."""
    for found in result.failures:
        made = found.reproducer
        if made is None or not made.verified or found.failure.phase == "trace":
            continue
        asks_since, asks_around = _asks(made, chosen)
        if not (asks_since or asks_around):
            continue
        live.note(f"\n--deep investigates {made.path} further; this can take minutes")
        compiles = 0
        with contextlib.suppress(PilotError):  # it is said where it is asked
            if asks_since:
                live.doing("listing the releases", "try")
                names = releases_bisect.names(live)
                between = f", {names[0]} to {names[-1]}" if len(names) > 1 else ""
                compiles += len(names)
                live.note(f"  releases     {count(len(names), 'release')} at most{between}")
                here = {session.toolchain.version, *(one.version for one in releases.local())}
                missing = len({*names} - here)
                if missing:
                    size = f"up to {missing * _RELEASE_GB:.1f} GB for {missing} not here yet"
                    live.note(f"  disk         {size}; `releases remove` frees it")
        if asks_around:
            candidates = find_workarounds.expected(Path(made.path), session.toolchain)
            compiles += candidates
            live.note(f"  workarounds  {count(candidates, 'candidate')} and other architectures")
        report = bundle.read(Path(made.path))
        if report.oracle_calls and compiles:
            each = report.seconds / report.oracle_calls
            live.note(
                f"  time         a compile of the search took {seconds(each)} on average: "
                f"{seconds(compiles * each)} for {compiles}; downloads and runs come on top"
            )


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
    asks_since, asks_around = _asks(made, chosen)
    if asks_since:
        since = _since_release(session, folder, chosen, live)
        bundle.add(folder, since_release=since)
    if asks_around:
        around = _workarounds(session, folder, chosen, device, live)
        bundle.add(folder, workarounds=around)
    made = msgspec.structs.replace(made, since_release=since, workarounds=around)
    return msgspec.structs.replace(found, reproducer=made)


def since_release(
    session: Session, folder: Path, chosen: SourceOptions, live: Live
) -> SinceRelease:
    """Since which release the reproducer in a folder fails, which is asked once and kept there."""
    known = bundle.read(folder).since_release
    if known is None or not known.releases or chosen.fresh:
        known = _since_release(session, folder, chosen, live)
        bundle.add(folder, since_release=known)
    return known


def _since_release(
    session: Session, folder: Path, chosen: SourceOptions, live: Live
) -> SinceRelease:
    live.note("\nsearching for the first failing release")
    live.doing("listing the releases", "try")
    try:
        return deep.since_release(releases_bisect.of_reproducer(session, folder, chosen, live))
    except (PilotError, TraceFailed) as fault:
        return SinceRelease(said=_unknown(fault))


def _workarounds(
    session: Session, folder: Path, chosen: SourceOptions, device: str | None, live: Live
) -> further.WorkaroundSummary:
    try:
        return deep.workarounds(workaround.of_reproducer(session, folder, chosen, device, live))
    except (PilotError, TraceFailed) as fault:
        return further.WorkaroundSummary(said=_unknown(fault))


def _unknown(fault: PilotError | TraceFailed) -> str:
    return f"not known: {fault.message if isinstance(fault, PilotError) else fault}"
