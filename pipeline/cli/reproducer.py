"""A reproducer's folder as SOURCE: its program, with its inputs, its target and its flags."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from pipeline.cli.options import SourceOptions

if TYPE_CHECKING:
    from repro.trust import Opened


def source(text: str, chosen: SourceOptions) -> tuple[str, SourceOptions]:
    """SOURCE and its options; for a reproducer's folder the program in it, with its inputs.

    That is the one in MLIR where there is one, else that in PyTorch. Inputs that the user gives go
    before its own. Raises UsageError for a folder that holds no program, or only one whose code the
    user does not trust.
    """
    if not is_folder(text):
        return text, chosen
    from pipeline.errors import UsageError
    from repro import bundle, trust

    folder = Path(text)
    opened = trust.open_folder(folder, trust=chosen.trust)
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
    announce(opened)
    if not chosen.inputs and level.name == "mlir":
        chosen = msgspec.structs.replace(chosen, inputs=bundle.inputs_of(report, folder))
    return str(folder / level.file), chosen


def target(
    text: str, named: str | None, flags: tuple[str, ...], *, trust: bool = False
) -> tuple[str, tuple[str, ...]]:
    """(the target, flags of iree-compile): where none is named, those of a reproducer's folder.

    Its flags go before the user's. Raises click's UsageError where there is neither, UsageError for
    flags of somebody else's folder that do more than compile, unless the user says `trust`.
    """
    if named is not None:
        return named, flags
    if not is_folder(text):
        raise click.UsageError("Missing option '-t' / '--target'.")
    from pipeline import targets
    from repro.trust import open_folder

    report = open_folder(Path(text), trust=trust).report
    own, given = targets.split_flags(targets.parse(report.target), report.flags)
    return own.spec, (*given, *flags)


def announce(opened: Opened) -> None:
    """Says on stderr what of the folder is not as it was written here, and its flags."""
    from repro import trust

    for note in trust.notes(opened):
        click.echo(note, err=True)


def is_folder(text: str) -> bool:
    """Whether SOURCE is a folder that `bisect` has written."""
    return (Path(text) / "report.json").is_file()
