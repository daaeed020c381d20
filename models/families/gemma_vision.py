"""Gemma 3's vision tower and its projector: pixels -> embeddings that the decoder takes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from iree_pilot.models import fields as shared
from iree_pilot.models import siglip
from iree_pilot.models.spec import Field, ModelSpec, Preset, Value

if TYPE_CHECKING:
    from torch import nn

    from iree_pilot.models.traceable import EntryFunction, Traceable

_FULL: dict[str, Value] = {**siglip.SO400M, "image": 896, "tokens": 256, "dtype": "bf16"}

SPECS = (
    ModelSpec(
        name="gemma3-vision",
        help="Gemma 3's vision tower (SigLIP) and projector",
        build=f"{__name__}:build",
        check=f"{__name__}:check",
        fields=(
            *siglip.FIELDS,
            Field(
                name="tokens",
                default=4,
                help="tokens that an image becomes, a square number",
                config="mm_tokens_per_image",
            ),
            Field(name="width", default=64, help="hidden size of the decoder projected to"),
            Field(name="batch", default=1, help="images at once"),
            shared.ATTENTION,
            siglip.GELU_FIELD,
            shared.dtype(),
        ),
        presets=(
            Preset(
                name="tiny", values={}, help="2 layers, width 64, 16 patches", parameters=109_952
            ),
            Preset(
                name="4b",
                values={**_FULL, "width": 2560},
                help="Gemma 3 4B's at full size, without weights",
                parameters=419_816_304,
                weights=False,
            ),
            Preset(
                name="12b",
                values={**_FULL, "width": 3840},
                help="Gemma 3 12B's at full size, without weights",
                parameters=421_290_864,
                weights=False,
            ),
        ),
    ),
)


def check(fields: dict[str, Any]) -> str:
    """Reason to reject this combination of values, or ""."""
    problem = siglip.check(fields)
    tokens, patches = fields["tokens"], fields["image"] // fields["patch"]
    side = math.isqrt(tokens)
    if not problem and (side**2 != tokens or patches % side):
        return f"{patches}x{patches} patches cannot be pooled to tokens={tokens} of equal size"
    return problem


def build(fields: dict[str, Any], seed: int, weights: bool = True) -> Traceable:
    """transformers' Gemma3Model without its language model: pixels -> [batch, tokens, width]."""
    from transformers import Gemma3Config, Gemma3Model

    from iree_pilot.models.traceable import Traceable, made

    config = Gemma3Config(
        vision_config=siglip.config(fields),
        text_config={
            "hidden_size": fields["width"],
            "num_hidden_layers": 1,
            "intermediate_size": 1,
            "num_attention_heads": 1,
            "num_key_value_heads": 1,
            "vocab_size": 1,
        },
        mm_tokens_per_image=fields["tokens"],
        attn_implementation=fields["attention"],
    )
    with made(Gemma3Model, config, fields["dtype"], seed, weights=weights) as (model, mode):
        del model.language_model
        entry = features("main", model, fields)
    return Traceable(root=model, functions=(entry,), mode=mode)


def features(name: str, model: nn.Module, fields: dict[str, Any]) -> EntryFunction:
    """A Gemma 3's image features as a function, of pixels from torch's random numbers."""
    import torch

    from iree_pilot.models.traceable import DTYPES, EntryFunction
    from iree_pilot.models.vision import Features

    shape = (fields["batch"], 3, fields["image"], fields["image"])
    return EntryFunction(
        name=name,
        module=Features(model).eval(),
        args=(torch.randn(shape, dtype=DTYPES[fields["dtype"]]),),
        input_names=("pixel_values",),
        output_names=("image_features",),
    )
