"""Comparison of a checkpoint's tensors with the model's: names, shapes, dtypes, before any use.

Nothing is loaded here. All faults are reported at once, each with the file, the tensor, what was
expected, what was found, and the likely reason.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections import Counter
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

Kind = Literal["missing", "prefix", "shape", "dtype", "superfluous", "values", "tied"]

#: Advice for each kind of fault.
_ADVICE: dict[Kind, str] = {
    "missing": "What is missing: fetch or save it, or take the config or the fields of the model "
    "that was saved.",
    "prefix": "Other names: save the weights under the names expected.",
    "shape": "Other shapes: take the config or the fields that say the sizes of these weights, or "
    "the weights of this model.",
    "dtype": "Other dtypes: --dtype converts floats; else save the weights in the dtype expected.",
    "superfluous": "What is superfluous: take the config or the fields of the model that has it, "
    "or save the weights without it.",
    "values": "NaN and infinite values: fetch the file again; if they are in the original too, "
    "take weights that were saved before they were.",
    "tied": "Tied tensors: set what ties them in the config, tie_word_embeddings, to false; or "
    "leave one of the two out.",
}


#: As many missing or superfluous tensors have a line each, whatever their reason.
_FEW = 3
#: Faults that are shown, of all kinds together.
_LINES = 20
#: Names that are looked at for a prefix, which all have if any has.
_SOME = 20


class TensorFault(msgspec.Struct, frozen=True, kw_only=True):
    """A tensor that is not as the model needs it. file: where it lies, or was looked for. tensors:
    of how many this is said."""

    kind: Kind
    tensor: str
    file: str
    expected: str
    found: str
    reason: str = ""
    tensors: int = 1

    def __str__(self) -> str:
        reason = f" ({self.reason})" if self.reason else ""
        file = "" if self.kind == "missing" else f"{Path(self.file).name}: "
        more = f" and {self.tensors - 1} more" if self.tensors > 1 else ""
        return f"{file}{self.tensor}{more}: expected {self.expected}, found {self.found}{reason}"


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
    load, own, prefixed = _without_prefix(load, names or {})
    tied = {name: tuple(group) for group in ties for name in group}
    faults = [prefixed] if prefixed else []
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


def _without_prefix(
    load: reasons.Load, own: Mapping[str, str]
) -> tuple[reasons.Load, Mapping[str, str], TensorFault | None]:
    """The load with the model's names where only one prefix differs in all of the checkpoint's,
    the checkpoint's own names, and the fault that tells it."""
    missing, extra = load.wanted.keys() - load.held.keys(), load.held.keys() - load.wanted.keys()
    for old, new in _prefixes(missing, extra):
        renamed = {f"{new}{n.removeprefix(old)}": n for n in extra if n.startswith(old)}
        fitting = {name: other for name, other in renamed.items() if name in missing}
        if old and new:  # two parts of a model may have names that are alike
            fitting = {
                name: other
                for name, other in fitting.items()
                if load.wanted[name].shape == load.held[other].shape
            }
        if len(fitting) < 2 or 2 * len(fitting) <= len(missing):
            continue
        back = {other: name for name, other in fitting.items()}
        tensors = {back.get(name, name): one for name, one in load.tensors.items()}
        first = next(name for name in load.wanted if name in fitting)
        known = {name: own.get(other, other) for name, other in fitting.items()}
        fault = TensorFault(
            kind="prefix",
            tensor=known[first],
            file=load.tensors[fitting[first]].file,
            expected=first,
            found=known[first],
            reason=(f"all have the prefix {old}" if old else f"all lack the prefix {new}")
            + (f" in place of {new}" if old and new else ""),
            tensors=len(fitting),
        )
        return dataclasses.replace(load, tensors=tensors), {**own, **known}, fault
    return load, own, None


def _prefixes(missing: Iterable[str], extra: Iterable[str]) -> Iterable[tuple[str, str]]:
    """(the checkpoint's prefix, the model's) that some names differ in; one may be ""."""
    found = dict[tuple[str, str], None]()
    for want, got in itertools.product(sorted(missing)[:_SOME], sorted(extra)):
        theirs, ours = got.split("."), want.split(".")
        while theirs and ours and theirs[-1] == ours[-1]:
            theirs.pop()
            ours.pop()
        # What follows a layer's number is no prefix of all.
        if not (theirs and ours and any(map(str.isdigit, [*theirs, *ours]))):
            found["".join(f"{t}." for t in theirs), "".join(f"{o}." for o in ours)] = None
    return found


def _alike(faults: Iterable[TensorFault]) -> list[TensorFault]:
    """The faults, with one in place of all that only differ in the tensor: dtypes, and many that
    are missing or superfluous for one reason."""
    faults = [*faults]
    groups: dict[object, list[TensorFault]] = {}
    alike = Counter((fault.kind, fault.file, fault.reason) for fault in faults if fault.reason)
    for number, fault in enumerate(faults):
        absent = fault.kind, fault.file, fault.reason
        if fault.kind in ("missing", "superfluous") and alike[absent] > _FEW:
            groups.setdefault(absent, []).append(fault)
            continue
        expected, found = (t.rpartition("x")[2] for t in (fault.expected, fault.found))
        dtypes = fault.file, expected, found, fault.reason
        groups.setdefault(dtypes if fault.kind == "dtype" else number, []).append(fault)
    return [
        group[0]
        if len(group) == 1
        else msgspec.structs.replace(
            group[0],
            expected=_of_all(group, group[0].expected),
            found=_of_all(group, group[0].found),
            tensors=len(group),
        )
        for group in groups.values()
    ]


def _of_all(group: Sequence[TensorFault], said: str) -> str:
    """A group's expectation or finding in its line: a dtype, nothing, or tensors of any type."""
    if group[0].kind == "dtype":
        return said.rpartition("x")[2]
    return said if said == "nothing" else "tensors"


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
    """Raises UsageError with all that is wrong, if anything is. total: how many tensors there are;
    what is missing is counted beside them."""
    if not faults:
        return
    kinds = {fault.kind for fault in faults}
    shown = _alike(faults)
    # What is missing does not push out of sight what was found in its place.
    order = dict.fromkeys(fault.kind for fault in shown)
    groups = [[str(fault) for fault in shown if fault.kind == kind] for kind in order]
    if len(shown) <= _LINES:
        groups = [[str(fault) for fault in shown]]
    lines = "\n  ".join(shortened(group, _LINES // len(groups)) for group in groups)
    wrong = sum(fault.tensors for fault in faults)
    total += sum(fault.kind == "missing" for fault in faults)
    raise UsageError(
        f"{where} does not fit {what}; {count(wrong, 'tensor')} of {total} "
        f"{'are' if wrong > 1 else 'is'} wrong:\n  {lines}",
        advice="\n".join(
            ["Nothing was loaded.", *(said for kind, said in _ADVICE.items() if kind in kinds)]
        ),
    )
