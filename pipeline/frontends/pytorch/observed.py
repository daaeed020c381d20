"""What PyTorch computes with a model itself, which its exported program alone does not tell.

Runs in the tracing child, and for a module of the user's process there; imports torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.export import ExportedProgram

from iree_pilot.models.traceable import EntryFunction
from iree_pilot.pipeline.frontends.pytorch import explicit
from iree_pilot.pipeline.frontends.reference import draws, reference
from iree_pilot.pipeline.frontends.reference.drawing import trained

#: (args, kwargs) of a call.
Arguments = tuple[tuple[Any, ...], dict[str, Any]]


class Observed(NamedTuple):
    """A call of an entry's module. outputs: its tensors, flattened; unstable: which of them differ
    in another run with another seed. trains: it computes otherwise for being in training mode.

    replaced: names of tensors that it put into containers among its arguments; unreturned: of what
    it changes and no output holds. labels: of the entry. notes: for the user.
    """

    outputs: list[torch.Tensor]
    unstable: list[bool]
    trains: bool
    replaced: tuple[str, ...]
    unreturned: tuple[str, ...]
    labels: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def observe(
    entry: EntryFunction,
    program: ExportedProgram,
    given: Arguments,
    others: Arguments,
    *,
    seed: int,
) -> Observed:
    """Runs copies of an entry's module twice. others: `given` again, with tensors of its own."""
    changed = program.graph_signature.parameters_to_mutate.values()
    copy = draws.copied(entry.module, changed)
    before = reference.tensors(given)
    outputs = reference.eager(draws.copied(entry.module, changed), *given)
    again = draws.run(copy, *others, seed=seed + 1)
    return Observed(
        outputs=outputs,
        unstable=draws.differing(outputs, again),
        trains=trains(entry, program),
        replaced=explicit.replaced(entry, *given, [*before, *outputs]),
        unreturned=explicit.unreturned(entry, program),
        labels=entry.labels,
    )


def error(entry: EntryFunction) -> str:
    """PyTorch's own error when it runs an entry; "" if it runs, or is not known to fail for it."""
    try:
        with torch.no_grad():
            entry.module(*entry.args, **entry.kwargs)
    except Exception as fault:  # noqa: BLE001 - a model may raise anything
        said = f"{type(fault).__name__}: {fault}"
        return "" if no_kernel(said) or "memory" in said else said.split("\n")[0]
    return ""


def no_kernel(message: str) -> bool:
    """True if PyTorch lacks what would run an operation here, which says nothing of the model."""
    return message.startswith("NotImplementedError") or "not implemented for" in message


def trains(entry: EntryFunction, program: ExportedProgram) -> bool:
    """True if the entry computes something else because it is in training mode."""
    drawn = (name for names in draws.sources(program) for name in names)
    return draws.trains(entry.module) or (entry.module.training and any(map(trained, drawn)))


def save(seen: Observed, file: Path) -> None:
    """Writes what was seen to a file of PyTorch's."""
    torch.save(seen._asdict(), file)


def load(file: Path) -> Observed:
    """Reads it again."""
    return Observed(**torch.load(file, weights_only=True))
