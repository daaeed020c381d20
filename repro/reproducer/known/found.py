"""Records of a bisection's result and of the reproducers' folders."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from iree_pilot.pipeline import html_table
from iree_pilot.pipeline.failures.diagnostics import Failure
from iree_pilot.pipeline.plural import count
from iree_pilot.repro.attribution.origin import Origin
from iree_pilot.repro.reproducer.folder import bundle, issue
from iree_pilot.repro.reproducer.folder.bundle import LevelName, Report
from iree_pilot.repro.reproducer.folder.further import Elsewhere, SinceRelease, WorkaroundSummary
from iree_pilot.repro.reproducer.known import places
from iree_pilot.repro.reproducer.known.known import Known
from iree_pilot.repro.reproducer.known.places import Identity


class Reproducer(msgspec.Struct, frozen=True, kw_only=True):
    """A reproducer folder; ops counts operations other than constants, list constructs, returns.

    levels: those that were verified. bytes: of its program. current: as in `bundle.Report`.
    companions: failures that come with the isolated one.
    pass_name, pass_class: the pass that fails, as `iree-opt` and as C++ name it, "" if not known.
    shows: of wrong numbers, which they are and what it takes. named_flags: that the compiler's
    message names and the command does not pass.
    origin: where wrong numbers come from. whole: it is the program that failed, nothing smaller was
    found; op_names then has each name once. not_iree: as in `bundle.Report`. since_release,
    workarounds: where that was asked. elsewhere: as in `bundle.Report`.
    """

    path: str
    ops: int
    op_names: tuple[str, ...]
    bytes: int
    minimal: bool
    verified: bool
    oracle_calls: int
    seconds: float
    levels: tuple[LevelName, ...]
    companions: tuple[Failure, ...] = ()
    current: tuple[str, str] | None = None
    pass_name: str = ""
    pass_class: str = ""
    shows: tuple[str, ...] = ()
    named_flags: tuple[str, ...] = ()
    origin: Origin | None = None
    whole: bool = False
    not_iree: str = ""
    since_release: SinceRelease | None = None
    workarounds: WorkaroundSummary | None = None
    elsewhere: tuple[Elsewhere, ...] = ()

    @property
    def attribution(self) -> str:
        """Attribution and its reason; empty if undecided."""
        if self.origin is None:
            return self.not_iree
        return f"{self.origin.attribution.culprit}: {self.origin.attribution.conclusion}"


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """A failure and its reproducer; why: it could not be isolated, the reproducer is the whole
    program then, or None where that cannot be handed on.

    known_since: the date of an earlier bisection, whose reproducer this is; empty if it is new.
    blocks, places: how many of the program's operations were masked for its sake to get beyond it,
    in how many groups like the isolated one; 0 where only one failure was asked for.
    rate: in which share of the runs an intermittent failure appeared.
    copied_from: the earlier bisection's folder, where the user named another one. beside: why the
    reproducer is not in the folder of the usual name.
    """

    failure: Failure
    reproducer: Reproducer | None = None
    why: str = ""
    known_since: str = ""
    blocks: int = 0
    places: int = 0
    rate: float | None = None
    copied_from: str = ""
    beside: str = ""


class Bisection(msgspec.Struct, frozen=True, kw_only=True):
    """Result of a bisection, the failure that blocks most first.

    oracle_calls, seconds: all of them, those before an interruption included. seen: other failures
    met on the way, not isolated. unblocked: whether the program does not fail
    any more with all that was isolated masked; None where that was not asked for.
    """

    status: Literal["isolated", "passes", "gave-up"]
    failures: tuple[Found, ...] = ()
    oracle_calls: int = 0
    seconds: float = 0.0
    why: str = ""
    seen: tuple[Failure, ...] = ()
    unblocked: bool | None = None

    def _repr_html_(self) -> str:
        """A table for notebooks: the verdict, and each failure with what it was reduced to."""
        rows: list[tuple[str, str | None]] = [("verdict", self.status), ("why", self.why)]
        for one in self.failures:
            rows += [("failure", one.failure.signature), *html_table.of_failure(one.failure)]
            made = one.reproducer
            if made is None or made.whole:
                rows.append(("not isolated", one.why))
            if made is not None:
                minimal = "minimal" if made.minimal else "not proved minimal"
                rows += [
                    ("reduced to", f"{count(made.ops, 'operation')}: {', '.join(made.op_names)}"),
                    ("state", f"{minimal}, {'verified' if made.verified else 'NOT verified'}"),
                    ("levels", ", ".join(made.levels) or "none"),
                    ("folder", made.path),
                ]
        return html_table.table(rows)


def reproduced(place: Path, report: Report) -> Reproducer:
    """Record of the folder at `place`."""
    program = place / bundle.FILES["mlir"]
    if report.failure.phase == "trace":
        program = place / bundle.FILES["pytorch"]
    shown = next((one for one in report.levels if one.name == "pass"), None)
    return Reproducer(
        path=str(place),
        ops=report.ops,
        op_names=report.op_names,
        bytes=program.stat().st_size if program.is_file() else 0,
        minimal=report.minimal,
        verified=report.verified,
        oracle_calls=report.oracle_calls,
        seconds=report.seconds,
        levels=tuple(one.name for one in report.levels if one.verified),
        companions=report.failure.also,
        current=report.current,
        pass_name=shown.pass_name if shown else "",
        pass_class=shown.pass_class if shown else "",
        shows=(report.failure.message, *report.tried) if report.wrong else (),
        named_flags=tuple(issue.named_flags(report.failure, report.flags)),
        origin=report.origin,
        whole=report.whole,
        not_iree=report.not_iree,
        since_release=report.since_release,
        workarounds=report.workarounds,
        elsewhere=report.elsewhere,
    )


def recalled(before: Known, report: Report, failure: Failure) -> Found:
    """Result of an earlier bisection of a failure, at no cost now."""
    made = reproduced(Path(before.path), report)
    made = msgspec.structs.replace(made, oracle_calls=0, seconds=0.0)
    return Found(failure=failure, reproducer=made, known_since=before.date)


def gave_up(failure: Failure, why: str, calls: int = 0, seconds: float = 0.0) -> Bisection:
    """Result of a bisection that isolated nothing."""
    found = Found(failure=failure, why=why)
    return Bisection(
        status="gave-up", failures=(found,), oracle_calls=calls, seconds=seconds, why=why
    )


def placed(found: Found, place: Path, wanted: Identity) -> Found:
    """Result of an earlier bisection, in the folder that the user names."""
    assert found.reproducer is not None
    before = found.reproducer.path
    made = places.copied(Path(before), place, wanted)
    if made.resolve() == Path(before).resolve():
        return found
    return msgspec.structs.replace(
        found,
        reproducer=msgspec.structs.replace(found.reproducer, path=str(made)),
        copied_from=before,
    )
