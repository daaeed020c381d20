"""SigLIP as the vision tower of larger models: its fields, their check, its configuration."""

from __future__ import annotations

from typing import Any

from iree_pilot.models import fields as shared
from iree_pilot.models.spec import MOST_LAYERS, Field, Value

#: transformers' names of one function: published models name the second.
GELU = {"written-out": "gelu_new", "fused": "gelu_pytorch_tanh"}
GELU_FIELD = Field(
    name="gelu",
    default="written-out",
    choices=tuple(GELU),
    help="fused: torch's operator, which tracing writes out if it is compiled with another "
    "sqrt(2/pi)",
)

FIELDS = (
    Field(
        name="vision_layers",
        default=2,
        help="layers of the vision tower",
        max=MOST_LAYERS,
        config="vision_config.num_hidden_layers",
    ),
    Field(
        name="vision_width",
        default=64,
        help="hidden size of the vision tower",
        config="vision_config.hidden_size",
    ),
    Field(
        name="vision_hidden",
        default=128,
        help="size inside its feed-forward blocks",
        config="vision_config.intermediate_size",
    ),
    Field(
        name="vision_heads",
        default=4,
        help="its attention heads",
        config="vision_config.num_attention_heads",
    ),
    Field(
        name="image",
        default=56,
        help="height and width in pixels",
        config="vision_config.image_size",
    ),
    Field(
        name="patch",
        default=14,
        help="height and width of a patch in pixels",
        config="vision_config.patch_size",
    ),
)
#: The tower of all published models, about 400 million parameters.
SO400M: dict[str, Value] = {
    "vision_layers": 27,
    "vision_width": 1152,
    "vision_hidden": 4304,
    "vision_heads": 16,
}


def reactivate(model: Any, fields: dict[str, Any]) -> None:
    """Gives a loaded model, tower and decoder alike, the form of GELU that `fields` says."""
    from transformers.activations import ACT2FN

    for module in model.modules():
        for name in ("act_fn", "activation_fn"):
            if name in module._modules:
                setattr(module, name, ACT2FN[GELU[fields["gelu"]]])


def check(fields: dict[str, Any]) -> str:
    """Reason to reject this combination of values, or ""."""
    heads = shared.multiple(fields, "vision_width", "vision_heads")
    return heads or shared.multiple(fields, "image", "patch")


def config(fields: dict[str, Any], **more: Any) -> dict[str, Any]:
    """The tower's part of a larger model's configuration."""
    return {
        "model_type": "siglip_vision_model",
        "num_hidden_layers": fields["vision_layers"],
        "hidden_size": fields["vision_width"],
        "intermediate_size": fields["vision_hidden"],
        "num_attention_heads": fields["vision_heads"],
        "image_size": fields["image"],
        "patch_size": fields["patch"],
        "hidden_act": GELU[fields["gelu"]],
        "vision_use_head": False,
        **more,
    }
