"""Gemma 3 whole, as its published checkpoints are: vision tower, projector and text decoder.

The functions are those of the families `gemma3` and `gemma3-vision`, of one model and one set of
weights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from iree_pilot.models import siglip
from iree_pilot.models.families import gemma, gemma_vision
from iree_pilot.models.spec import ModelSpec, Preset, Value

if TYPE_CHECKING:
    from torch import nn

    from iree_pilot.models.traceable import Traceable

(_TEXT,) = (spec for spec in gemma.SPECS if spec.name == "gemma3")
(_VISION,) = gemma_vision.SPECS
_OWN = {field.name for field in _TEXT.fields}


def _full(name: str) -> dict[str, Value]:
    return _VISION.preset(name).values | _TEXT.preset(name).values


SPECS = (
    ModelSpec(
        name="gemma3-multimodal",
        help="Gemma 3 with its vision tower: image features; prefill and decode with a KV cache",
        build=f"{__name__}:build",
        check=f"{__name__}:check",
        parts=("vision", "prefill", "decode"),
        chain="iree_pilot.models.chains:causal",
        architectures=("Gemma3ForConditionalGeneration",),
        fields=(
            *(
                msgspec.structs.replace(f, config=f"text_config.{f.config}") if f.config else f
                for f in _TEXT.fields
            ),
            *(field for field in _VISION.fields if field.name not in _OWN),
        ),
        presets=(
            Preset(
                name="tiny",
                # As wide as the decoder, the tower comes out wrong on Vulkan.
                values={"vision_width": 48},
                help="2 and 2 layers, width 64",
                parameters=191_776,
            ),
            Preset(
                name="4b",
                values=_full("4b"),
                help="Gemma 3 4B at full size, without weights",
                parameters=4_300_079_472,
                weights=False,
            ),
            Preset(
                name="12b",
                values=_full("12b"),
                help="Gemma 3 12B at full size, without weights",
                parameters=12_187_325_040,
                weights=False,
            ),
        ),
    ),
)


def check(fields: dict[str, Any]) -> str:
    """Reason to reject this combination of values, or ""."""
    return gemma_vision.check(fields) or gemma.check(fields)


def build(
    fields: dict[str, Any], seed: int, weights: bool = True, model: nn.Module | None = None
) -> Traceable:
    """transformers' Gemma3ForConditionalGeneration; its decoder is given tokens, no image.

    model: one with weights of its own.
    """
    import torch
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration

    from iree_pilot.models.causal import entries
    from iree_pilot.models.traceable import Traceable, made

    config = Gemma3Config(
        vision_config=siglip.config(fields),
        text_config=gemma.gemma3_config(fields).to_dict(),
        mm_tokens_per_image=fields["tokens"],
        image_token_index=fields["vocabulary"] - 1,
        attn_implementation=fields["attention"],
    )
    kind = Gemma3ForConditionalGeneration
    with made(kind, config, fields["dtype"], seed, weights=weights, model=model) as (root, mode):
        if model is not None:
            siglip.reactivate(root, fields)
        tokens = torch.randint(fields["vocabulary"], (fields["batch"], fields["length"] + 1))
        decoder = entries(root, tokens, dynamic=fields["dynamic"], context=fields["context"])
        vision = gemma_vision.features("vision", root, fields)
    return Traceable(root=root, functions=(vision, *decoder), mode=mode)
