"""Names the reproducers of other targets that show the same failure, or are the same program."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from iree_pilot.pipeline.errors import PilotError
from iree_pilot.pipeline.failures.signatures import is_specific
from iree_pilot.repro.reproducer.folder import bundle
from iree_pilot.repro.reproducer.folder.bundle import FILES
from iree_pilot.repro.reproducer.folder.further import Elsewhere
from iree_pilot.repro.reproducer.known.found import Bisection, Found


class _Shown(NamedTuple):
    """A failure that was isolated for a target. program: what it was reduced to, b"" where none."""

    target: str
    found: Found
    path: str
    program: bytes


def named(results: Sequence[tuple[str, Bisection]]) -> list[tuple[str, Bisection]]:
    """The bisections of several targets, each reproducer with those of other targets that have its
    signature or its very program. The folders say so, too, where they are as they were written.
    """
    shown = [one for target, result in results for one in _shown(target, result)]
    elsewhere = {(one.target, one.path): _elsewhere(one, shown) for one in shown}
    for (_, path), others in elsewhere.items():
        if others:
            with contextlib.suppress(PilotError):  # a folder that the user changed stays his
                _keep(Path(path), others)
    return [(target, _with(target, result, elsewhere)) for target, result in results]


def _shown(target: str, result: Bisection) -> list[_Shown]:
    made = [one for one in result.failures if one.reproducer and one.failure.phase != "trace"]
    return [
        _Shown(target, one, one.reproducer.path, _program(Path(one.reproducer.path)))
        for one in made
        if one.reproducer is not None
    ]


def _program(folder: Path) -> bytes:
    file = folder / FILES["mlir"]
    return file.read_bytes() if file.is_file() else b""


def _elsewhere(one: _Shown, shown: Sequence[_Shown]) -> tuple[Elsewhere, ...]:
    found = []
    for other in shown:
        if other.target == one.target or other.path == one.path:
            continue
        signature = one.found.failure.signature
        program = bool(one.program) and one.program == other.program
        same = other.found.failure.signature == signature and (program or is_specific(signature))
        if same or program:
            found.append(
                Elsewhere(
                    target=other.target,
                    path=str(Path(other.path).absolute()),
                    signature=same,
                    program=program,
                )
            )
    return tuple(found)


def _keep(folder: Path, others: Sequence[Elsewhere]) -> None:
    """Puts them into the folder, beside what it knew of targets that were not asked now."""
    before = {one.target: one for one in bundle.read(folder).elsewhere}
    merged = tuple((before | {one.target: one for one in others}).values())
    if merged != tuple(before.values()):
        bundle.add(folder, elsewhere=merged)


def _with(
    target: str, result: Bisection, elsewhere: dict[tuple[str, str], tuple[Elsewhere, ...]]
) -> Bisection:
    failures = []
    for one in result.failures:
        made = one.reproducer
        if made is not None and (others := elsewhere.get((target, made.path))):
            made = msgspec.structs.replace(made, elsewhere=others)
        failures.append(msgspec.structs.replace(one, reproducer=made))
    return msgspec.structs.replace(result, failures=tuple(failures))
