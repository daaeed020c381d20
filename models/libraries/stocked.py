"""A library's model with the weights of its checkpoint, checked before any is used.

Imports torch, and transformers for a model of its.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch

from iree_pilot.models.libraries.directories import Directory
from iree_pilot.models.libraries.request import ModelRequest
from iree_pilot.models.traceable import Traceable
from iree_pilot.models.weights import checkpoints, compare, load
from iree_pilot.models.weights.plan import MergedTensors
from iree_pilot.models.weights.read import not_finite
from iree_pilot.pipeline.errors import UsageError


def stocked(made: Traceable, held: Directory, request: ModelRequest) -> Traceable:
    """The model with the directory's weights, all or none.

    Names, shapes and dtypes are compared with the model's, and values looked at, as for a family of
    the zoo. What transformers merges or splits while it loads is checked by its own report. Raises
    UsageError with every tensor that does not fit.
    """
    if not made.weights:
        return load.referenced(made, held.files, request.text)
    try:
        notes = load.replace(made.root, held.files, request.text)
    except MergedTensors:
        notes = _loaded(made.root, held)
    if "dtype" in request.chosen:
        made = _converted(made, request)
    return dataclasses.replace(made, notes=(*made.notes, *notes))


def _loaded(model: Any, held: Directory) -> tuple[str, ...]:
    """Gives the model the values that transformers makes of the directory's tensors."""
    tensors = {n: t for file in held.files for n, t in checkpoints.tensors(Path(file)).items()}
    compare.refuse(not_finite(tensors), held.name, held.path, len(tensors))
    other, said = type(model).from_pretrained(
        held.path,
        config=model.config,  # not the directory's, which may name code of others
        dtype=next(model.parameters()).dtype,
        use_safetensors=True,
        local_files_only=True,
        output_loading_info=True,
    )
    wrong = [
        f"{key.removesuffix('_keys')}: {', '.join(map(str, sorted(said[key], key=str)[:5]))}"
        for key in ("missing_keys", "unexpected_keys", "mismatched_keys")
        if said[key]
    ]
    if wrong:
        raise UsageError(
            f"{held.path} does not fit {held.name}: {'; '.join(wrong)}",
            advice="The checkpoint does not fit its config.",
        )
    model.load_state_dict(other.state_dict())
    return ()


def _converted(made: Traceable, request: ModelRequest) -> Traceable:
    made.root.to(request.dtype)
    for name, tensor in made.root.state_dict().items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise UsageError(
                f"{request.text}: {name}: values beyond the range of {tensor.dtype}",
                advice="Choose a --dtype with more range (bf16, f32).",
            )
    (entry,) = made.functions
    kwargs = {
        n: v.to(request.dtype) if isinstance(v, torch.Tensor) and v.is_floating_point() else v
        for n, v in entry.kwargs.items()
    }
    return dataclasses.replace(made, functions=(dataclasses.replace(entry, kwargs=kwargs),))
