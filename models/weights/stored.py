"""Tensors of a model that are used from the files that hold them, and the values of the others.

A file is used as it is where its tensor has the type and the layout that the program wants; IREE's
runtime takes several files. What must be converted is, alone, and only when its value is asked for.
Imports torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch

from iree_pilot.models.fp8 import codes_to_fnuz
from iree_pilot.models.traceable import Stored
from iree_pilot.models.weights.checkpoints import CheckpointTensor
from iree_pilot.models.weights.read import read
from iree_pilot.pipeline.errors import UsageError
from iree_pilot.pipeline.program.archive import ArchiveEntry
from iree_pilot.pipeline.program.program import ELEMENT_TYPES

_SCALES = ("weight_scale", "input_scale")


class StoredValues:
    """The values of a model's tensors by the model's names, converted to the types wanted.

    wanted, held: by the model's names. ties: groups of names of one tensor. codes: names of the
    weights of FP8 linears whose e4m3fn codes become e4m3fnuz; their scales then are doubled. made:
    gives the values that their file has in another form.
    """

    def __init__(
        self,
        wanted: Mapping[str, ArchiveEntry],
        held: Mapping[str, CheckpointTensor],
        ties: Iterable[Sequence[str]] = (),
        codes: Iterable[str] = (),
        made: Mapping[str, Callable[[], torch.Tensor]] | None = None,
    ) -> None:
        self._wanted, self._held = wanted, held
        self._codes, self._made = frozenset(codes), made or {}
        linears = [name.removesuffix("weight") for name in self._codes]
        self._doubled = {f"{linear}{scale}" for linear in linears for scale in _SCALES}
        self._ties = {name: tuple(group) for group in ties for name in group}

    def __call__(self, name: str) -> torch.Tensor:
        """A tensor's value, of the shape and dtype wanted. Raises UsageError beyond its range."""
        own, want = self._source(name), self._wanted[name]
        held = self._held[own]
        value = (self._made[own]() if own in self._made else read(held)).reshape(want.shape or ())
        dtype = getattr(torch, ELEMENT_TYPES[want.dtype or "f32"].torch)
        if value.dtype != dtype:
            value = value.to(dtype)
            if dtype.is_floating_point and not bool(torch.isfinite(value.float()).all()):
                raise UsageError(
                    f"{held.file}: {held.name}: values beyond the range of {dtype}",
                    advice="Choose a --dtype with more range (bf16, f32).",
                )
        if own in self._codes:
            return codes_to_fnuz(value)
        return value * 2 if own in self._doubled else value

    def stored(self) -> dict[str, Stored]:
        """The tensors that are used from their files, as no value of them is changed."""
        found = {}
        for name, want in self._wanted.items():
            own = self._source(name)
            changed = own in self._codes | self._doubled | self._made.keys()
            if changed or not _as_it_lies(want, self._held[own].entry):
                continue
            found[name] = Stored(self._held[own].file, self._held[own].name)
        return found

    def _source(self, name: str) -> str:
        """The name among those tied together under which a tensor is held."""
        return next(n for n in (name, *self._ties.get(name, ())) if n in self._held)


def _as_it_lies(want: ArchiveEntry, got: ArchiveEntry) -> bool:
    if want.dtype != got.dtype or want.shape is None or got.shape is None:
        return False
    return want.shape == got.shape or math.prod(want.shape) == math.prod(got.shape) == 1
