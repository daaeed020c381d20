"""PaliGemma's parts, chained, are transformers' own model; each is a function of its own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor
from transformers import PaliGemmaForConditionalGeneration

from iree_pilot.models.spec import resolve
from iree_pilot.models.traceable import Traceable

NAMES = ["paligemma", "paligemma2"]


def build(text: str, **settings: str) -> Traceable:
    return resolve(text, settings).build()


def args(traceable: Traceable, name: str) -> tuple[torch.Tensor, ...]:
    return traceable.only(name).functions[0].args


def call(traceable: Traceable, name: str, *given: torch.Tensor) -> tuple[torch.Tensor, ...]:
    with torch.no_grad():
        result: tuple[torch.Tensor, ...] = traceable.only(name).functions[0].module(*given)
    return result


def assert_near(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("image", ["56", "224"])
def test_the_chained_parts_are_the_untouched_model(name: str, image: str) -> None:
    traceable = build(name, image=image, batch="2", gelu="fused")
    own: Any = traceable.root
    model: Any = PaliGemmaForConditionalGeneration(own.config).eval()
    model.load_state_dict(own.state_dict())
    (pixels,), (text,) = args(traceable, "vision"), args(traceable, "embed")
    patches = (int(image) // 14) ** 2
    tokens = torch.cat([torch.full((2, patches), own.config.image_token_id), text], 1)
    suffix = (torch.arange(tokens.shape[1]) >= patches + text.shape[1] // 2).long().repeat(2, 1)
    with torch.no_grad():
        expected = model(
            input_ids=tokens, pixel_values=pixels, token_type_ids=suffix, use_cache=True
        )

    (features,), (embeds,) = call(traceable, "vision", pixels), call(traceable, "embed", text)
    assert_near(features, expected.image_hidden_states)
    _, mask, positions = args(traceable, "prefill")
    whole = torch.cat([features, embeds], 1)
    logits, keys, values = call(traceable, "prefill", whole, mask, positions)
    assert_near(logits, expected.logits)

    for step in range(1, 4):
        token = logits[:, -1:].argmax(-1)
        position = torch.full((2, 1), tokens.shape[1] + step)
        mask = torch.zeros(2, 1, 1, tokens.shape[1] + step)
        (embedded,) = call(traceable, "embed", token)
        logits, keys, values = call(traceable, "decode", embedded, mask, position, keys, values)
        with torch.no_grad():
            expected = model(
                input_ids=token, past_key_values=expected.past_key_values, use_cache=True
            )
        assert_near(logits, expected.logits)
    for i, layer in enumerate(expected.past_key_values.layers):
        assert_near(keys[i], layer.keys)
        assert_near(values[i], layer.values)


@pytest.mark.parametrize("name", NAMES)
def test_the_examples_of_the_parts_are_one_run(name: str) -> None:
    traceable = build(name)
    features = call(traceable, "vision", *args(traceable, "vision"))[0]
    embeds = call(traceable, "embed", *args(traceable, "embed"))[0]
    assert torch.equal(args(traceable, "prefill")[0], torch.cat([features, embeds], 1))
    cache = call(traceable, "prefill", *args(traceable, "prefill"))[1:]
    assert all(map(torch.equal, args(traceable, "decode")[3:], cache))


@pytest.mark.parametrize("part", ["vision", "embed", "prefill", "decode"])
def test_a_part_can_be_had_alone(part: str) -> None:
    traceable = resolve(f"paligemma2/{part}", {}).build()
    assert [f.name for f in traceable.functions] == [part]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("part", ["prefill", "decode"])
def test_a_hidden_token_and_a_position_matter(name: str, part: str) -> None:
    traceable = build(name)
    given = args(traceable, part)
    logits = call(traceable, part, *given)[0]
    mask = given[1].clone()
    mask[..., 0] = torch.finfo(mask.dtype).min
    for other in ((given[0], mask, *given[2:]), (*given[:2], given[2] * 2, *given[3:])):
        changed = call(traceable, part, *other)[0]
        assert (changed - logits).norm() / logits.norm() > 1e-3


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("part", ["embed", "prefill", "decode"])
def test_a_dynamic_length_is_traced_for_lengths_other_than_the_examples(
    name: str, part: str
) -> None:
    entry = build(name, dynamic="true").only(part).functions[0]
    exported = torch.export.export(
        entry.module, entry.args, dynamic_shapes=entry.dynamic_shapes, strict=bool(entry.strict)
    )
    for settings in ({"length": "3"}, {"length": "21", "image": "28"}):
        other = args(build(name, **settings), part)
        with torch.no_grad():
            found = exported.module()(*other)
            for got, want in zip(found, entry.module(*other), strict=True):
                assert_near(got, want)


def test_without_weights_parameters_are_names_and_constants_are_numbers() -> None:
    root = build("paligemma2:3b", layers="2", vision_layers="1").root
    assert all(isinstance(p, FakeTensor) for p in root.parameters())
    assert not any(isinstance(b, FakeTensor) for b in root.buffers())
