"""Further facts about a failure, as its folder keeps them: releases, workarounds, targets."""

from __future__ import annotations

from pathlib import Path

import msgspec

from iree_pilot.repro.since_release.release_search import Change, Verdict


class SinceRelease(msgspec.Struct, frozen=True, kw_only=True):
    """said: since which release, on one line, or why nobody can say. releases: name to verdict, the
    oldest first; assumed: those not tried, because the releases on both sides agree. boundaries:
    between which it comes or goes.
    """

    said: str
    releases: dict[str, Verdict] = {}
    assumed: tuple[str, ...] = ()
    boundaries: tuple[Change, ...] = ()


class Elsewhere(msgspec.Struct, frozen=True, kw_only=True):
    """The reproducer of another target, in the folder `path`, that shows the same: its `signature`
    is this one's, or the `program` that it was reduced to is."""

    target: str
    path: str
    signature: bool
    program: bool

    @property
    def folder(self) -> str:
        """The folder's name: a draft that is filed says nothing of where it lies."""
        return Path(self.path).absolute().name

    @property
    def said(self) -> str:
        """The common part, in words."""
        if self.signature:
            return "the same signature" + (", the same program" if self.program else "")
        return "the same program, another signature"


class Workaround(msgspec.Struct, frozen=True, kw_only=True):
    """One that was seen twice. names, reasons: what is done, and why. price: what is lost. state:
    `works`, `runs` (not compared) or `compiles` (not run). flags: of iree-compile, all of them.
    program: another program takes the place of the reproducer's. command: of iree-pilot.
    """

    names: tuple[str, ...]
    reasons: tuple[str, ...]
    price: str
    state: str
    flags: tuple[str, ...]
    program: str
    command: tuple[str, ...]


class WorkaroundSummary(msgspec.Struct, frozen=True, kw_only=True):
    """said: the best one on one line, or why there is none. tried: how many. answers: the best
    first."""

    said: str
    tried: int = 0
    answers: tuple[Workaround, ...] = ()
