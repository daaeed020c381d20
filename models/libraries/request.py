"""Request for a library's model: its name, size, dtype and fields; imports torch."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from iree_pilot.models.libraries import names
from iree_pilot.models.libraries.directories import Directory
from iree_pilot.models.libraries.trial import ModelTrial
from iree_pilot.models.traceable import DTYPES
from iree_pilot.models.weights.checkpoints import tensors
from iree_pilot.pipeline.errors import UsageError, nearest
from iree_pilot.pipeline.frontends.source import literal

#: Settings of every library's model, beside the fields of its configuration.
_OWN = {"size": ("small", "full"), "dtype": tuple(DTYPES)}
_COUNTS = {"batch": 2, "length": 16}

#: Ways to make a model and its inputs, the smallest first.
Attempts = Iterator[Callable[[], ModelTrial]]


@dataclass(frozen=True, kw_only=True)
class ModelRequest:
    """A model of a library. text: the source as the user wrote it. full: with the sizes that the
    library gives it. batch, length: of text. fields: what else the user set, as written.
    """

    text: str
    library: str
    name: str
    full: bool = False
    dtype: torch.dtype = torch.float32
    batch: int = 2
    length: int = 16
    fields: Mapping[str, str] = field(default_factory=dict)
    chosen: tuple[str, ...] = ()
    directory: Directory | None = None

    @property
    def made_in(self) -> torch.dtype:
        """The dtype that the model is made in: that of its checkpoint, or the one asked for."""
        if self.directory is None:
            return self.dtype
        held = {t.entry.dtype for f in self.directory.files for t in tensors(Path(f)).values()}
        floats = [name for name in DTYPES if name in held]
        said = str(self.directory.config.get("dtype") or self.directory.config.get("torch_dtype"))
        by_name = {str(dtype): dtype for dtype in DTYPES.values()}
        if len(floats) == 1:
            return DTYPES[floats[0]]
        return by_name.get(f"torch.{said.removeprefix('torch.')}", torch.float32)

    def unknown(self, what: str = "") -> UsageError:
        """The error for a name that is no model of the library."""
        return names.unknown(self.text, self.library, self.name, what)

    def no_field(self, name: str, known: list[str]) -> UsageError:
        """The error for a field that the model does not have."""
        return UsageError(
            f"{self.text} has no field {name!r}",
            advice=nearest(name, sorted({*known, *_OWN, *_COUNTS})),
        )

    def built(self, make: Any) -> nn.Module:
        """Module that a factory makes with the user's fields as keyword arguments.

        Raises UsageError for one that it does not take.
        """
        try:
            model: nn.Module = make(**{n: literal(word) for n, word in self.fields.items()})
            return model
        except TypeError as fault:
            unknown = re.search(r"unexpected keyword argument '(\w+)'", str(fault))
            if unknown is None or unknown[1] not in self.fields:
                raise
            with torch.device("meta"):
                kind = type(make())
            raise self.no_field(unknown[1], [*inspect.signature(kind).parameters]) from fault


def request(
    text: str,
    library: str,
    name: str,
    settings: Mapping[str, Any],
    directory: Directory | None = None,
) -> ModelRequest:
    """The request that the user's settings make. Raises UsageError for a value that none takes."""
    left = {key: str(value) for key, value in settings.items()}
    chosen = {key: left.pop(key, values[0]) for key, values in _OWN.items()}
    for key, value in chosen.items():
        if value not in _OWN[key]:
            raise UsageError(
                f"{key}={value}: no value of {key}", advice=f"{key} takes {'|'.join(_OWN[key])}."
            )
    counts = {}
    for key, usual in _COUNTS.items():
        word = left.pop(key, str(usual))
        if not word.isdigit() or not 0 < int(word) < 2**16:
            raise UsageError(
                f"{key}={word}: no value of {key}", advice=f"{key} takes a number from 1."
            )
        counts[key] = int(word)
    return ModelRequest(
        text=text,
        library=library,
        name=name,
        full=chosen["size"] == "full" or directory is not None,
        dtype=DTYPES[chosen["dtype"]],
        fields=left,
        chosen=tuple(settings),
        directory=directory,
        **counts,
    )
