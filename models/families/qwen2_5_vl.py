"""Qwen2.5-VL: a vision tower with window attention, a decoder with multimodal rotary embedding."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from iree_pilot.models import fields as shared
from iree_pilot.models.spec import MOST_LAYERS, Field, ModelSpec, Preset
from iree_pilot.models.versions import Signature

if TYPE_CHECKING:
    from torch import nn

    from iree_pilot.models.traceable import Traceable

_MODULE = "transformers.models.qwen2_5_vl.modeling_qwen2_5_vl"
_PATCH = 14
_MERGE = 2

SPECS = (
    ModelSpec(
        name="qwen2.5-vl",
        help="Qwen2.5-VL: an image and text, decoded with a KV cache",
        build=f"{__name__}:build",
        check=f"{__name__}:check",
        parts=("vision", "embedding", "prefill", "decode"),
        chain="iree_pilot.models.chains:qwen2_5_vl",
        generates=4,
        architectures=("Qwen2_5_VLForConditionalGeneration",),
        needs=(
            Signature(
                function="transformers.vision_utils:get_vision_window_index",
                parameters=("grid_thw", "spatial_merge_size", "window_size", "patch_size"),
                release="5.23",
            ),
            Signature(
                function=f"{_MODULE}:Qwen2_5_VisionTransformerPretrainedModel.forward",
                parameters=("hidden_states", "grid_thw"),
                release="5.23",
            ),
            Signature(
                function=f"{_MODULE}:Qwen2_5_VLModel.get_rope_index",
                parameters=("input_ids", "mm_token_type_ids", "image_grid_thw"),
                release="5.23",
            ),
            Signature(
                function="transformers.cache_utils:DynamicCache.update",
                parameters=("key_states", "value_states", "layer_idx"),
                release="5.23",
            ),
        ),
        fields=(
            *shared.layers("decoder", "text_config."),
            shared.kv_heads("text_config."),
            *shared.tokens("text_config."),
            Field(
                name="tied",
                default=False,
                help="the output head is the embedding",
                config="tie_word_embeddings",
            ),
            Field(
                name="vision_layers",
                default=2,
                help="the tower's layers",
                max=MOST_LAYERS,
                config="vision_config.depth",
            ),
            Field(
                name="vision_width",
                default=32,
                help="the tower's hidden size",
                config="vision_config.hidden_size",
            ),
            Field(
                name="vision_hidden",
                default=64,
                help="size inside its feed-forward block",
                config="vision_config.intermediate_size",
            ),
            Field(
                name="vision_heads",
                default=2,
                help="its attention heads",
                config="vision_config.num_heads",
            ),
            Field(
                name="full_every",
                default=2,
                help="every n-th of its layers sees all patches",
                config="vision_config.fullatt_block_indexes",
            ),
            Field(
                name="window",
                default=56,
                help="height and width of the others' windows",
                config="vision_config.window_size",
            ),
            Field(name="height", default=84, help="of the image in pixels"),
            Field(name="image_width", default=112, help="of the image in pixels"),
            Field(name="text", default=6, help="text tokens around the image", min=2),
            Field(name="dynamic", default=False, help="the prompt's length is dynamic"),
            shared.ATTENTION,
            shared.dtype(),
        ),
        presets=(
            Preset(
                name="tiny",
                values={"dynamic": True},
                help="2 layers each, 6 windows, 12 tokens",
                parameters=190_688,
            ),
            Preset(
                name="3b",
                values={
                    "layers": 36,
                    "width": 2048,
                    "hidden": 11008,
                    "heads": 16,
                    "kv_heads": 2,
                    "vocabulary": 151936,
                    "context": 128000,
                    "tied": True,
                    "vision_layers": 32,
                    "vision_width": 1280,
                    "vision_hidden": 3420,
                    "vision_heads": 16,
                    "full_every": 8,
                    "window": 112,
                    "height": 224,
                    "image_width": 224,
                    "text": 64,
                    "dtype": "bf16",
                },
                help="Qwen2.5-VL 3B at full size, without weights",
                parameters=3_754_622_976,
                weights=False,
            ),
        ),
    ),
)


def check(fields: dict[str, Any]) -> str:
    """Reason to reject this combination of values, or ""."""
    for width, heads, step, what in (
        ("width", "heads", 16, "multimodal rotary embedding divides a head by 16"),
        ("vision_width", "vision_heads", 4, "rotary embedding divides a head by 4"),
    ):
        if fields[width] % (step * fields[heads]):
            return f"{width}={fields[width]}, {heads}={fields[heads]}: {what}"
    if fields["heads"] % fields["kv_heads"]:
        return f"heads={fields['heads']} is no multiple of kv_heads={fields['kv_heads']}"
    side = _PATCH * _MERGE
    for name in ("height", "image_width", "window"):
        if fields[name] % side:
            return f"{name}={fields[name]} is no multiple of {side}"
    tokens = fields["text"] + fields["height"] * fields["image_width"] // side**2
    if tokens >= fields["context"]:
        return f"{tokens} tokens of image and text do not fit context={fields['context']}"
    return ""


def build(
    fields: dict[str, Any], seed: int, weights: bool = True, model: nn.Module | None = None
) -> Traceable:
    """transformers' Qwen2_5_VLForConditionalGeneration, seeded or without values, in four parts.

    model: one with weights of its own.
    """
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode
    from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import (
        Qwen2_5_VLRotaryEmbedding,
        Qwen2_5_VLVisionRotaryEmbedding,
    )

    from iree_pilot.models.qwen2_5_vl_entries import Vision, entries, prompt
    from iree_pilot.models.traceable import DTYPES, Traceable, mode_of, seeded, unsettle

    grid = (fields["height"] // _PATCH, fields["image_width"] // _PATCH)
    mode = None if weights else FakeTensorMode(allow_non_fake_inputs=True)
    root: Any = model
    if root is not None:
        mode = mode_of(root)
    with mode or seeded(seed):
        if root is None:
            root = _random(fields)
            if weights:
                unsettle(root)
        values = 3 * 2 * _PATCH**2  # colours, frames, pixels
        pixel_values = torch.randn(grid[0] * grid[1], values, dtype=DTYPES[fields["dtype"]])
    # Rotary frequencies are constants of the program, no parameters: they need values always.
    inner, config = root.model, root.config
    inner.language_model.rotary_emb = Qwen2_5_VLRotaryEmbedding(config.text_config)
    inner.visual.rotary_pos_emb = Qwen2_5_VLVisionRotaryEmbedding(config.vision_config)
    with seeded(seed):
        vision = Vision(inner.visual, grid)
        tokens, positions = prompt(root, grid, fields["text"])
    with mode or seeded(seed):
        functions = entries(
            root,
            vision,
            pixel_values,
            tokens,
            positions,
            context=fields["context"] if fields["dynamic"] else None,
        )
    return Traceable(root=root, functions=functions, mode=mode)


def _random(fields: dict[str, Any]) -> Any:
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    from iree_pilot.models.traceable import DTYPES

    head = fields["width"] // fields["heads"]
    config = Qwen2_5_VLConfig(
        text_config={
            "num_hidden_layers": fields["layers"],
            "hidden_size": fields["width"],
            "intermediate_size": fields["hidden"],
            "num_attention_heads": fields["heads"],
            "num_key_value_heads": fields["kv_heads"],
            "vocab_size": fields["vocabulary"],
            "bos_token_id": None,
            "eos_token_id": None,
            "max_position_embeddings": fields["context"],
            "rms_norm_eps": 1e-6,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1_000_000.0,
                "mrope_section": [head // 8, head * 3 // 16, head * 3 // 16],
            },
        },
        vision_config={
            "depth": fields["vision_layers"],
            "hidden_size": fields["vision_width"],
            "intermediate_size": fields["vision_hidden"],
            "num_heads": fields["vision_heads"],
            "out_hidden_size": fields["width"],
            "patch_size": _PATCH,
            "spatial_merge_size": _MERGE,
            "window_size": fields["window"],
            "fullatt_block_indexes": list(
                range(fields["full_every"] - 1, fields["vision_layers"], fields["full_every"])
            ),
        },
        image_token_id=min(151655, fields["vocabulary"] - 1),
        tie_word_embeddings=fields["tied"],
        attn_implementation=fields["attention"],
    )
    model = Qwen2_5_VLForConditionalGeneration._from_config(config, dtype=DTYPES[fields["dtype"]])
    return model.eval().requires_grad_(False)
