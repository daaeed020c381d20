"""Sample inputs for a model by the names of its forward's parameters and its configuration.

No processors and tokenizers, which would need a hub: ids of the vocabulary, masks with padding on
the right, images and sound of the sizes that the configuration says. What a name does not settle
(which axis of a spectrogram is time) has alternatives, in the order of how common they are.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

Inputs = dict[str, Any]

#: Alternatives of one part that are tried together with those of the others.
_MOST_TRIED = 24
_AUDIO_SAMPLES, _FRAMES = 6400, 64


@dataclass(frozen=True, kw_only=True)
class Lengths:
    """batch: sequences of a text model, images or sounds of others. length: tokens of each."""

    batch: int = 2
    length: int = 16


def candidates(model: nn.Module, config: Any, lengths: Lengths) -> Iterator[Inputs]:
    """Inputs to try, the most telling first; tensors by the names of forward's parameters."""
    taken = inspect.signature(model.forward).parameters
    parts = [
        part
        for part in (
            _vision(taken, config, lengths),
            _audio(taken, config, lengths),
            _others(taken, config, lengths),
        )
        if part
    ]
    plain = "input_ids" in taken and not any(
        "pixel" in n or n.startswith("input_fe") for n in taken
    )
    batch = lengths.batch if plain or not parts else 1
    wanted = Lengths(batch=batch, length=lengths.length)
    for combination in itertools.islice(itertools.product(*parts), _MOST_TRIED):
        given: Inputs = {}
        for part in combination:
            given = part | given
        try:
            placeholders = _placeholders(model, config, given) if "input_ids" in taken else []
        except Exception:  # noqa: BLE001 - a model's own code about images that are not its own
            continue
        yield from _with_text(config, taken, given, wanted, placeholders)


