"""A family's functions, chained, generate what transformers generates with the same weights."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from torch import nn

from iree_pilot.models.chains import Inputs, causal, greedy
from iree_pilot.models.spec import referred, resolve
from iree_pilot.models.traceable import Traceable
from iree_pilot.pipeline.frontends.pytorch.torch_chain import Modules
from iree_pilot.pipeline.frontends.reference.widening import NotEvaluable, Precisely

STEPS = 6


Steps = list[tuple[Any, list[int]]]


def chained(made: Traceable, chain: str, **options: Any) -> Steps:
    """(logits, tokens) of each step."""
    modules = Modules({entry.name: entry.module for entry in made.functions})
    return [*greedy(referred(chain), modules, examples(made), STEPS, **options)]


def assert_same(found: Steps, expected: Steps) -> None:
    for (logits, tokens), (own, picked) in zip(found, expected, strict=True):
        assert tokens == picked
        np.testing.assert_allclose(logits, own, rtol=1e-5, atol=1e-5)


def examples(made: Traceable) -> Inputs:
    return {
        entry.name: dict(zip(entry.input_names, map(np.asarray, entry.args), strict=True))
        for entry in made.functions
    }


def untouched(made: Traceable) -> Any:
    """The same weights in a model that only transformers has made."""
    root: Any = made.root
    model = type(root)(root.config).eval()
    model.load_state_dict(root.state_dict())
    # Tiny vocabularies: an end of the text by chance would end the generation.
    model.generation_config.eos_token_id = None
    return model


def generated(made: Traceable, tokens: torch.Tensor, **inputs: Any) -> Steps:
    """What transformers' own `generate` finds, as `chained` has it."""
    found = untouched(made).generate(
        tokens,
        attention_mask=torch.ones_like(tokens),
        max_new_tokens=STEPS,
        do_sample=False,
        pad_token_id=0,
        return_dict_in_generate=True,
        output_logits=True,
        **inputs,
    )
    picked = found.sequences[:, tokens.shape[1] :].T.tolist()
    return [*zip(found.logits, picked, strict=True)]


def args(made: Traceable, part: str) -> tuple[torch.Tensor, ...]:
    return made.only(part).functions[0].args


@pytest.mark.parametrize("name", ["llama", "gemma", "gemma2", "gemma3"])
def test_a_language_model_generates_transformers_tokens(name: str) -> None:
    choice = resolve(name, {"batch": "2"})
    made = choice.build()
    (tokens,) = args(made, "prefill")
    expected = generated(made, tokens)
    assert_same(chained(made, choice.spec.chain), expected)


def test_qwen_generates_transformers_tokens_from_an_image() -> None:
    choice = resolve("qwen2.5-vl", {})
    made = choice.build()
    pixels, (tokens,) = args(made, "vision")[0], args(made, "embedding")
    root: Any = made.root
    image = (tokens == root.config.image_token_id).long()
    grid = torch.tensor([(1, 6, 8)])
    expected = generated(
        made, tokens, pixel_values=pixels, image_grid_thw=grid, mm_token_type_ids=image
    )
    assert_same(chained(made, choice.spec.chain), expected)


@pytest.mark.parametrize("name", ["paligemma", "paligemma2"])
def test_paligemma_generates_transformers_tokens_from_an_image(name: str) -> None:
    choice = resolve(name, {"gelu": "fused", "length": "9"})
    made = choice.build()
    (pixels,), (text,) = args(made, "vision"), args(made, "embed")
    root: Any = made.root
    patches = args(made, "prefill")[0].shape[1] - text.shape[1]
    tokens = torch.cat([torch.full((1, patches), root.config.image_token_id), text], 1)
    suffix = (torch.arange(tokens.shape[1]) >= patches + text.shape[1] // 2).long()[None]
    expected = generated(made, tokens, pixel_values=pixels, token_type_ids=suffix)
    assert_same(chained(made, choice.spec.chain), expected)


def test_a_run_that_is_forced_goes_on_from_other_tokens_than_its_own() -> None:
    made = resolve("llama", {}).build()
    own = chained(made, "iree_pilot.models.chains:causal")
    tokens = [picked for _, picked in own]
    assert_same(chained(made, "iree_pilot.models.chains:causal", forced=tokens), own)
    other = [[(t + 1) % 256] for (t,) in tokens]
    found = chained(made, "iree_pilot.models.chains:causal", forced=other)
    assert_same(found[:1], own[:1])
    assert all(
        np.abs(a - b).max() > 1e-3 for (a, _), (b, _) in zip(found[1:], own[1:], strict=True)
    )


class Doubling:
    """Functions on arrays: logits are one-hot of twice the token, the cache is what was called."""

    def __init__(self) -> None:
        self.reads = 0

    def call(self, function: str, *values: Any) -> tuple[Any, ...]:
        tokens, history = values[0], (*(values[1:] or ((),))[0], function)
        return np.eye(32)[tokens * 2 % 32], history

    def read(self, value: Any) -> Any:
        self.reads += 1
        assert isinstance(value, np.ndarray), "the cache was read"
        return value


def test_prefill_gives_the_first_token_decode_the_others_and_only_logits_are_read() -> None:
    parts = Doubling()
    inputs = {"prefill": {"tokens": np.array([[9, 1], [9, 3]])}}
    found = [tokens for _, tokens in greedy(causal, parts, inputs, 3)]
    assert found == [[2, 6], [4, 12], [8, 24]]
    assert parts.reads == 3


def test_narrow_tensors_pass_between_torch_and_arrays_unchanged() -> None:
    modules = Modules({"same": nn.Identity()})
    values = np.arange(6).reshape(2, 3).astype(ml_dtypes.bfloat16)
    (first, second) = modules.call("same", values)
    assert first.dtype == torch.bfloat16
    read = modules.read(torch.stack([first, second]))
    assert read.dtype == values.dtype
    assert np.array_equal(read, values)


class TestPrecisely:
    """Double precision for what is not an exported program."""

    def test_all_is_computed_in_double_precision_but_8_bit_roundings(self) -> None:
        x = torch.full((4,), 1 / 3)
        with Precisely() as mode:
            y = (x.to(torch.bfloat16) * 3 - 1).float()
            assert not mode.rounded
            z = (x * 100).to(torch.float8_e4m3fn).float()
        assert mode.rounded
        assert y.dtype == torch.float64
        assert float(y.abs().max()) == pytest.approx(abs(float(x[0].double() * 3 - 1)), abs=1e-16)
        assert z.tolist() == [32.0] * 4

    def test_a_perturbation_moves_only_what_is_rounded(self) -> None:
        x = torch.linspace(1, 2, 1000)
        with Precisely(perturbed=True):
            rounded = x.to(torch.float8_e4m3fn).float()
            kept = x * 1
        assert torch.equal(kept, x.double())
        flipped = rounded != x.to(torch.float8_e4m3fn).double()
        assert 0 < int(flipped.sum()) < 50

    def test_a_narrow_tensor_is_not_changed_behind_its_back(self) -> None:
        x = torch.zeros(2)
        with Precisely(), pytest.raises(NotEvaluable, match="writes into"):
            x.add_(1)
