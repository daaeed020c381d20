"""The user's files that a command reads, which none of its outputs may take the place of."""

from __future__ import annotations

from pathlib import Path

from iree_pilot.pipeline.cli.options import SourceOptions
from iree_pilot.pipeline.frontends import outline
from iree_pilot.pipeline.frontends import source as sources
from iree_pilot.pipeline.frontends.inputs import examples

#: Files that are read of a checkpoint's directory.
_OF_CHECKPOINT = ("*.json", "*.safetensors")


def files(
    text: str, chosen: SourceOptions, expected: tuple[str, ...] = (), *, named: str = ""
) -> list[Path]:
    """The files that a source and its options name; what a Python file reads itself is not known
    before it is run.

    named: the source as the user has it, which may be the folder of a reproducer.
    """
    source = sources.parse(text, chosen.settings, chosen.dtype)
    if source.kind == "module":
        own = outline.module_file(source.module or "")
    else:
        own = Path(source.path) if source.path else None
    weights = (word if Path(word).exists() else word.partition("=")[2] for word in chosen.weights)
    inputs = map(examples.file_of, (*chosen.inputs, *expected))
    report = None
    if named != text:
        from iree_pilot.repro.reproducer.folder import (
            bundle,  # much to load for what is no reproducer
        )

        report = Path(named, bundle.REPORT)
    found = [file for file in (own, report, *map(Path, weights), *inputs) if file is not None]
    held = [f for p in found if p.is_dir() for glob in _OF_CHECKPOINT for f in p.glob(glob)]
    return [*(file for file in found if file.is_file()), *held]
