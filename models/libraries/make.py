"""The model of a library as a traceable one; imports torch, and of libraries the one asked for."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from iree_pilot.models.libraries import directories, trial
from iree_pilot.models.libraries.request import request
from iree_pilot.models.traceable import EntryFunction, Traceable
from iree_pilot.pipeline.errors import UsageError

#: Names of images, videos and sounds among the arguments of models.
_SENSED = re.compile(
    r"(pixel_values|image_patches|images?|videos?|input_features|input_values|audio_?values|audios?)"
    r"(_videos|_images)?$"
)


def traceable(
    text: str,
    named: tuple[str, str],
    settings: Mapping[str, Any],
    seed: int,
    given: Sequence[torch.Tensor] = (),
    path: str | None = None,
) -> Traceable:
    """The model that `named` says, as (library, name), with inputs that PyTorch runs it with.

    given: the user's inputs, in the order of its own; () where it has to have some of its own.
    path: the directory of the checkpoint that it is.

    Raises UsageError for a name that the library does not have, for fields that the model does not,
    and where PyTorch runs nothing that was tried.
    """
    library, name = named
    held = directories.read(Path(path)) if path else None
    asked = request(text, library, name, settings, held)
    maker = importlib.import_module(f"{__package__}.{library}")
    what, attempts = maker.attempts(asked)
    try:
        found = trial.first_that_runs(attempts, seed, given)
    except trial.NothingRuns as none:
        tried = "the inputs given" if given else "any of the configurations and inputs tried"
        raise UsageError(
            f"{text}: PyTorch does not run {what} with {tried}: {none}",
            advice="Give inputs with --input, change fields with --set, or write model.py with "
            "model() and inputs().",
        ) from none
    count = sum(p.numel() for p in found.model.parameters())
    weights = "without values" if found.mode else "seeded random weights"
    sized = library in ("timm", "torchvision")  # a model of these has the size of its name
    size = "full size" if asked.full or sized else "small configuration"
    if held:
        size, weights = "of its checkpoint", "its weights"
    entry = EntryFunction(
        name="main", module=found.model, args=(), kwargs=found.inputs, strict=None
    )
    made = Traceable(
        root=found.model,
        functions=(entry,),
        mode=found.mode,
        notes=(
            f"{what} of {library}: {size}, {count:,} parameters, {weights}",
            *_not_given(found.model, found.inputs),
        ),
    )
    if held is None:
        return made
    from iree_pilot.models.libraries.stocked import stocked

    return stocked(made, held, asked)


def _not_given(model: nn.Module, given: Mapping[str, Any]) -> list[str]:
    """A line on images and sounds that the model takes, and that no inputs were made for."""
    taken = inspect.signature(model.forward).parameters
    left = [name for name in taken if _SENSED.match(name) and name not in given]
    if not left or any(_SENSED.match(name) for name in given):
        return []
    names = ", ".join(left)
    return [f"run without {names}: what takes them is not in the program; give them in a model.py"]
