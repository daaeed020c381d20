"""Describes flow IR and makes modules of it, in child processes that may abort."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from iree_pilot.pipeline.processes import process, task
from iree_pilot.repro.differential.flow import MADE, Flow, FlowBatch, FlowCut, Interface, Lifted

T = TypeVar("T")

_EDIT = "iree_pilot.repro.differential.flow_edit"
_SECONDS = 600.0


class NotEditable(Exception):
    """The bindings do not take this flow IR."""


def describe(mlir: Path, directory: Path) -> Flow:
    """The dispatches of the flow IR in a file; their code goes to `directory`.

    Raises NotEditable.
    """
    return _call("described", FlowBatch(mlir=str(mlir)), Flow, directory)


def make(
    mlir: Path, cuts: Sequence[FlowCut], directory: Path, *, alone: bool = False
) -> tuple[Path, list[Interface]]:
    """(a module with a function for each cut, what these take). Raises NotEditable."""
    batch = FlowBatch(mlir=str(mlir), cuts=tuple(cuts), alone=alone)
    return directory / MADE, _call("made", batch, list[Interface], directory)


def lift(mlir: Path, body: int, index: int, directory: Path) -> tuple[Path, Lifted]:
    """(a dispatch as a program on tensors, what it is given). Raises NotEditable."""
    batch = FlowBatch(mlir=str(mlir), lift=(body, index))
    return directory / MADE, _call("lifted", batch, Lifted, directory)


def _call(function: str, batch: FlowBatch, reply: type[T], directory: Path) -> T:
    limits = process.Limits(seconds=_SECONDS)
    done = task.call(f"{_EDIT}:{function}", batch, reply, directory, limits=limits)
    if done.reply is None:
        raise NotEditable(done.why)
    return done.reply
