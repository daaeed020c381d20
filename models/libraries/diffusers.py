"""diffusers' models by class; imports torch and diffusers."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from functools import partial
from typing import Any

import diffusers
import torch

from iree_pilot.models.libraries import rules, trial
from iree_pilot.models.libraries.request import Attempts, ModelRequest
from iree_pilot.models.traceable import unsettle
from iree_pilot.pipeline.errors import UsageError
from iree_pilot.pipeline.frontends.source import literal

#: Sides of latent images, frames of videos, tokens of a prompt.
_SIDES, _FRAMES, _PROMPT = (16, 32, 64), 5, 8


def attempts(request: ModelRequest) -> tuple[str, Attempts]:
    """(the class's name, ways to make the model). Raises UsageError for what it does not have."""
    kind = getattr(diffusers, request.name, None) if request.name.isidentifier() else None
    if not isinstance(kind, type) or not issubclass(kind, diffusers.ModelMixin):
        raise request.unknown("" if kind is None else ": it is no ModelMixin")
    usual = {
        n: None if p.default is p.empty else p.default
        for n, p in inspect.signature(kind).parameters.items()
        if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
    }
    given = {}
    for name, word in request.fields.items():
        if name not in usual:
            raise request.no_field(name, [*usual])
        given[name] = literal(word)
    sizes = (None,) if request.full else rules.SIZES
    return kind.__name__, (partial(_attempt, kind, usual, given, (s, request)) for s in sizes)


def _attempt(
    kind: Any,
    usual: dict[str, Any],
    given: dict[str, Any],
    how: tuple[rules.Size | None, ModelRequest],
) -> trial.ModelTrial:
    size, request = how
    own = request.directory.config if request.directory else {}
    small = {n: own[n] for n in usual if n in own}
    if size is not None:
        small = rules.small(usual, {}, size)
    arguments = {**small, **given}
    with torch.device("meta"):
        count = sum(p.numel() for p in kind(**arguments).parameters())
    if count > trial.MOST_PARAMETERS and size is not None:
        raise ValueError(f"a configuration of {count:,} parameters is not small")
    model = kind(**arguments).eval().requires_grad_(False).to(request.made_in)
    unsettle(model)
    return trial.ModelTrial(model, _inputs(model, request))


def _inputs(model: Any, request: ModelRequest) -> Iterator[dict[str, Any]]:
    taken = inspect.signature(model.forward).parameters
    config = dict(model.config)
    main = next(
        (n for n in ("sample", "hidden_states", "latents", "x", "image") if n in taken), None
    )
    if main is None:
        raise UsageError(
            f"{request.text}: {type(model).__name__} takes {', '.join(taken)}, for which no "
            "examples are made",
            advice="Write model.py with model() and inputs(), and name that file.",
        )
    channels = int(rules.size_of(("in_channels", "num_channels", "sample_channels"), config) or 4)
    prompt = _prompt(taken, config)
    own = config.get("sample_size")
    sides = ((own,) if isinstance(own, int) else ()) + _SIDES
    for side in dict.fromkeys(sides):
        tokens = (side // 4) ** 2
        shapes = {
            "image": (1, channels, side, side),
            "video": (1, channels, _FRAMES, side, side),
            "tokens": (1, tokens, channels),
            "sound": (1, channels, side * side),
        }
        for shape in shapes.values():
            ids = _positions(taken, tokens)
            yield {main: torch.randn(shape), **prompt, **ids, **_steps(taken, 1, config)}
            if "timestep" in taken and len(shape) == 3:
                yield {main: torch.randn(shape), **prompt, **ids, "timestep": torch.tensor(1)}


def _prompt(taken: Any, config: dict[str, Any]) -> dict[str, torch.Tensor]:
    """What a text encoder would give."""
    found = {}
    width = rules.size_of(
        (
            "encoder_hid_dim",
            "cross_attention_dim",
            "joint_attention_dim",
            "caption_channels",
            "text_embed_dim",
            "context_dim",
            "caption_projection_dim",
            "text_dim",
            "cap_feat_dim",
            "encoder_dim",
        ),
        config,
    )
    width = width[0] if isinstance(width, list | tuple) else width
    if "encoder_hidden_states" in taken and (
        width or taken["encoder_hidden_states"].default is inspect.Parameter.empty
    ):
        found["encoder_hidden_states"] = torch.randn(1, _PROMPT, int(width or rules.HIDDEN))
    pooled = rules.size_of(("pooled_projection_dim",), config)
    if pooled and "pooled_projections" in taken:
        found["pooled_projections"] = torch.randn(1, int(pooled))
    if (
        "encoder_attention_mask" in taken
        and taken["encoder_attention_mask"].default is inspect.Parameter.empty
    ):
        found["encoder_attention_mask"] = torch.ones(1, _PROMPT)
    if "encoder_hidden_states_mask" in taken:
        found["encoder_hidden_states_mask"] = torch.ones(1, _PROMPT)
    classes = rules.size_of(("num_class_embeds", "num_embeds_ada_norm"), config)
    if (
        "class_labels" in taken
        and classes
        and config.get("norm_type", "ada_norm_zero") == "ada_norm_zero"
    ):
        found["class_labels"] = torch.tensor([1])
    return found


def _positions(taken: Any, tokens: int) -> dict[str, torch.Tensor]:
    ids = {"img_ids": tokens, "txt_ids": _PROMPT}
    return {n: torch.arange(3.0).expand(count, 3).clone() for n, count in ids.items() if n in taken}


def _steps(taken: Any, batch: int, config: dict[str, Any]) -> dict[str, torch.Tensor]:
    found = {}
    if "timestep" in taken:
        found["timestep"] = torch.full((batch,), 10)
    if "guidance" in taken and config.get("guidance_embeds"):
        found["guidance"] = torch.full((batch,), 3.5)
    return found
