"""The one way from a report to a reproducer's folder: written, verified from copies, remembered."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from iree_pilot.pipeline.toolchain.toolchain import Toolchain
from iree_pilot.repro.reproducer import verify
from iree_pilot.repro.reproducer.folder import bundle
from iree_pilot.repro.reproducer.folder.bundle import Input, Report
from iree_pilot.repro.reproducer.known import known
from iree_pilot.repro.reproducer.verify import Ahead


class Contents(NamedTuple):
    """Contents of a folder beside its report: see `bundle.write`."""

    files: Mapping[str, Path]
    inputs: Sequence[Input] = ()
    data: Mapping[str, bytes] = {}
    beside: Mapping[str, Path] = {}

    def of(self, files: Mapping[str, str]) -> Contents:
        """With these files, by their names, for the levels."""
        return self._replace(files={name: Path(file) for name, file in files.items()})

    def write(self, place: Path, report: Report) -> None:
        bundle.write(place, report, self.files, self.inputs, beside=self.beside, data=self.data)


def ahead(draft: Path, report: Report, contents: Contents, toolchain: Toolchain) -> Ahead | None:
    """Checks of copies of the levels that there are, while others are still made."""
    contents.write(draft, report)
    return verify.ahead(draft, toolchain)


def verified(
    draft: Path,
    report: Report,
    contents: Contents,
    toolchain: Toolchain,
    before: Ahead | None = None,
) -> Report:
    """The report after the folder was written to `draft` and its levels were run from copies.

    before: what `ahead` has shown of them.
    """
    contents.write(draft, report)
    return verify.settle(report, verify.check(draft, toolchain, before))


def placed(settle: Callable[[], Path], report: Report, contents: Contents) -> Path:
    """Writes the folder to its place at once; the place.

    settle: chooses or refuses the place. It is asked where no other process can write there before
    the folder is: one that looked at the place earlier may have put its own there since.
    """
    with bundle.placing():
        place = settle()
        contents.write(place, report)
    return place


def publish(
    settle: Callable[[], Path],
    report: Report,
    contents: Contents,
    signature: str,
    program: str = "",
) -> Path:
    """Same as `placed`, and remembers the folder where it is verified.

    signature: of the failure that was searched for; program: as in `known.Known`.
    """
    place = placed(settle, report, contents)
    if not report.verified or report.whole:
        return place
    known.remember(
        known.Known(
            signature=signature,
            revision=report.revision,
            target=report.target,
            path=str(place.absolute()),
            ops=report.ops,
            when=datetime.now(UTC).isoformat(timespec="seconds"),
            source=report.source,
            flags=report.flags,
            program=program,
        )
    )
    return place
