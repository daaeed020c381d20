"""Choice of a reproducer's folder: never one that shows another failure."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import msgspec

from iree_pilot.pipeline.errors import UsageError
from iree_pilot.pipeline.failures.diagnostics import Failure
from iree_pilot.pipeline.failures.signatures import is_specific
from iree_pilot.repro.reproducer.folder import bundle
from iree_pilot.repro.reproducer.folder.bundle import Report


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """Identity of the failure that a folder shows.

    target, source: the user's words. flags: of the compile. program: where the full program lies,
    which tells wrong numbers apart: their signatures say little. Why a source does not trace is
    the same for any target.
    """

    failure: Failure
    source: str
    target: str = ""
    flags: tuple[str, ...] = ()
    program: str = ""

    def is_of(self, report: Report) -> bool:
        """True if a folder with this report shows it."""
        if report.failure.signature != self.failure.signature:
            return False
        if self.failure.phase == "trace":
            return report.source == self.source
        if (report.target, report.flags) != (self.target, self.flags):
            return False
        return is_specific(self.failure.signature) or report.program == self.program


def settled(place: Path, wanted: Identity, *, default: bool) -> Path:
    """The folder that a reproducer of `wanted` is written to.

    default: nobody named `place`, and where it is taken a name with the failure's signature, or a
    number besides, is free. Raises UsageError where the user named it and it is taken.
    """
    if not default:
        _check(place, wanted)
        return place
    return next(one for one in names(place, wanted.failure) if _is_free(one, wanted))


def beside(place: Path) -> str:
    """Reason that a reproducer did not go to the folder `place`, which is taken."""
    try:
        shown = bundle.read(place)
        bundle.check_place(place)
    except UsageError as fault:
        return fault.message
    return f"{place} shows {shown.failure.signature} for {shown.target}"


def copied(folder: Path, place: Path, wanted: Identity) -> Path:
    """`place`, with a copy of the reproducer of `wanted` in `folder`.

    Raises UsageError where that may not be written, EnvironmentFault where it cannot.
    """
    if place.resolve() != folder.resolve():
        with bundle.placing():
            _check(place, wanted)
            bundle.copy(folder, place)
    return place


def last_of(failure: Failure) -> str:
    """The end of a failure's signature, in the name of a folder."""
    return failure.signature.rsplit("/", 1)[-1]


def names(place: Path, failure: Failure) -> Iterator[Path]:
    """Names for a folder, the usual one first: with the failure's signature, then with numbers."""
    yield place
    last = last_of(failure)
    name = place.name if last in place.name else f"{place.name}-{last}"
    yield place.with_name(name)
    yield from (place.with_name(f"{name}-{number}") for number in itertools.count(2))


def _is_free(place: Path, wanted: Identity) -> bool:
    try:
        _check(place, wanted)
    except UsageError:
        return False
    return True


def _check(place: Path, wanted: Identity) -> None:
    bundle.check_place(place)
    if not (place / bundle.REPORT).is_file():
        return
    shown = bundle.read(place)
    if not wanted.is_of(shown):
        raise UsageError(
            f"{place} holds the reproducer of another failure: {shown.failure.signature} of "
            f"{shown.source} for {shown.target}",
            advice="Choose another folder with -o DIR, or move that one away.",
        )
