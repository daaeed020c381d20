"""timm's models by name; imports torch and timm."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from functools import partial
from typing import Any

import timm
import torch

from iree_pilot.models.libraries import trial
from iree_pilot.models.libraries.request import Attempts, ModelRequest
from iree_pilot.models.traceable import unsettle
from iree_pilot.pipeline.frontends.source import literal

#: Side of an image for a model that takes any: of its own size with --set size=full.
_SIDE = 96


def attempts(request: ModelRequest) -> tuple[str, Attempts]:
    """(the name, ways to make the model). Raises UsageError for an unknown name or argument."""
    if not timm.is_model(request.name):
        raise request.unknown()
    return request.name, iter([partial(_attempt, request)])


def _attempt(request: ModelRequest) -> trial.ModelTrial:
    make = partial(timm.create_model, request.name, pretrained=False)
    if request.directory is not None:
        own = request.directory.config
        known = {"num_classes": own.get("num_classes"), "global_pool": own.get("global_pool")}
        make.keywords.update({n: v for n, v in known.items() if v is not None})
        make.keywords.update(own.get("model_args") or {})
    model = request.built(make).eval().requires_grad_(False).to(request.made_in)
    unsettle(model)
    return trial.ModelTrial(model, _inputs(model, request))


def _inputs(model: Any, request: ModelRequest) -> Iterator[dict[str, Any]]:
    (taken, *_) = inspect.signature(model.forward).parameters
    own = dict(getattr(model, "pretrained_cfg", None) or {})
    channels, *sides = own.get("input_size") or (3, 224, 224)
    channels = int(request.fields.get("in_chans", channels))
    fixed = own.get("fixed_input_size") or request.full
    sizes = [tuple(sides)] if fixed else [(_SIDE, _SIDE), tuple(sides)]
    if "img_size" in request.fields:
        side = literal(request.fields["img_size"])
        sizes = [tuple(side) if isinstance(side, list | tuple) else (side, side)]
    for size in sizes:
        yield {taken: torch.randn(1, channels, *size)}
