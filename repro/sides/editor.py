"""Describes flow IR and makes modules of it, in child processes that may abort."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from iree_pilot.pipeline import process
from iree_pilot.pipeline.errors import EnvironmentFault
from iree_pilot.repro.sides.flow import (
    FLOW,
    INTERFACES,
    JOB,
    LIFTED,
    MADE,
    WHY,
    Batch,
    Cut,
    Flow,
    Interface,
    Lifted,
)

_SECONDS = 600.0


class NotEditable(Exception):
    """The bindings do not take this flow IR."""


def describe(mlir: Path, directory: Path) -> Flow:
    """The dispatches of the flow IR in a file; their code goes to `directory`.

    Raises NotEditable.
    """
    _run(Batch(mlir=str(mlir)), directory)
    return msgspec.json.decode((directory / FLOW).read_bytes(), type=Flow)


def make(
    mlir: Path, cuts: Sequence[Cut], directory: Path, *, alone: bool = False
) -> tuple[Path, list[Interface]]:
    """(a module with a function for each cut, what these take). Raises NotEditable."""
    _run(Batch(mlir=str(mlir), cuts=tuple(cuts), alone=alone), directory)
    interfaces = msgspec.json.decode((directory / INTERFACES).read_bytes(), type=list[Interface])
    return directory / MADE, interfaces


def lift(mlir: Path, body: int, index: int, directory: Path) -> tuple[Path, Lifted]:
    """(a dispatch as a program on tensors, what it is given). Raises NotEditable."""
    _run(Batch(mlir=str(mlir), lift=(body, index)), directory)
    return directory / MADE, msgspec.json.decode((directory / LIFTED).read_bytes(), type=Lifted)


def _run(batch: Batch, directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / WHY).unlink(missing_ok=True)
    (directory / JOB).write_bytes(msgspec.json.encode(batch))
    outcome = process.run(
        process.python("iree_pilot.repro.sides.edit", directory),
        stdout=directory / "stdout.txt",
        stderr=directory / "stderr.txt",
        limits=process.Limits(seconds=_SECONDS),
    )
    if outcome.ok:
        return
    why = directory / WHY
    if why.is_file():
        raise NotEditable(why.read_text())
    if outcome.ended_by == "exit":
        raise EnvironmentFault(
            f"the editor of flow IR ended with exit code {outcome.exit_code}",
            advice="`iree-pilot doctor` shows whether the compiler's bindings are installed.",
        )
    raise NotEditable(f"the compiler's bindings met {outcome.signal or outcome.ended_by}")
