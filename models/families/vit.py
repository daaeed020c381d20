"""ViT: an image classifier made of a transformer over patches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from iree_pilot.models import fields as shared
from iree_pilot.models.spec import Field, ModelSpec, Preset

if TYPE_CHECKING:
    from torch import nn

    from iree_pilot.models.traceable import Traceable

SPECS = (
    ModelSpec(
        name="vit",
        help="Vision Transformer image classifier",
        build=f"{__name__}:build",
        check=f"{__name__}:check",
        architectures=("ViTForImageClassification",),
        fields=(
            *shared.layers("encoder"),
            Field(name="image", default=32, help="height and width in pixels", config="image_size"),
            Field(
                name="patch",
                default=8,
                help="height and width of a patch in pixels",
                config="patch_size",
            ),
            Field(name="classes", default=10, help="number of classes", min=2, config="num_labels"),
            Field(name="batch", default=1, help="images at once"),
            shared.ATTENTION,
            shared.dtype(),
        ),
        presets=(
            Preset(name="tiny", values={}, help="2 layers, width 64, 17 tokens", parameters=81_226),
            Preset(
                name="small",
                values={
                    "layers": 4,
                    "width": 192,
                    "hidden": 768,
                    "heads": 3,
                    "image": 112,
                    "patch": 16,
                    "classes": 1000,
                },
                help="4 layers of ViT-Ti at half its resolution",
                parameters=2_130_280,
            ),
        ),
    ),
)


def check(fields: dict[str, Any]) -> str:
    """Reason to reject this combination of values, or ""."""
    heads = shared.multiple(fields, "width", "heads")
    return heads or shared.multiple(fields, "image", "patch")


def build(fields: dict[str, Any], seed: int, model: nn.Module | None = None) -> Traceable:
    """transformers' ViTForImageClassification: pixels [batch, 3, image, image] -> logits."""
    import torch
    from transformers import ViTConfig, ViTForImageClassification

    from iree_pilot.models.traceable import DTYPES, made, single

    config = ViTConfig(
        num_hidden_layers=fields["layers"],
        hidden_size=fields["width"],
        intermediate_size=fields["hidden"],
        num_attention_heads=fields["heads"],
        image_size=fields["image"],
        patch_size=fields["patch"],
        num_labels=fields["classes"],
        attn_implementation=fields["attention"],
    )
    shape = fields["batch"], 3, fields["image"], fields["image"]
    kind, dtype = ViTForImageClassification, fields["dtype"]
    with made(kind, config, dtype, seed, model=model) as (root, _):
        pixels = torch.randn(shape, dtype=DTYPES[dtype])
    return single(root, {"pixel_values": pixels}, ("logits",))
