"""torchvision's models by name; imports torch and torchvision."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torchvision import models

from iree_pilot.models.libraries import trial
from iree_pilot.models.libraries.request import Attempts, ModelRequest
from iree_pilot.models.traceable import unsettle

#: Sides of images, the small ones first: most models take any from 64 on, some only their own.
_SIDES = (64, 96, 224, 299)


def attempts(request: ModelRequest) -> tuple[str, Attempts]:
    """(the name, ways to make the model). Raises UsageError for an unknown name or argument."""
    if request.name not in models.list_models():
        raise request.unknown()
    return request.name, iter([partial(_attempt, request)])


def _attempt(request: ModelRequest) -> trial.ModelTrial:
    make = partial(_made, request.name)
    model = request.built(make).eval().requires_grad_(False).to(request.dtype)
    unsettle(model)
    return trial.ModelTrial(model, _inputs(request))


def _made(name: str, **arguments: Any) -> torch.nn.Module:
    """The model without any weights from a hub."""
    backbone = {"weights_backbone"} & inspect.signature(
        models.get_model_builder(name)
    ).parameters.keys()
    make: Any = models.get_model
    model: torch.nn.Module = make(name, weights=None, **dict.fromkeys(backbone), **arguments)
    return model


def _inputs(request: ModelRequest) -> Iterator[dict[str, Any]]:
    task = models.get_model_builder(request.name).__module__.split(".")[2:]
    sides = _SIDES[2:] if request.full else _SIDES
    for side in (int(request.fields["image_size"]),) if "image_size" in request.fields else sides:
        if task[0] == "detection":
            yield {"images": [torch.rand(3, side, side)]}
        elif task[0] == "optical_flow":
            pair = (2 * torch.rand(2, 1, 3, max(side, 128), max(side, 128)) - 1).unbind()
            yield {"image1": pair[0], "image2": pair[1]}
        elif task[0] == "video":
            yield {"x": torch.randn(1, 3, 16, side, side)}
        else:
            yield {"x": torch.randn(1, 3, side, side)}
