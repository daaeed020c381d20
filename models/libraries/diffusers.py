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

#: Conditions of one width: the fields of which one has it, and the sizes before it.
_OF_WIDTH: dict[str, tuple[Any, ...]] = {
    "pooled_projections": ("pooled_projection_dim", 1),
    "pooled_text_emb": ("cond_embed_dim", 1),
    "proj_embedding": ("embedding_proj_dim|embedding_dim", 1),
    "clip_text_pooled": ("clip_text_pooled_in_channels", 1, 1),
}


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
        (
            n
            for n in ("sample", "hidden_states", "latents", "x", "image", "input_ids")
            if n in taken
        ),
        None,
    )
    if main is None:
        raise UsageError(
            f"{request.text}: {type(model).__name__} takes {', '.join(taken)}, for which no "
            "examples are made",
            advice="Write model.py with model() and inputs(), and name that file.",
        )
    named = ("in_channels", "num_channels", "sample_channels", "encoder_in_channels")
    channels = int(rules.size_of(named, config) or 4)
    frames = int(rules.size_of(("video_length", "num_frames"), config) or _FRAMES)
    prompt = _prompt(taken, config)
    own = config.get("sample_size")
    sides = ((own,) if isinstance(own, int) else ()) + _SIDES
    for side in dict.fromkeys(sides):
        grid = side // 4
        tokens = grid**2 * (frames if "num_frames" in taken else 1)
        shapes: tuple[tuple[int, ...], ...] = (
            (1, channels, side, side),  # an image
            (1, channels, frames, side, side),  # a video
            (1, frames, channels, side, side),
            (1, tokens, channels),
            (1, channels, side * side),  # a sound
        )
        if main == "input_ids":
            shapes = ((1, grid, grid),)
        elif width := rules.size_of(("embedding_dim",), config):
            shapes = (*shapes, (1, int(width)))
        places = _places(taken, grid, frames)
        for shape in shapes:
            values = torch.randn(shape)
            if main == "input_ids":
                values = torch.randint(int(config.get("codebook_size") or rules.VOCABULARY), shape)
            given = {main: values, **prompt, **places, **_steps(taken, config)}
            yield given
            if "timestep" in taken:
                yield {**given, "timestep": torch.tensor(1)}
                yield {**given, "timestep": torch.tensor([10.0])}
            if len(shape) == 5 and (words := prompt.get("encoder_hidden_states")) is not None:
                each = words.expand(frames, -1, -1).clone()  # for each of the frames
                yield {**given, "encoder_hidden_states": each}


def _prompt(taken: Any, config: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Outputs of encoders of text, and other conditions."""
    found = {}
    length = int(
        rules.size_of(("max_text_seq_length", "text_len", "num_embeddings"), config) or _PROMPT
    )
    width = rules.size_of(
        (
            "encoder_hid_dim",
            "caption_channels",
            "joint_attention_dim",
            "encoder_hidden_size",
            "cross_attention_dim",
            "text_embed_dim",
            "context_dim",
            "caption_projection_dim",
            "text_dim",
            "cap_feat_dim",
            "encoder_dim",
            "embedding_dim",
        ),
        config,
    )
    width = width[0] if isinstance(width, list | tuple) else width
    if "encoder_hidden_states" in taken and (
        width or taken["encoder_hidden_states"].default is inspect.Parameter.empty
    ):
        found["encoder_hidden_states"] = torch.randn(1, length, int(width or rules.HIDDEN))
    if (
        "encoder_attention_mask" in taken
        and taken["encoder_attention_mask"].default is inspect.Parameter.empty
    ):
        found["encoder_attention_mask"] = torch.ones(1, length, dtype=torch.int64)
    if "encoder_hidden_states_mask" in taken:
        found["encoder_hidden_states_mask"] = torch.ones(1, length)
    for name, (field, *before) in _OF_WIDTH.items():
        wide = rules.size_of(field.split("|"), config)
        if name in taken and wide:
            found[name] = torch.randn(*before, int(wide))
    for of in ("", "_t5"):
        words, wide = (config.get(f"{n}{of}") for n in ("text_len", "cross_attention_dim"))
        if f"text_embedding_mask{of}" in taken and words and wide:
            found[f"text_embedding_mask{of}"] = torch.ones(1, words, dtype=torch.int64)
            found[f"encoder_hidden_states{of}"] = torch.randn(1, words, wide)
    if "micro_conds" in taken:
        number = int(config["micro_cond_embed_dim"]) // int(config["micro_cond_encode_dim"])
        found["micro_conds"] = torch.rand(1, number)
    if "image_meta_size" in taken:
        found |= {"image_meta_size": torch.rand(1, 6), "style": torch.tensor([0])}
    classes = rules.size_of(("num_class_embeds", "num_embeds_ada_norm"), config)
    if (
        "class_labels" in taken
        and classes
        and config.get("norm_type", "ada_norm_zero") == "ada_norm_zero"
    ):
        found["class_labels"] = torch.tensor([1])
    return found


def _places(taken: Any, grid: int, frames: int) -> dict[str, Any]:
    """Positions of the tokens of an image, of grid x grid, or of a video."""
    ids = {"img_ids": grid**2, "txt_ids": _PROMPT}
    found: dict[str, Any] = {
        n: torch.arange(3.0).expand(count, 3).clone() for n, count in ids.items() if n in taken
    }
    sizes = {"num_frames": frames, "height": grid, "width": grid}
    if sizes.keys() <= taken.keys():
        found |= sizes
    if "img_shapes" in taken:
        found["img_shapes"] = [(1, grid, grid)]
    return found


def _steps(taken: Any, config: dict[str, Any]) -> dict[str, torch.Tensor]:
    found = {}
    if "timestep" in taken:
        found["timestep"] = torch.tensor([10])
    if "timestep_ratio" in taken:
        found["timestep_ratio"] = torch.tensor([0.5])
    if "guidance" in taken and config.get("guidance_embeds"):
        found["guidance"] = torch.tensor([3.5])
    return found
