"""A reproducer's folder as SOURCE: its program, with its inputs, its target and its flags."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from iree_pilot.pipeline.cli.options import SourceOptions
from iree_pilot.pipeline.errors import UsageError
from iree_pilot.pipeline.plain import plain

if TYPE_CHECKING:
    from iree_pilot.repro.reproducer.folder.further import SinceRelease, WorkaroundSummary
    from iree_pilot.repro.trust.trust import Opened


def source(text: str, chosen: SourceOptions, *, flagged: bool = True) -> tuple[str, SourceOptions]:
    """SOURCE and its options; for a reproducer's folder the program in it, with its inputs.

    That is the one in MLIR where there is one, else that in PyTorch. Inputs that the user gives go
    before its own. Raises UsageError for a folder that holds no program, or only one whose code the
    user does not trust. flagged: the folder's flags are used, too (`target` gives them).
    """
    if not is_folder(text):
        return text, chosen
    from iree_pilot.repro.reproducer.folder import bundle
    from iree_pilot.repro.trust import trust

    folder = Path(text)
    opened = trust.open_folder(folder, trust=chosen.trust, flagged=flagged)
    report = opened.report
    levels = {one.name: one for one in report.levels if (folder / one.file).is_file()}
    level = levels.get("mlir") or levels.get("pytorch")
    if level is None:
        raise UsageError(
            f"{text} holds no program: neither {bundle.FILES['mlir']} nor "
            f"{bundle.FILES['pytorch']}",
            advice=f"Name the source it was made of: {report.source}",
        )
    if level.name == "pytorch":
        trust.check_runs(opened, level.file)
    announce(opened, flagged=flagged)
    if not chosen.inputs and level.name == "mlir":
        chosen = msgspec.structs.replace(chosen, inputs=bundle.inputs_of(report, folder))
    return str(folder / level.file), chosen


def target(
    text: str, named: str | None, flags: tuple[str, ...], *, trust: bool = False
) -> tuple[str, tuple[str, ...]]:
    """(the target, flags of iree-compile): where none is named, those of a reproducer's folder.

    Its flags go before the user's. Raises UsageError where there is neither, and for flags of
    somebody else's folder that do more than compile, unless the user says `trust`.
    """
    if named is not None:
        return named, flags
    if not is_folder(text):
        raise no_target(text)
    from iree_pilot.pipeline.targets import targets
    from iree_pilot.repro.trust.trust import open_folder

    report = open_folder(Path(text), trust=trust).report
    own, given = targets.split_flags(targets.parse(report.target), report.flags)
    return own.spec, (*given, *flags)


def no_target(text: str) -> UsageError:
    """The error for a source that brings no target, where none is named."""
    return UsageError(
        f"no target is named for {text}",
        advice="Add -t TARGET, such as -t llvm-cpu; `iree-pilot targets` lists them.",
    )


def announce(opened: Opened, *, flagged: bool = True) -> None:
    """Reports on stderr the changes to a folder since it was written here, and its flags."""
    from iree_pilot.repro.trust import trust

    for note in trust.notes(opened, flagged=flagged):
        click.echo(plain(note), err=True)


def keep(
    text: str, note: Callable[[str], object], **answer: SinceRelease | WorkaroundSummary
) -> None:
    """Adds an answer to a folder that was written here; `note` gets where it is, or why not.

    answer: as `bundle.add` takes it. One of somebody else's stays as it is.
    """
    from iree_pilot.pipeline.errors import PilotError
    from iree_pilot.repro.reproducer.folder import bundle
    from iree_pilot.repro.trust import own

    folder = Path(text)
    if not own.wrote((folder / bundle.REPORT).read_bytes()):
        return
    try:
        bundle.add(folder, **answer)
    except PilotError as fault:
        note(f"not added to {folder / 'ISSUE.md'}: {fault.message}")
    else:
        note(f"added to {folder / 'ISSUE.md'}")


def is_folder(text: str) -> bool:
    """True if SOURCE is a folder that `bisect` has written."""
    return (Path(text) / "report.json").is_file()
