"""Generators that chain a family's functions into tokens, for PyTorch and for a device alike.

A chain is a generator: it calls the family's functions, yields the logits of each step, and is sent
the tokens to go on with. What a function returns stays where it was computed and is handed to the
next function as it is; only what the caller of the chain (logits), or the chain itself to put
embeddings side by side, reads is copied to the host. Needs neither torch nor IREE.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

#: Example inputs by function and name: the prompt that a chain starts from.
Inputs = Mapping[str, Mapping[str, NDArray[Any]]]


class Parts(Protocol):
    """The functions of one model, and the values that they compute, wherever those are."""

    def call(self, function: str, *values: Any) -> Sequence[Any]:
        """The results, for values that are arrays or results of earlier calls."""
        ...

    def read(self, value: Any) -> NDArray[Any]:
        """A result as an array."""
        ...


Chain = Callable[[Parts, Inputs], Generator[Any, NDArray[np.int64], None]]


def greedy(
    chain: Chain,
    parts: Parts,
    inputs: Inputs,
    steps: int,
    forced: Sequence[Sequence[int]] = (),
) -> Iterator[tuple[NDArray[Any], list[int]]]:
    """The last logits [batch, vocabulary] and their greedy tokens [batch], `steps` times.

    The first of them are of the prompt. forced: the tokens to go on with after each step instead of
    the greedy ones, so that two runs stay comparable where they pick differently.
    """
    run = chain(parts, inputs)
    logits = next(run)
    for step in range(steps):
        last = parts.read(logits)[:, -1]
        tokens = [int(t) for t in last.astype(np.float64).argmax(-1)]
        yield last, tokens
        if step + 1 < steps:
            following = forced[step] if forced else tokens
            logits = run.send(np.array(following, np.int64)[:, None])


def causal(parts: Parts, inputs: Inputs) -> Generator[Any, NDArray[np.int64], None]:
    """A language model: prefill(tokens), then decode(token, cache)."""
    logits, *cache = parts.call("prefill", inputs["prefill"]["tokens"])
    while True:
        token = yield logits
        logits, *cache = parts.call("decode", token, *cache)


def paligemma(parts: Parts, inputs: Inputs) -> Generator[Any, NDArray[np.int64], None]:
    """The image's features before the embedded text; what is generated sees all before it."""
    (features,) = parts.call("vision", *inputs["vision"].values())
    (embedded,) = parts.call("embed", *inputs["embed"].values())
    prompt = np.concatenate([parts.read(features), parts.read(embedded)], 1)
    mask, positions = inputs["prefill"]["mask"], inputs["prefill"]["positions"]
    logits, *cache = parts.call("prefill", prompt, mask, positions)
    batch, length, _ = prompt.shape
    for step in itertools.count(1):
        token = yield logits
        (embedded,) = parts.call("embed", token)
        seen = np.zeros((batch, 1, 1, length + step), mask.dtype)
        logits, *cache = parts.call("decode", embedded, seen, positions[:, -1:] + step, *cache)


def qwen2_5_vl(parts: Parts, inputs: Inputs) -> Generator[Any, NDArray[np.int64], None]:
    """The image's features in the place of its tokens, which are the highest of the prompt."""
    (features,) = parts.call("vision", *inputs["vision"].values())
    tokens = inputs["embedding"]["tokens"]
    (embedded,) = parts.call("embedding", tokens)
    prompt = parts.read(embedded).copy()
    prompt[tokens == tokens.max()] = parts.read(features)
    logits, *cache = parts.call("prefill", prompt, inputs["prefill"]["positions"])
    for step in itertools.count():
        token = yield logits
        (embedded,) = parts.call("embedding", token)
        positions = inputs["decode"]["positions"] + step
        logits, *cache = parts.call("decode", embedded, positions, *cache)
