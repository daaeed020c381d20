"""Decompositions of operations that PyTorch itself has none for.

Each computes what the operation's own kernel computes, which a test checks on random and edge
values, and is used only if the compiler refuses the operation (see `gaps`).

Runs in the tracing child; imports torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch


def histc(x: torch.Tensor, bins: int = 100, min: float = 0, max: float = 0) -> Any:
    """Counts of elements in `bins` equal parts of [min, max], in x's dtype.

    transformers counts the tokens of each expert with it. Without bounds PyTorch takes those of the
    values, which nothing else here can.
    """
    if min >= max:
        return NotImplemented
    flat = x.reshape(-1)
    low, high = (torch.full((), edge, dtype=x.dtype) for edge in (min, max))
    place = ((flat - low) * bins / (high - low)).to(torch.int64).clamp(max=bins - 1)
    inside = torch.logical_and(flat >= low, flat <= high)
    hits = torch.logical_and(place[:, None] == torch.arange(bins), inside[:, None])
    return hits.sum(0).to(x.dtype)


def grouped_mm(input: torch.Tensor, weight: torch.Tensor, offs: torch.Tensor) -> Any:
    """Rows of an [S, K] input, each times the [K, N] weight of its group; zero behind the last.

    weight: [groups, K, N]. offs: [groups], where each group of rows ends. transformers' experts use
    it where PyTorch's own `_grouped_mm` does not take the dtype.
    """
    rows = torch.arange(input.shape[0])
    group = (rows[:, None] >= offs[None, :]).sum(1)
    own = group[None, :] == torch.arange(weight.shape[0])[:, None]
    return torch.where(own[:, :, None], torch.matmul(input[None], weight), 0).sum(0)


class Own(NamedTuple):
    """A decomposition, and its price; "" if it costs nothing to speak of."""

    decompose: Callable[..., Any]
    price: str = ""


#: By the name of the operation.
OWN: Mapping[str, Own] = {
    "aten.histc": Own(histc),
    "transformers.grouped_mm_fallback": Own(grouped_mm, "each expert computes all rows"),
}
