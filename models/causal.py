"""A causal language model as two functions, prefill and decode, with the KV cache as tensors.

The cache is a pair: keys and values, each [layers, batch, key-value heads, tokens, head size].
Prefill makes it; decode takes it and returns it one token longer. Nothing of the model is written
anew: transformers' own cache object is filled from the tensors and emptied into them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import DynamicCache

from iree_pilot.models.layer import OfModel
from iree_pilot.models.traceable import EntryFunction

INPUTS = {"prefill": ("tokens",), "decode": ("token", "keys", "values")}
OUTPUTS = ("logits", "keys", "values")


class Prefill(OfModel):
    """tokens [batch, length] i64 -> logits [batch, length, vocabulary], keys, values."""

    def forward(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Runs the model on a prompt, from an empty cache."""
        return _tokens(self.model, tokens, DynamicCache())


class Decode(OfModel):
    """token [batch, 1] i64, keys, values -> logits [batch, 1, vocabulary], keys, values."""

    def forward(
        self, token: torch.Tensor, keys: torch.Tensor, values: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Runs the model on the token that follows those in the cache."""
        return _tokens(self.model, token, _filled(keys, values))


class EmbeddedPrefill(OfModel):
    """inputs_embeds [batch, length, width], mask [batch, 1, length, length] (0, or the lowest
    number where nothing is seen), positions [batch, length] i64 -> as `Prefill`.
    """

    def forward(
        self, inputs_embeds: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Runs the model on an embedded prompt, from an empty cache."""
        return _embedded(self.model, inputs_embeds, mask, positions, DynamicCache())


class EmbeddedDecode(OfModel):
    """inputs_embeds [batch, 1, width], mask [batch, 1, 1, cached + 1], positions [batch, 1] i64,
    keys, values -> as `Decode`.
    """

    def forward(
        self,
        inputs_embeds: torch.Tensor,
        mask: torch.Tensor,
        positions: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Runs the model on the embedded token that follows those in the cache."""
        return _embedded(self.model, inputs_embeds, mask, positions, _filled(keys, values))


def _filled(keys: torch.Tensor, values: torch.Tensor) -> Any:
    cache = DynamicCache()
    for layer in range(keys.shape[0]):
        cache.update(keys[layer], values[layer], layer)
    return cache


def _embedded(
    model: nn.Module,
    embedded: torch.Tensor,
    mask: torch.Tensor,
    positions: torch.Tensor,
    cache: Any,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    logits = model(
        inputs_embeds=embedded,
        attention_mask=mask,
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
    ).logits
    return _with_cache(logits, cache)


def _tokens(
    model: nn.Module, tokens: torch.Tensor, cache: Any
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    config: Any = model.config
    masks = _masks(config.get_text_config(), tokens, cache)
    logits = model(
        input_ids=tokens, attention_mask=masks, past_key_values=cache, use_cache=True
    ).logits
    return _with_cache(logits, cache)


def _with_cache(
    logits: torch.Tensor, cache: Any
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    keys = torch.stack([layer.keys for layer in cache.layers])
    values = torch.stack([layer.values for layer in cache.layers])
    return logits, keys, values


def _masks(config: Any, tokens: torch.Tensor, cache: Any) -> dict[str, torch.Tensor] | None:
    """Masks by type of layer, for a model with sliding layers; None: the model makes its own.

    transformers' mask of a sliding window holds a constant `true`, which does not convert
    (`dense<true> : tensor<i1>`, iree-turbine 3.9.0). The cache here keeps all tokens for all
    layers, so the window is the mask's alone.
    """
    if "sliding_attention" not in (getattr(config, "layer_types", None) or ()):
        return None
    past, dtype = cache.get_seq_length(), config.dtype
    query = torch.arange(tokens.shape[1])[:, None] + past
    key = torch.arange(tokens.shape[1] + past)[None]
    hidden = torch.finfo(dtype).min
    full = torch.zeros(1, dtype=dtype).masked_fill(key > query, hidden)
    sliding = full.masked_fill(key <= query - config.sliding_window, hidden)
    return {"full_attention": full[None, None], "sliding_attention": sliding[None, None]}


def entries(
    model: nn.Module, tokens: torch.Tensor, *, dynamic: bool, context: int
) -> tuple[EntryFunction, EntryFunction]:
    """Prefill of all `tokens` [batch, length + 1] but the last, and decode of the last.

    Decode's example cache is what prefill returns, so the two examples are one run. dynamic: the
    length may be anything from 2 to what `context` positions allow.
    """
    prompt, token = tokens[:, :-1].contiguous(), tokens[:, -1:].contiguous()
    prefill, decode = Prefill(model).eval(), Decode(model).eval()
    with torch.no_grad():
        _, keys, values = prefill(prompt)
    shapes: dict[str, tuple[dict[int, Any] | None, ...]] = {}
    if dynamic:
        length = torch.export.Dim("length", min=2, max=context)
        cached = torch.export.Dim("cached", min=2, max=context - 1)
        shapes = {"prefill": ({1: length},), "decode": (None, {3: cached}, {3: cached})}

    def entry(name: str, module: nn.Module, *args: torch.Tensor) -> EntryFunction:
        return EntryFunction(
            name=name,
            module=module,
            args=args,
            input_names=INPUTS[name],
            output_names=OUTPUTS,
            dynamic_shapes=shapes.get(name),
            # Non-strict export of decode adds a guard on the order of the stacked cache's strides
            # that a dynamic length violates; strict export does not.
            strict=dynamic and name == "decode",
        )

    return entry("prefill", prefill, prompt), entry("decode", decode, token, keys, values)
