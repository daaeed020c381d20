"""Qwen2.5-VL of the zoo: transformers' numbers part by part, image sizes, lengths."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from fake import checkpoints
from transformers import Qwen2_5_VLForConditionalGeneration

from iree_pilot.models.spec import resolve
from iree_pilot.models.traceable import EntryFunction, Traceable
from iree_pilot.models.weights.checkpoints import read
from iree_pilot.models.weights.load import traceable
from iree_pilot.pipeline.errors import UsageError


def build(**settings: str) -> Traceable:
    return resolve("qwen2.5-vl", settings).build()


def parts(made: Traceable) -> dict[str, EntryFunction]:
    return {entry.name: entry for entry in made.functions}


@torch.no_grad()
def outputs(entry: EntryFunction) -> tuple[torch.Tensor, ...]:
    return entry.module(*entry.args)


def untouched(made: Traceable) -> Any:
    """The same weights in a model that only transformers has made."""
    root: Any = made.root
    model = Qwen2_5_VLForConditionalGeneration(root.config).eval()
    model.load_state_dict(root.state_dict())
    return model


def prompt(made: Traceable, last: int) -> torch.Tensor:
    """The tokens of prefill and one more."""
    (tokens,) = parts(made)["embedding"].args
    return torch.cat([tokens, torch.full((1, 1), last)], 1)


SIZES = pytest.mark.parametrize(("height", "width"), [("84", "112"), ("56", "56"), ("140", "84")])


@SIZES
@torch.no_grad()
def test_an_images_features_are_transformers_own(height: str, width: str) -> None:
    made = build(height=height, image_width=width)
    grid = torch.tensor([(1, int(height) // 14, int(width) // 14)])
    vision = parts(made)["vision"]
    expected = untouched(made).get_image_features(vision.args[0], grid).pooler_output[0]
    assert torch.equal(outputs(vision)[0], expected)
    assert expected.shape == (int(height) * int(width) // 28**2, 64)


@SIZES
@torch.no_grad()
def test_chained_the_parts_give_the_logits_of_the_whole_model(height: str, width: str) -> None:
    made = build(height=height, image_width=width)
    chain = parts(made)
    model = untouched(made)
    # The token that decode was given is known by its embedding.
    distance = (model.get_input_embeddings().weight - chain["decode"].args[0][0]).abs().sum(-1)
    tokens = prompt(made, int(distance.argmin()))
    expected = model(
        input_ids=tokens,
        pixel_values=chain["vision"].args[0],
        image_grid_thw=torch.tensor([(1, int(height) // 14, int(width) // 14)]),
        mm_token_type_ids=(tokens == model.config.image_token_id).int(),
    ).logits
    prefill, decode = outputs(chain["prefill"]), outputs(chain["decode"])
    torch.testing.assert_close(prefill[0], expected[:, :-1], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(decode[0], expected[:, -1:], rtol=1e-4, atol=1e-6)
    for made, taken in zip(prefill[1:], chain["decode"].args[2:], strict=True):
        assert torch.equal(made, taken)


def test_windows_of_several_sizes_are_attended_each_alone() -> None:
    vision: Any = parts(build())["vision"].module
    assert sorted({b - a for a, b in zip(vision.windows, vision.windows[1:], strict=False)}) == [
        8,
        16,
    ]
    assert vision.indices["windows"].tolist() != sorted(vision.indices["windows"].tolist())
    assert vision.tower.fullatt_block_indexes == [1], "one layer of windows, one of all patches"


def test_an_images_positions_differ_by_axis_and_texts_do_not() -> None:
    positions = parts(build())["prefill"].args[1]
    equal = (positions[0] == positions[1]) & (positions[1] == positions[2])
    assert equal[0, :3].all()
    assert equal[0, -3:].all()
    assert not equal[0, 3:15].all()


@pytest.mark.parametrize("part", ["prefill", "decode"])
@torch.no_grad()
def test_a_dynamic_length_is_traced_for_lengths_other_than_the_examples(part: str) -> None:
    main = parts(build(dynamic="true"))[part]
    exported = torch.export.export(
        main.module, main.args, dynamic_shapes=main.dynamic_shapes, strict=bool(main.strict)
    )
    longer = parts(build(text="21"))[part].args
    expected = main.module(*longer)
    for found, wanted in zip(exported.module()(*longer), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)


@torch.no_grad()
def test_a_checkpoint_gives_what_transformers_gives(tmp_path: Path) -> None:
    directory = checkpoints.save("qwen2.5-vl", tmp_path, tied="true")
    stored = read(directory)
    assert "visual.blocks.0.attn.qkv.weight" in stored.tensors, "named as published ones are"
    made = parts(traceable(stored, {}, "", seed=0))
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(
        directory, attn_implementation="eager"
    )
    (features,) = outputs(made["vision"])
    expected = model.get_image_features(made["vision"].args[0], torch.tensor([(1, 6, 8)]))
    assert torch.equal(features, expected.pooler_output[0])
    embeddings, positions = made["prefill"].args
    logits = model(inputs_embeds=embeddings, position_ids=positions).logits
    torch.testing.assert_close(outputs(made["prefill"])[0], logits)


def test_the_full_size_has_names_and_no_values() -> None:
    made = resolve("qwen2.5-vl:3b", {}).build()
    assert not made.weights
    names = made.root.state_dict()
    assert "model.visual.blocks.31.attn.qkv.weight" in names
    assert "model.language_model.layers.35.self_attn.q_proj.bias" in names


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"heads": "8"}, "width=64, heads=8: multimodal rotary embedding divides a head by 16"),
        ({"vision_heads": "16"}, "rotary embedding divides a head by 4"),
        ({"kv_heads": "3"}, "heads=4 is no multiple of kv_heads=3"),
        ({"height": "70"}, "height=70 is no multiple of 28"),
        ({"window": "14"}, "window=14 is no multiple of 28"),
        ({"text": "116"}, "128 tokens of image and text do not fit context=128"),
    ],
)
def test_values_that_do_not_go_together_are_told(settings: dict[str, str], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        resolve("qwen2.5-vl", settings)
