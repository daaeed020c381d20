"""Comparison of a checkpoint's tensors with the model's: names, shapes, dtypes, before any use.

Nothing is loaded here. All faults are told at once, each with the file, the tensor, what was
expected, what was found, and the likely reason.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from iree_pilot.models.weights import reasons
from iree_pilot.models.weights.checkpoints import shortened
from iree_pilot.pipeline.errors import UsageError
from iree_pilot.pipeline.plural import count
from iree_pilot.pipeline.program.archive import ArchiveEntry
from iree_pilot.pipeline.program.program import ELEMENT_TYPES

Kind = Literal["missing", "shape", "dtype", "superfluous", "values"]

#: Advice for each kind of fault.
_ADVICE: dict[Kind, str] = {
    "missing": "What is missing: fetch or save it, or take the config or the fields of the model "
    "that was saved.",
    "shape": "Other shapes: take the config or the fields that say the sizes of these weights, or "
    "the weights of this model.",
    "dtype": "Other dtypes: --dtype converts floats; else save the weights in the dtype expected.",
    "superfluous": "What is superfluous: take the config or the fields of the model that has it, "
    "or save the weights without it.",
    "values": "NaN and infinite values: fetch the file again; if they are in the original too, "
    "take weights that were saved before they were.",
}


class TensorFault(msgspec.Struct, frozen=True, kw_only=True):
    """A tensor that is not as the model needs it. file: where it lies, or was looked for."""

    kind: Kind
    tensor: str
    file: str
    expected: str
    found: str
    reason: str = ""

    def __str__(self) -> str:
        reason = f" ({self.reason})" if self.reason else ""
        return (
            f"{Path(self.file).name}: {self.tensor}: expected {self.expected}, "
            f"found {self.found}{reason}"
        )


def compare(
    load: reasons.Load,
    *,
    ties: Iterable[Sequence[str]] = (),
    names: Mapping[str, str] | None = None,
    convert: bool = False,
) -> tuple[TensorFault, ...]:
    """Mismatches, in the order of the model's tensors, superfluous ones last.

    ties: groups of names that are one tensor in the model; one of a group is enough. names: the
    checkpoint's own names where they differ. convert: floats of 16 bits and more may differ in
    dtype, as the user asked for another one.
    """
    own = names or {}
    tied = {name: tuple(group) for group in ties for name in group}
    faults = []
    for name, want in load.wanted.items():
        got = load.tensors.get(name)
        if got is None:
            if not any(other in load.held for other in tied.get(name, ())):
                why = reasons.missing(name, load)
                faults.append(
                    TensorFault(
                        kind="missing",
                        tensor=name,
                        file=load.where,
                        expected=str(want),
                        found="nothing",
                        reason=why,
                    )
                )
            continue
        wrong, why = _misfit(name, want, got.entry, load, convert=convert)
        if wrong:
            faults.append(
                TensorFault(
                    kind="dtype" if want.shape == got.entry.shape else "shape",
                    tensor=own.get(name, name),
                    file=got.file,
                    expected=str(want),
                    found=str(got.entry),
                    reason=why,
                )
            )
    faults += [
        TensorFault(
            kind="superfluous",
            tensor=own.get(name, name),
            file=got.file,
            expected="nothing",
            found=str(got.entry),
            reason=reasons.superfluous(name, got.entry, load),
        )
        for name, got in load.tensors.items()
        if name not in load.wanted
    ]
    return tuple(faults)


def _misfit(
    name: str, want: ArchiveEntry, got: ArchiveEntry, load: reasons.Load, *, convert: bool
) -> tuple[bool, str]:
    if got.shape is None:  # an archive that tells sizes only
        element = ELEMENT_TYPES.get(want.dtype or "")
        size = element.size if element else 0
        return got.bytes != math.prod(want.shape or ()) * size, ""
    if want.shape != got.shape:
        return True, reasons.shape(name, want.shape or (), got.shape, load)
    if want.dtype == got.dtype or (convert and {want.dtype, got.dtype} <= reasons.CONVERTIBLE):
        return False, ""
    return True, reasons.dtype(name, want.dtype, got.dtype, load)


def refuse(faults: Sequence[TensorFault], what: str, where: str, total: int) -> None:
    """Raises UsageError with all that is wrong, if anything is."""
    if not faults:
        return
    lines = shortened([str(fault) for fault in faults])
    kinds = {fault.kind for fault in faults}
    raise UsageError(
        f"{where} does not fit {what}; {count(len(faults), 'tensor')} of {total} "
        f"{'are' if len(faults) > 1 else 'is'} wrong:\n  {lines}",
        advice="\n".join(
            ["Nothing was loaded.", *(said for kind, said in _ADVICE.items() if kind in kinds)]
        ),
    )
