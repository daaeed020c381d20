"""Gemma's prefill and decode are transformers' own, whatever the window; caps and layers matter."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from torch._subclasses.fake_tensor import FakeTensor

from iree_pilot.models.spec import resolve
from iree_pilot.models.traceable import Traceable

KINDS = {"gemma": "GemmaForCausalLM", "gemma2": "Gemma2ForCausalLM", "gemma3": "Gemma3ForCausalLM"}
LATER = ["gemma2", "gemma3"]


def build(text: str, **settings: str) -> Traceable:
    return resolve(text, settings).build()


def call(traceable: Traceable, name: str, *args: torch.Tensor) -> tuple[torch.Tensor, ...]:
    entry = traceable.only(name).functions[0]
    with torch.no_grad():
        result: tuple[torch.Tensor, ...] = entry.module(*(args or entry.args))
    return result


def untouched(name: str, traceable: Traceable) -> Any:
    """transformers' model with the same weights, that nobody has written a mask for."""
    own: Any = traceable.root
    model = getattr(transformers, KINDS[name])(own.config).eval()
    model.load_state_dict(own.state_dict())
    return model


def assert_near(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def difference(one: Traceable, other: Traceable, name: str = "prefill") -> float:
    """Relative L2 of the logits of two models that have the same weights."""
    other.root.load_state_dict(one.root.state_dict())
    left, right = call(one, name)[0], call(other, name, *one.only(name).functions[0].args)[0]
    return float((left - right).norm() / left.norm())


@pytest.mark.parametrize(
    ("name", "settings"),
    [("gemma", {}), *((name, {"window": w}) for name in LATER for w in ("2", "4", "9", "64"))],
)
def test_prefill_and_decoded_steps_are_transformers_own(
    name: str, settings: dict[str, str]
) -> None:
    """transformers drops from a sliding layer's cache what the window has left; we keep it."""
    traceable = build(name, batch="2", layers="3", gelu="fused", **settings)
    model = untouched(name, traceable)
    (prompt,) = traceable.only("prefill").functions[0].args
    logits, keys, values = call(traceable, "prefill")
    with torch.no_grad():
        expected = model(prompt, use_cache=True)
    assert_near(logits, expected.logits)
    for _ in range(3):
        token = logits[:, -1:].argmax(-1)
        logits, keys, values = call(traceable, "decode", token, keys, values)
        with torch.no_grad():
            expected = model(token, past_key_values=expected.past_key_values, use_cache=True)
        assert_near(logits, expected.logits)
    for i, layer in enumerate(expected.past_key_values.layers):
        kept = layer.keys.shape[2]
        assert_near(keys[i][:, :, keys.shape[3] - kept :], layer.keys)
        assert_near(values[i][:, :, values.shape[3] - kept :], layer.values)
    assert keys.shape[3] == prompt.shape[1] + 3


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("gemma2", {"window": "64"}),
        ("gemma2", {"global_every": "3"}),
        ("gemma2", {"attention_cap": "50"}),
        ("gemma2", {"final_cap": "30"}),
        ("gemma3", {"window": "64"}),
        ("gemma3", {"global_every": "3"}),
        ("gemma3", {"rope_factor": "1"}),
    ],
)
@pytest.mark.parametrize("part", ["prefill", "decode"])
def test_what_sets_the_later_ones_apart_changes_their_numbers(
    name: str, settings: dict[str, str], part: str
) -> None:
    assert difference(build(name), build(name, **settings), part) > 1e-3


@pytest.mark.parametrize("name", KINDS)
def test_gelu_written_out_is_the_fused_one(name: str) -> None:
    assert 0 < difference(build(name), build(name, gelu="fused")) < 1e-6


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("part", ["prefill", "decode"])
def test_a_dynamic_length_is_traced_for_lengths_other_than_the_examples(
    name: str, part: str
) -> None:
    entry = build(name, dynamic="true").only(part).functions[0]
    exported = torch.export.export(
        entry.module, entry.args, dynamic_shapes=entry.dynamic_shapes, strict=bool(entry.strict)
    )
    for length in ("3", "21"):
        other = build(name, length=length).only(part).functions[0].args
        with torch.no_grad():
            found = exported.module()(*other)
            for got, want in zip(found, entry.module(*other), strict=True):
                assert_near(got, want)


@pytest.mark.parametrize("settings", [{}, {"image": "224", "tokens": "16", "batch": "2"}])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_image_features_are_transformers_own(attention: str, settings: dict[str, str]) -> None:
    traceable = build("gemma3-vision", gelu="fused", attention=attention, **settings)
    own: Any = traceable.root
    model: Any = transformers.Gemma3Model(own.config).eval()
    missing, unexpected = model.load_state_dict(own.state_dict(), strict=False)
    assert not unexpected
    assert all(name.startswith("language_model.") for name in missing)
    (pixels,) = traceable.functions[0].args
    with torch.no_grad():
        expected = model.get_image_features(pixels).pooler_output
    assert torch.equal(call(traceable, "main")[0], expected)
    assert expected.shape == (pixels.shape[0], own.config.mm_tokens_per_image, 64)


def test_without_weights_the_vision_towers_positions_are_numbers() -> None:
    root: Any = build("gemma3-vision:4b", vision_layers="1").root
    assert root.vision_tower.embeddings.position_ids.tolist() == [list(range(4096))]


def test_without_weights_parameters_are_names_and_constants_are_numbers() -> None:
    traceable = build("gemma3:12b", layers="6")
    assert all(isinstance(p, FakeTensor) for p in traceable.root.parameters())
    tiny = build("gemma3", width="3840", heads="16", head_size="256", hidden="2", layers="6")
    constants = dict(tiny.root.named_buffers())
    for name, found in traceable.root.named_buffers():
        assert not isinstance(found, FakeTensor), name
        assert_near(found, constants[name].to(found.dtype))