def _with_text(
    config: Any, taken: Mapping[str, Any], given: Inputs, lengths: Lengths, placeholders: list[int]
) -> Iterator[Inputs]:
    """The inputs with those of text, where the model takes any."""
    if "input_ids" not in taken and "decoder_input_ids" not in taken:
        yield given
        return
    text = text_config(config)
    if "input_ids" in taken:
        books = getattr(text, "num_codebooks", None)  # a row for each, of a decoder of sound
        if isinstance(books, int) and "decoder_input_ids" not in taken and not placeholders:
            lengths = Lengths(batch=books, length=lengths.length)
        ids = token_ids(config, text, lengths, placeholders)
        given = {"input_ids": ids} | given
        mask = torch.ones_like(ids)
        if lengths.batch > 1:
            mask[-1, -(lengths.length // 5) :] = 0
            ids[mask == 0] = pad_of(text)
            ids[-1, -(lengths.length // 5) - 1] = _end(text, ids[-1, -(lengths.length // 5) - 1])
        if "attention_mask" in taken:
            given["attention_mask"] = mask
        if "token_type_ids" in taken and int(getattr(text, "type_vocab_size", 0) or 0) > 1:
            given["token_type_ids"] = torch.zeros_like(ids)
            given["token_type_ids"][:, ids.shape[1] // 2 :] = 1
        if "bbox" in taken:
            corners = torch.arange(ids.shape[1])[:, None] * torch.tensor([3, 2, 3, 2])
            given["bbox"] = (corners + torch.tensor([1, 1, 9, 9])).expand(*ids.shape, 4).clone()
        if "mm_token_type_ids" in taken:
            images = torch.eq(
                ids, -1 if (token := _placeholder_id(config, "image")) is None else token
            )
            given["mm_token_type_ids"] = images.long()
    if "decoder_input_ids" in taken and getattr(config, "is_encoder_decoder", False):
        decoder = getattr(config, "decoder", None)
        first = getattr(config, "decoder_start_token_id", None)
        own = text_config(decoder if hasattr(decoder, "vocab_size") else config)
        ids = token_ids(config, own, Lengths(batch=lengths.batch, length=8), [])
        ids[:, 0] = int(first) if isinstance(first, int) else ids[:, 0]
        given["decoder_input_ids"] = ids
    yield given
    if "decoder_input_ids" in given:
        yield {n: v for n, v in given.items() if n != "decoder_input_ids"}
    if "attention_mask" in given:
        yield {n: v for n, v in given.items() if n != "attention_mask"}


def text_config(config: Any) -> Any:
    """The configuration of the text: the whole one where it has no parts."""
    for name in ("text_config", "thinker_config", "decoder", "question_encoder", "text_encoder"):
        part = getattr(config, name, None)
        if hasattr(part, "vocab_size") or hasattr(part, "text_config"):
            return text_config(part)
    return config


def token_ids(config: Any, text: Any, lengths: Lengths, first: list[int]) -> torch.Tensor:
    """Ids [batch, len(first) + length] i64, without special tokens but `first` and the last."""
    size = int(getattr(text, "vocab_size", 0) or 0) or 256
    special = {v for c in (config, text) for v in _specials(c)}
    plain = torch.tensor([i for i in range(size) if i not in special] or [0])
    if len(plain) > 64:
        plain = plain[len(plain) // 8 :]
    ids = plain[torch.randint(len(plain), (lengths.batch, lengths.length))]
    ids[:, -1] = torch.tensor([_end(text, v) for v in ids[:, -1]])
    head = torch.tensor(first, dtype=torch.int64).expand(lengths.batch, len(first))
    return torch.cat([head, ids], 1)


def pad_of(text: Any) -> int:
    """The padding token, 0 where there is none."""
    pad = getattr(text, "pad_token_id", None)
    size = int(getattr(text, "vocab_size", 0) or 0)
    return int(pad) if isinstance(pad, int) and 0 <= pad < (size or 1) else 0


def _end(text: Any, otherwise: Any) -> int:
    end = getattr(text, "eos_token_id", None)
    end = end[0] if isinstance(end, list | tuple) and end else end
    size = int(getattr(text, "vocab_size", 0) or 0)
    return int(end) if isinstance(end, int) and 0 <= end < size else int(otherwise)


def _specials(config: Any) -> Iterator[int]:
    for name, value in vars(config).items():
        if "token" in name and ("_id" in name or "_index" in name):
            for one in value if isinstance(value, list | tuple) else (value,):
                if isinstance(one, int) and not isinstance(one, bool):
                    yield one


def _placeholder_id(config: Any, what: str) -> int | None:
    for name in (f"{what}_token_id", f"{what}_token_index", f"{what}_token"):
        for part in (config, getattr(config, "thinker_config", None), text_config(config)):
            value = getattr(part, name, None)
            if isinstance(value, int):
                return value
    return None


def _placeholders(model: nn.Module, config: Any, given: Inputs) -> list[int]:
    """Tokens in the place of the features of an image or a sound, as many as the model makes."""
    found: list[int] = []
    for what, feature in (
        ("image", "pixel_values"),
        ("audio", "input_features"),
        ("audio", "input_values"),
        ("video", "pixel_values_videos"),
    ):
        token = _placeholder_id(config, what)
        if feature not in given or token is None:
            continue
        start = _placeholder_id(config, "vision_start") if what == "image" else None
        found += [start] if start is not None else []
        found += [token] * _features(model, what, given)
    return found


def _features(model: nn.Module, what: str, given: Inputs) -> int:
    """Number of embeddings that the model makes of its images or sounds."""
    for owner in (model, getattr(model, "model", None), getattr(model, "thinker", None)):
        function = getattr(owner, f"get_{what}_features", None)
        if function is None:
            continue
        taken = inspect.signature(function).parameters
        with torch.no_grad():
            made = function(**{n: v for n, v in given.items() if n in taken})
        return _rows(made)
    raise ValueError(f"{type(model).__name__} does not tell how many tokens its {what} becomes")


def _rows(made: Any) -> int:
    """The number of embeddings in features as the models return them."""
    pooled = getattr(made, "pooler_output", None)
    made = made if pooled is None else pooled
    made = getattr(made, "last_hidden_state", made)
    if isinstance(made, list | tuple):
        first = made[0]
        if isinstance(first, torch.Tensor) and first.dim() >= 3:
            return _rows(first)
        return sum(_rows(one) for one in made)
    return int(made.numel() // made.shape[-1])


def _vision(taken: Mapping[str, Any], config: Any, lengths: Lengths) -> list[Inputs]:
    name = next(
        (
            n
            for n in ("pixel_values", "pixel_values_videos", "images", "image_pixel_values")
            if n in taken
        ),
        None,
    )
    if "grid_thw" in taken:
        name = name or next(iter(taken))
    if name is None:
        return []
    own = _part(
        config,
        (
            "vision_config",
            "image_config",
            "backbone_config",
            "encoder",
            "vision_encoder_config",
            "vision_encoder",
        ),
        "image_size",
        "patch_size",
        "num_channels",
        "depths",
    )
    channels = (
        _first(own, config, names=("num_channels", "in_channels", "image_channels", "in_chans"))
        or 3
    )
    channels = channels if isinstance(channels, int) else 3
    found: list[Inputs] = []
    patch = _pair(_first(own, config, names=("patch_size", "spatial_patch_size"))) or (16, 16)
    grids = next((n for n in ("image_grid_thw", "grid_thw") if n in taken), "")
    if grids and not name.endswith("videos"):
        merge = int(_first(own, config, names=("spatial_merge_size", "merge_size")) or 1)
        times = int(_first(own, config, names=("temporal_patch_size",)) or 1)
        side = 2 * merge
        row = channels * times * patch[0] * patch[1]
        grid = {grids: torch.tensor([[1, side, side]])}
        found.append({name: torch.randn(side * side, row), **grid})
        found.append({name: torch.randn(side * side, channels, patch[0], patch[1]), **grid})
        found.append({name: torch.randn(1, side * side, channels, patch[0], patch[1]), **grid})
    sizes = []
    said = _pair(
        _first(
            own,
            config,
            names=("image_size", "img_size", "input_size", "image_resolution", "resolution"),
        )
    )
    if said and min(said) > 1:
        sizes.append(said)
    sizes += [(64, 64), (128, 128), (224, 224)]
    sizes = list(dict.fromkeys(sizes))
    frames = _first(own, config, names=("num_frames", "frames_per_clip"))
    for height, width in sizes[:3]:
        image = {name: torch.randn(1, channels, height, width)}
        many = {name: torch.randn(1, int(frames or 2), channels, height, width)}
        if "image_sizes" in taken:
            sized = {"image_sizes": torch.tensor([[height, width]])}
            found += [many | sized, image | sized]
        first, second = (many, image) if frames or name.endswith("videos") else (image, many)
        found += [first, second]
        found.append({name: torch.randn(1, channels, int(frames or 2), height, width)})
        if "patch_attention_mask" in taken or "pixel_attention_mask" in taken:
            grid_h, grid_w = height // patch[0], width // patch[1]
            flat = {name: torch.randn(1, grid_h * grid_w, channels * patch[0] * patch[1])}
            shapes = {"spatial_shapes": torch.tensor([[grid_h, grid_w]])}
            mask = {"pixel_attention_mask": torch.ones(1, grid_h * grid_w, dtype=torch.int64)}
            found.append(flat | mask | (shapes if "spatial_shapes" in taken else {}))
    rows = (sizes[0][0] // patch[0]) * (sizes[0][1] // patch[1])
    for tell in ("image_position_ids", "pixel_position_ids"):
        if tell in taken:
            where = torch.cartesian_prod(
                torch.arange(sizes[0][0] // patch[0]), torch.arange(sizes[0][1] // patch[1])
            )[None]
            found.insert(
                0, {name: torch.rand(1, rows, channels * patch[0] * patch[1]), tell: where}
            )
    if not _required(taken, name) and "input_ids" in taken:
        found.append({})
    return found


def _audio(taken: Mapping[str, Any], config: Any, lengths: Lengths) -> list[Inputs]:
    found: list[Inputs] = []
    own = _part(
        config,
        (
            "audio_config",
            "encoder_config",
            "speech_config",
            "audio_encoder_config",
            "encoder",
            "audio_encoder",
            "codec_config",
        ),
        "num_mel_bins",
        "input_feat_per_channel",
        "feature_projection_input_dim",
        "sampling_rate",
        "feature_size",
        "n_mels",
    )
    mel = int(
        _first(
            own,
            config,
            names=(
                "num_mel_bins",
                "input_feat_per_channel",
                "feature_projection_input_dim",
                "n_mels",
                "feat_dim",
                "model_in_dim",
                "input_dim",
                "feature_size",
                "input_size",
            ),
        )
        or 80
    )
    positions = _first(own, config, names=("max_source_positions",))
    frames = 2 * int(positions) if isinstance(positions, int) and positions <= 512 else _FRAMES
    for name in ("input_features", "spectrogram"):
        if name in taken:
            found += [
                {name: torch.randn(1, mel, frames)},
                {name: torch.randn(1, frames, mel)},
                {name: torch.randn(1, 1, mel, frames)},
                {name: torch.randn(1, 1, frames, mel)},
                {name: torch.randn(1, 1, 1001, mel)},
            ]
            for mask in ("feature_attention_mask", "input_features_mask"):
                if mask in taken:
                    plain = torch.ones(1, frames, dtype=torch.int64)
                    found = [
                        {**one, mask: plain if "attention" in mask else plain.bool()}
                        for one in found[:2]
                    ] + found
            if "is_longer" in taken:
                found = [
                    {**one, "is_longer": torch.tensor([[False]])} for one in found[::-1]
                ] + found
    if "input_values" in taken:
        sound = torch.randn(1, _AUDIO_SAMPLES)
        tall = int(_first(own, config, names=("max_length",)) or _FRAMES)
        channels = int(_first(own, config, names=("audio_channels", "num_channels")) or 1)
        waves: list[Inputs] = [
            {"input_values": sound},
            {"input_values": torch.randn(1, channels, _AUDIO_SAMPLES)},
            {"input_values": torch.randn(1, tall, mel)},
        ]
        if _first(config, names=("audio_channels",)):
            waves[0], waves[1] = waves[1], waves[0]
        if _first(config, names=("num_mel_bins",)) and _first(config, names=("max_length",)):
            waves = waves[2:] + waves[:2]
        found += waves
    if "waveform" in taken:
        found.append({"waveform": torch.randn(1, _AUDIO_SAMPLES)})
    if found and "input_ids" in taken and not any(_required(taken, n) for n in found[0]):
        found.append({})
    return found


def _others(taken: Mapping[str, Any], config: Any, lengths: Lengths) -> list[Inputs]:
    """Inputs that few families take: time series, decisions, regions of images."""
    batch, length = lengths.batch, lengths.length
    found: Inputs = {}
    if "past_values" in taken:
        steps = int(_first(config, names=("context_length",)) or 32)
        lags = _first(config, names=("lags_sequence",))
        steps += max(lags) if lags else 0
        channels = int(_first(config, names=("num_input_channels", "input_size")) or 1)
        values = torch.randn(batch, steps, channels)
        values = values[..., 0] if lags and channels == 1 else values
        found["past_values"] = values
        if "past_time_features" in taken:
            features = int(_first(config, names=("num_time_features",)) or 0)
            found["past_time_features"] = torch.randn(batch, steps, features)
            found["past_observed_mask"] = torch.ones_like(values)
            ahead = int(_first(config, names=("prediction_length",)) or 8)
            found["future_values"] = torch.randn(batch, ahead, *values.shape[2:])
            found["future_time_features"] = torch.randn(batch, ahead, features)
        elif "past_observed_mask" in taken or "past_values_mask" in taken:
            pass
        if "freq" in taken:
            found["freq"] = torch.zeros(batch, 1, dtype=torch.int64)
    if "returns_to_go" in taken:
        state, action = (int(_first(config, names=(n,)) or 4) for n in ("state_dim", "act_dim"))
        found |= {
            "states": torch.randn(batch, length, state),
            "actions": torch.randn(batch, length, action),
            "rewards": torch.randn(batch, length, 1),
            "returns_to_go": torch.randn(batch, length, 1),
            "timesteps": torch.arange(length).expand(batch, length).clone(),
            "attention_mask": torch.ones(batch, length, dtype=torch.int64),
        }
    if "visual_feats" in taken:
        wide = int(_first(config, names=("visual_feat_dim",)) or 2048)
        found |= {
            "visual_feats": torch.randn(batch, 4, wide),
            "visual_pos": torch.rand(batch, 4, 4),
        }
    if "visual_embeds" in taken:
        wide = int(_first(config, names=("visual_embedding_dim",)) or 512)
        found |= {
            "visual_embeds": torch.randn(batch, 4, wide),
            "visual_attention_mask": torch.ones(batch, 4),
            "visual_token_type_ids": torch.ones(batch, 4, dtype=torch.int64),
        }
    if "input_points" in taken:
        found |= {"input_points": torch.tensor([[[[8.0, 12.0]]]])}
    if "xpath_tags_seq" in taken:
        pass
    for name in taken:
        if _required(taken, name) and name.endswith("_input_ids"):
            found.setdefault(name, torch.randint(4, 64, (1, 8)))
        if _required(taken, name) and name.endswith(("_embeds", "hidden_states")):
            wide = int(_first(text_config(config), config, names=("hidden_size", "d_model")) or 64)
            found.setdefault(name, torch.randn(1, 8, wide))
    if not found:
        return []
    return [found]


def _part(config: Any, parts: tuple[str, ...], *names: str) -> Any:
    """The part of a configuration, or the whole, that has one of these fields."""
    for part in (getattr(config, name, None) for name in parts):
        if part is not None and any(getattr(part, name, None) is not None for name in names):
            return part
    if any(getattr(config, name, None) is not None for name in names):
        return config
    for part in vars(config).values():
        if hasattr(part, "to_dict") and any(
            getattr(part, name, None) is not None for name in names
        ):
            return part
    for part in vars(config).values():
        if hasattr(part, "to_dict"):
            inner = _part(part, parts, *names)
            if inner is not part or any(getattr(part, name, None) is not None for name in names):
                return inner
    return config


def _first(*configs: Any, names: tuple[str, ...]) -> Any:
    for config in configs:
        for name in names:
            value = getattr(config, name, None)
            if value is not None:
                return value
    return None


def _pair(value: Any) -> tuple[int, int] | None:
    if isinstance(value, list | tuple) and len(value) >= 2:
        return int(value[-2]), int(value[-1])
    if isinstance(value, list | tuple) and value:
        value = value[0]
    return (int(value), int(value)) if isinstance(value, int) else None


def _required(taken: Mapping[str, Any], name: str) -> bool:
    return name in taken and taken[name].default is inspect.Parameter.empty
