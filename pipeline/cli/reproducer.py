"""A reproducer's folder as SOURCE: its program, with its inputs, its target and its flags."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from pipeline.cli.options import SourceOptions


def source(text: str, chosen: SourceOptions) -> tuple[str, SourceOptions]:
    """SOURCE and its options; for a reproducer's folder the program in it, with its inputs.

    That is the one in MLIR where there is one, else that in PyTorch. Inputs that the user gives go
    before its own. Raises UsageError for a folder that holds no program.
    """
    if not is_folder(text):
        return text, chosen
    from pipeline.errors import UsageError
    from repro import bundle

    folder = Path(text)
    report = bundle.read(folder)
    levels = {one.name: one for one in report.levels if (folder / one.file).is_file()}
    level = levels.get("mlir") or levels.get("pytorch")
    if level is None:
        raise UsageError(
            f"{text} holds no program: neither {bundle.FILES['mlir']} nor "
            f"{bundle.FILES['pytorch']}",
            advice=f"Name the source it was made of: {report.source}",
        )
    if not chosen.inputs and level.name == "mlir":
        chosen = msgspec.structs.replace(chosen, inputs=bundle.inputs_of(report, folder))
    return str(folder / level.file), chosen


def target(text: str, named: str | None, flags: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """(the target, flags of iree-compile): where none is named, those of a reproducer's folder.

    Its flags go before the user's. Raises click's UsageError where there is neither.
    """
    if named is not None:
        return named, flags
    if not is_folder(text):
        raise click.UsageError("Missing option '-t' / '--target'.")
    from pipeline import targets
    from repro import bundle

    report = bundle.read(Path(text))
    own, given = targets.split_flags(targets.parse(report.target), report.flags)
    return own.spec, (*given, *flags)


def is_folder(text: str) -> bool:
    """Whether SOURCE is a folder that `bisect` has written."""
    return (Path(text) / "report.json").is_file()
