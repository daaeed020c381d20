"""Rules make a configuration of any family small, and what depends on one another still fits."""

from __future__ import annotations

from typing import Any

import pytest

from iree_pilot.models.libraries.rules import SIZES, VOCABULARY, Size, small

#: As configurations of families have them: a decoder, a mixture of experts, an older decoder, an
#: encoder of images, a pyramid of stages.
DECODER = {
    "vocab_size": 151936,
    "hidden_size": 4096,
    "intermediate_size": 22016,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "sliding_window": 4096,
    "rope_parameters": {"rope_type": "default", "mrope_section": [16, 24, 24]},
    "layer_types": ["sliding_attention", "sliding_attention", "full_attention"] * 10 + ["x", "x"],
    "pad_token_id": 151643,
    "eos_token_id": [151645, 151643],
    "use_cache": True,
}
EXPERTS = {
    "n_routed_experts": 256,
    "num_experts_per_tok": 8,
    "n_group": 8,
    "topk_group": 4,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "qk_head_dim": 192,
    "kv_lora_rank": 512,
}
OLDER = {"n_embd": 768, "n_head": 12, "n_layer": 12, "n_inner": 3072, "n_positions": 1024}
IMAGES = {
    "image_size": 224,
    "patch_size": 14,
    "num_channels": 3,
    "hidden_size": 768,
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "out_indices": [3, 6, 9, 12],
}
STAGES = {
    "image_size": 224,
    "hidden_sizes": (256, 512, 1024, 2048),
    "depths": (3, 4, 6, 3),
    "kernel_sizes": (7, 3, 3, 3),
}


def made(values: dict[str, Any], size: Size = SIZES[0]) -> dict[str, Any]:
    return values | small(values, {}, size)


class TestADecoder:
    def test_is_small_and_its_heads_fill_its_width(self) -> None:
        found = made(DECODER)
        assert found["hidden_size"] == found["num_attention_heads"] * found["head_dim"] == 64
        assert found["num_attention_heads"] % found["num_key_value_heads"] == 0
        assert found["num_key_value_heads"] == 2
        assert found["intermediate_size"] == 128

    def test_has_a_layer_of_each_kind(self) -> None:
        found = made(DECODER)
        assert found["layer_types"] == ["sliding_attention", "full_attention", "x"]
        assert found["num_hidden_layers"] == 3

    def test_has_tokens_that_its_vocabulary_has_each_another(self) -> None:
        found = made(DECODER)
        first, second = found["eos_token_id"]
        assert found["vocab_size"] == VOCABULARY > max(first, second)
        assert second == found["pad_token_id"] != first

    def test_keeps_its_rotary_sections_half_a_head(self) -> None:
        found = made(DECODER)
        assert sum(found["rope_parameters"]["mrope_section"]) == found["head_dim"] // 2

    def test_has_names_of_older_families_too(self) -> None:
        found = made(OLDER)
        assert found == {"n_embd": 64, "n_head": 4, "n_layer": 2, "n_inner": 128} | {
            "n_positions": 1024
        }

    def test_may_keep_what_a_head_holds(self) -> None:
        found = made(DECODER, Size(heads=False))
        assert (found["head_dim"], found["hidden_size"]) == (128, 256)
        assert found["num_attention_heads"] == 2


def test_experts_are_few_and_their_groups_have_enough() -> None:
    found = made(EXPERTS)
    assert found["n_routed_experts"] == 4
    assert found["n_routed_experts"] // found["n_group"] >= found["num_experts_per_tok"] == 2
    assert found["topk_group"] <= found["n_group"]
    assert found["qk_head_dim"] == found["qk_nope_head_dim"] + found["qk_rope_head_dim"]


def test_what_a_class_leaves_open_is_set_where_it_is_needed() -> None:
    assert made({"num_experts_per_tok": None})["num_experts_per_tok"] is None
    assert made({"num_experts_per_tok": None}, Size(unset=True))["num_experts_per_tok"] == 2


def test_an_image_has_whole_patches_and_a_backbone_as_many_outputs() -> None:
    found = made(IMAGES)
    assert found["image_size"] == 4 * found["patch_size"]
    assert found["num_channels"] == 3
    assert found["num_hidden_layers"] == 4
    assert found["out_indices"] == [1, 2, 3, 4]


def test_stages_keep_their_proportions_and_their_number() -> None:
    found = made(STAGES)
    assert found["hidden_sizes"] == (32, 64, 128, 256)
    assert found["depths"] == (2, 2, 2, 2)
    assert found["kernel_sizes"] == STAGES["kernel_sizes"]


@pytest.mark.parametrize("size", SIZES)
def test_no_size_makes_anything_larger(size: Size) -> None:
    for values in (DECODER, OLDER, STAGES):
        for name, value in small(values, {}, size).items():
            if isinstance(value, int):
                assert value < values[name], name  # type: ignore[operator]


def test_axes_of_a_rotary_embedding_share_a_smaller_head() -> None:
    found = made({"attention_head_dim": 128, "axes_dims_rope": (16, 56, 56)})
    assert (found["attention_head_dim"], found["axes_dims_rope"]) == (16, (4, 6, 6))


def test_the_parts_of_one_model_agree_on_tokens() -> None:
    ids: dict[int, int] = {}
    one = small({"image_token_id": 151655}, ids, SIZES[0])
    other = small({"image_token_index": 151655, "eos_token_id": 151645}, ids, SIZES[0])
    assert one["image_token_id"] == other["image_token_index"] != other["eos_token_id"]


def test_an_attentions_own_width_stays_a_multiple_of_the_layers() -> None:
    values = {"hidden_size": 3712, "attention_hidden_size": 7424, "num_attention_heads": 16}
    found = made({**values, "attention_head_dim": 464})
    assert found["attention_hidden_size"] == 2 * found["hidden_size"]
    assert found["attention_head_dim"] * found["num_attention_heads"] == 128


def test_a_kind_of_layer_may_be_kept_twice() -> None:
    values = {"num_hidden_layers": 6, "layer_types": ["a", "a", "a", "b", "a", "b"]}
    assert small(values, {}, Size(each=2))["layer_types"] == ["a", "a", "b", "b"]


def test_axes_share_the_head_that_width_and_heads_make() -> None:
    values = {"hidden_size": 2304, "num_attention_heads": 24, "axes_dim_rope": (32, 32, 32)}
    assert sum(made(values)["axes_dim_rope"]) == 16
