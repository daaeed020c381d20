"""Key-value caches of transformers' models as containers of their tensors.

Else torch.export refuses a model that takes or returns one. transformers registers its
`DynamicCache` likewise (`transformers.integrations.executorch`), but makes one anew by
concatenating to empty tensors, constants that decomposing a program does not survive.

Imports transformers and torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch.utils import _pytree as pytree
from transformers.cache_utils import (
    DynamicCache,
    DynamicLayer,
    DynamicSlidingWindowLayer,
    EncoderDecoderCache,
)

#: Names of the parts of a cache, as transformers' registration has them.
_PARTS = ("key_cache", "value_cache")
#: Those of an encoder and decoder.
_CACHES = ("self_attention_cache", "cross_attention_cache")
#: Of each layer: whether it has tensors yet, and the size of its sliding window.
_Layout = tuple[tuple[bool, int | None], ...]


def register() -> None:
    """Registers the caches with PyTorch; the second call does nothing."""
    if DynamicCache not in pytree.SUPPORTED_NODES:
        _register(DynamicCache, _flattened, _cache)
    if EncoderDecoderCache not in pytree.SUPPORTED_NODES:
        _register(
            EncoderDecoderCache,
            lambda cache: ([getattr(cache, name) for name in _CACHES], (_CACHES, None)),
            lambda caches, _: EncoderDecoderCache(*caches),
        )


def _register(kind: type, flatten: Callable[[Any], Any], make: Callable[..., Any]) -> None:
    """Registers a class. flatten: its parts, and (their names, what else `make` takes)."""

    def keyed(cache: Any) -> tuple[list[Any], Any]:
        parts, context = flatten(cache)
        names = map(pytree.GetAttrKey, context[0])
        return list(zip(names, parts, strict=True)), context

    pytree.register_pytree_node(
        kind,
        flatten,
        make,
        serialized_type_name=f"transformers.cache_utils.{kind.__name__}",
        flatten_with_keys_fn=keyed,
    )


def _flattened(cache: Any) -> tuple[list[Any], tuple[Sequence[str], _Layout]]:
    """Keys and values of the layers. Raises RuntimeError for layers of another kind, whose state
    is not in these."""
    for layer in cache.layers:
        if type(layer) not in (DynamicLayer, DynamicSlidingWindowLayer):
            raise RuntimeError(
                f"a cache with layers of {type(layer).__name__} cannot be taken apart: the state "
                "of such a layer is more than its keys and values"
            )
    held = [layer for layer in cache.layers if layer.is_initialized]
    layout = tuple(
        (layer.is_initialized, getattr(layer, "sliding_window", None)) for layer in cache.layers
    )
    return [[x.keys for x in held], [x.values for x in held]], (_PARTS, layout)


def _cache(parts: Iterable[Any], context: tuple[Sequence[str], _Layout]) -> Any:
    keys, values = (iter(part) for part in parts)
    cache = DynamicCache()
    for filled, window in context[1]:
        layer = DynamicLayer() if window is None else DynamicSlidingWindowLayer(window)
        if filled:
            _fill(layer, next(keys), next(values))
        cache.layers.append(layer)
    return cache


def _fill(layer: Any, keys: torch.Tensor, values: torch.Tensor) -> None:
    layer.keys, layer.values = keys, values
    layer.dtype, layer.device = keys.dtype, keys.device
    layer.is_initialized = True
    if isinstance(layer, DynamicSlidingWindowLayer):
        layer.cumulative_length = keys.shape[-2]
