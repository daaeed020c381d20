"""Failures that were isolated before: which folder shows one, for the same way of compiling.

    DATA/known/KEY.json      one failure, written by one rename; the last one to be isolated counts

An entry that cannot be read, or whose folder has gone, was changed or shows something else, is no
entry.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from iree_pilot.pipeline.errors import PilotError
from iree_pilot.pipeline.store.store import Store, data_directory
from iree_pilot.repro.reducer import kept
from iree_pilot.repro.reproducer.folder import bundle
from iree_pilot.repro.reproducer.folder.bundle import Report


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """A failure that was isolated before.

    revision: of the compiler. target, source: the user's words. path: the reproducer's folder,
    absolute; ops: how many operations it has. when: ISO 8601, with the offset from UTC. flags: of
    the compile, the target's and the user's. program: the digest of the program, for a failure
    whose signature says too little to know it again in another (wrong numbers).
    """

    signature: str
    revision: str
    target: str
    path: str
    ops: int
    when: str
    source: str
    flags: tuple[str, ...] = ()
    program: str = ""

    @property
    def date(self) -> str:
        return self.when[:10]


def remember(known: Known) -> None:
    """Keeps an entry in place of any other of its signature, revision, target and flags.

    Raises OSError where the data directory cannot be written to.
    """
    place = _place(known.signature, known.revision, known.target, known.flags, known.program)
    place.parent.mkdir(exist_ok=True)
    kept.keep(place, known)


def recall(
    signature: str, revision: str, target: str, flags: tuple[str, ...] = (), program: str = ""
) -> tuple[Known, Report] | None:
    """Record of a known failure, and the report of its folder, which still shows it."""
    known = kept.recall(_place(signature, revision, target, flags, program), Known)
    if known is None:
        return None
    try:
        report = bundle.read(Path(known.path))
        bundle.check_place(Path(known.path))
    except PilotError:
        return None
    wanted = (signature, revision, target)
    own = (known.signature, known.revision, known.target)
    shown = (report.failure.signature, report.revision, report.target)
    whole = all((Path(known.path) / name).is_file() for name in report.files)
    fits = (
        own == shown == wanted
        and known.flags == flags
        and known.program == program
        and whole
        and report.verified
        and not bundle.compares_types(report)
    )
    return (known, report) if fits else None


def _place(
    signature: str, revision: str, target: str, flags: tuple[str, ...], program: str
) -> Path:
    more = (program,) if program else ()
    key = Store.key(signature, revision, target, flags, *more)
    return data_directory() / "known" / f"{key}.json"
