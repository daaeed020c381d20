"""Qwen2.5-VL's parts as functions of tensors: vision tower, embedding, decoder with a KV cache.

What depends on an image's size alone is computed outside of the graph, by transformers' own
helpers: patch positions and the order of windows are inputs, the windows' lengths, which decide
shapes, are constants of the program. The caller puts the image's features in the place of its
placeholder tokens' embeddings.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import DynamicCache
from transformers.vision_utils import (
    get_vision_cu_seqlens,
    get_vision_position_ids,
    get_vision_window_index,
)

from iree_pilot.models.causal import OUTPUTS
from iree_pilot.models.layer import OfModel
from iree_pilot.models.traceable import EntryFunction


class Vision(nn.Module):
    """pixel_values [patches, values], positions [patches, 2] i64, windows [tokens] i64 -> features.

    Features are [tokens, width of the decoder]: one token for each 2 x 2 patches, in the image's
    order. `windows` is the order in which the tower computes them.
    """

    def __init__(self, tower: nn.Module, grid: tuple[int, int]) -> None:
        super().__init__()
        self.tower = tower
        config: Any = tower.config
        thw = torch.tensor([(1, *grid)])
        self.grid = grid
        # NumPy's, for the tower takes their differences and asks for these as lists: as tensors
        # they would be data to the tracer, and the windows' sizes unknown.
        self.frames = get_vision_cu_seqlens(thw).numpy()
        index, lengths = get_vision_window_index(
            thw, config.spatial_merge_size, config.window_size, config.patch_size
        )
        self.windows = lengths.numpy()
        self.indices = {
            "positions": get_vision_position_ids(thw, config.spatial_merge_size),
            "windows": index,
        }

    def forward(
        self, pixel_values: torch.Tensor, positions: torch.Tensor, windows: torch.Tensor
    ) -> tuple[torch.Tensor]:
        """The image's features, for the positions and windows of `indices`."""
        result = self.tower(
            pixel_values,
            torch.tensor([(1, *self.grid)]),
            position_ids=positions,
            window_index=windows,
            cu_seqlens=self.frames,
            cu_window_seqlens=self.windows,
        )
        return (result.pooler_output,)


class Embedding(nn.Module):
    """tokens [batch, length] i64 -> embeddings [batch, length, width]."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.embed_tokens = model.get_input_embeddings()

    def forward(self, tokens: torch.Tensor) -> tuple[torch.Tensor]:
        """The embeddings of text tokens."""
        return (self.embed_tokens(tokens),)


class VisionPrefill(OfModel):
    """embeddings [batch, length, width], positions [3, batch, length] i64 -> logits, keys, values.

    Positions are a token's place in time, height and width; for text all three are the same. Keys
    and values are [layers, batch, key-value heads, tokens, head size].
    """

    def forward(
        self, embeddings: torch.Tensor, positions: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Runs the decoder on a prompt, from an empty cache."""
        return _step(self.model, embeddings, positions, DynamicCache())


class VisionDecode(OfModel):
    """embeddings [batch, 1, width], positions [3, batch, 1] i64, keys, values -> the like."""

    def forward(
        self,
        embeddings: torch.Tensor,
        positions: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Runs the decoder on the token that follows those in the cache."""
        cache = DynamicCache()
        for layer in range(keys.shape[0]):
            cache.update(keys[layer], values[layer], layer)
        return _step(self.model, embeddings, positions, cache)


def _step(
    model: nn.Module, embeddings: torch.Tensor, positions: torch.Tensor, cache: Any
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    result = model(
        inputs_embeds=embeddings, position_ids=positions, past_key_values=cache, use_cache=True
    )
    keys = torch.stack([layer.keys for layer in cache.layers])
    values = torch.stack([layer.values for layer in cache.layers])
    return result.logits, keys, values


def prompt(model: Any, grid: tuple[int, int], text: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Random text around an image, and one token more: tokens [1, n + 1] and their positions.

    The image's tokens are higher than those of the text (`models.chains.qwen2_5_vl` relies on it).

    grid: the image's patches, height and width. text: how many tokens are text, half of them before
    the image. Positions are [3, 1, n + 1] i64, from the model's own helper.
    """
    config = model.config
    image = grid[0] * grid[1] // config.vision_config.spatial_merge_size**2
    before = text // 2
    vocabulary = min(config.text_config.vocab_size, config.image_token_id)
    tokens = torch.randint(vocabulary, (1, text + image + 1))
    types = torch.zeros_like(tokens)
    types[:, before : before + image] = 1
    tokens[types == 1] = config.image_token_id
    positions, _ = model.model.get_rope_index(tokens, types, torch.tensor([(1, *grid)]))
    return tokens, positions


@torch.no_grad()
def entries(
    model: Any,
    vision: Vision,
    pixel_values: torch.Tensor,
    tokens: torch.Tensor,
    positions: torch.Tensor,
    *,
    context: int | None,
) -> tuple[EntryFunction, ...]:
    """The four functions; the examples are one run, each taking what those before it gave.

    context: the prompt's length may be anything from 2 to what so many positions allow; None: it
    is that of the example.
    """
    embedding, prefill, decode = Embedding(model), VisionPrefill(model), VisionDecode(model)
    (features,) = vision(pixel_values, **vision.indices)
    (embeddings,) = embedding(tokens)
    image = (tokens == model.config.image_token_id)[..., None].expand_as(embeddings)
    embeddings = embeddings.masked_scatter(image, features.to(embeddings.dtype))
    examples: dict[str, tuple[nn.Module, dict[str, torch.Tensor]]] = {
        "vision": (vision, {"pixel_values": pixel_values, **vision.indices}),
        "embedding": (embedding, {"tokens": tokens[:, :-1].contiguous()}),
        "prefill": (
            prefill,
            {
                "embeddings": embeddings[:, :-1].contiguous(),
                "positions": positions[..., :-1].contiguous(),
            },
        ),
    }
    _, keys, values = prefill(*examples["prefill"][1].values())
    last = {"embeddings": embeddings[:, -1:].contiguous(), "positions": positions[..., -1:]}
    examples["decode"] = decode, {**last, "keys": keys, "values": values}
    outputs = {"vision": ("features",), "embedding": ("embeddings",)}
    shapes: dict[str, Any] = {}
    if context is not None:
        length = torch.export.Dim("length", min=2, max=context)
        # What is embedded is a prompt, or one token that was decoded.
        text = torch.export.Dim("text", min=1, max=context)
        cached = torch.export.Dim("cached", min=2, max=context - 1)
        shapes = {
            "embedding": ({1: text},),
            "prefill": ({1: length}, {2: length}),
            "decode": (None, None, {3: cached}, {3: cached}),
        }
    return tuple(
        EntryFunction(
            name=name,
            module=module.eval(),
            args=tuple(example.values()),
            input_names=tuple(example),
            output_names=outputs.get(name, OUTPUTS),
            dynamic_shapes=shapes.get(name),
            # As in iree_pilot.models.causal: only strict export takes decode's dynamic length.
            strict=context is not None and name == "decode",
        )
        for name, (module, example) in examples.items()
    )
