"""Checks sources for code that lies in a reproducer's folder, which may be somebody else's."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from iree_pilot.pipeline.frontends.source import Source

_REPORT = "report.json"


def check(source: Source, *, trust: bool) -> None:
    """Raises UsageError where a source's own file is, or lies below, a stranger's folder.

    A module is looked for where Python would find it, without importing any package on the way.
    """
    if trust:
        return
    for file in _files(source):
        # As it is named, and where it is: a link may lead into such a folder, or out of it.
        for path in {Path(os.path.normpath(file.absolute())), file.resolve()}:
            for folder in path.parents:
                if os.path.lexists(folder / _REPORT):  # else nothing is loaded for it
                    from iree_pilot.repro.trust import trust as doors

                    doors.of_source(folder, path.relative_to(folder))


def _files(source: Source) -> Iterator[Path]:
    if source.path and source.kind in ("file", "pt2", "mlir"):
        yield Path(source.path)
    if source.module:
        parts = source.module.split(".")
        for base in ("", *sys.path):
            for count in range(1, len(parts) + 1):
                place = Path(base, *parts[:count])
                yield from (
                    p for p in (place.with_suffix(".py"), place / "__init__.py") if p.exists()
                )
