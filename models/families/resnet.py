"""ResNet: an image classifier of convolutions and batch normalisation (inference)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from iree_pilot.models import fields as shared
from iree_pilot.models.spec import MOST_LAYERS, Field, ModelSpec, Preset

if TYPE_CHECKING:
    from torch import nn

    from iree_pilot.models.traceable import Traceable

SPECS = (
    ModelSpec(
        name="resnet",
        help="ResNet image classifier",
        build=f"{__name__}:build",
        architectures=("ResNetForImageClassification",),
        fields=(
            Field(
                name="block",
                default="basic",
                choices=("basic", "bottleneck"),
                help="layer type",
                config="layer_type",
            ),
            Field(
                name="depth",
                default=1,
                help="blocks in each of the four stages",
                max=MOST_LAYERS,
                config="depths",
            ),
            Field(
                name="width",
                default=16,
                help="channels after the stem; doubled by each stage",
                config="embedding_size",
            ),
            Field(name="image", default=64, help="height and width in pixels", min=32),
            Field(name="classes", default=10, help="number of classes", min=2, config="num_labels"),
            Field(name="batch", default=1, help="images at once"),
            shared.dtype(),
        ),
        presets=(
            Preset(name="tiny", values={}, help="4 basic blocks, 16 channels", parameters=310_746),
            Preset(
                name="small",
                values={"depth": 2, "width": 64, "image": 112, "classes": 1000},
                help="ResNet-18 at half its resolution",
                parameters=11_689_512,
            ),
        ),
    ),
)


def build(fields: dict[str, Any], seed: int, model: nn.Module | None = None) -> Traceable:
    """transformers' ResNetForImageClassification: pixels [batch, 3, image, image] -> logits."""
    import torch
    from transformers import ResNetConfig, ResNetForImageClassification

    from iree_pilot.models.traceable import DTYPES, made, single

    width = fields["width"]
    config = ResNetConfig(
        embedding_size=width,
        hidden_sizes=[width, 2 * width, 4 * width, 8 * width],
        depths=[fields["depth"]] * 4,
        layer_type=fields["block"],
        num_labels=fields["classes"],
    )
    shape = fields["batch"], 3, fields["image"], fields["image"]
    kind, dtype = ResNetForImageClassification, fields["dtype"]
    with made(kind, config, dtype, seed, model=model) as (root, _):
        pixels = torch.randn(shape, dtype=DTYPES[dtype])
    return single(root, {"pixel_values": pixels}, ("logits",))
