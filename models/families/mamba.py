"""Mamba: a stack of selective state-space layers, the scan unrolled over the length."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from iree_pilot.models import fields as shared
from iree_pilot.models.spec import MOST_LAYERS, Field, ModelSpec, Preset

if TYPE_CHECKING:
    from iree_pilot.models.traceable import Traceable

SPECS = (
    ModelSpec(
        name="mamba",
        help="Mamba state-space model over a whole prompt",
        build=f"{__name__}:build",
        fields=(
            Field(name="layers", default=2, help="layers", max=MOST_LAYERS),
            Field(name="width", default=32, help="hidden size"),
            Field(name="state", default=8, help="size of a channel's state"),
            Field(name="rank", default=4, help="rank of the time steps' projection"),
            Field(name="vocabulary", default=256, help="tokens that exist", min=2),
            shared.BATCH,
            Field(name="length", default=8, help="tokens in a sequence", min=2),
            shared.dtype(),
        ),
        presets=(Preset(name="tiny", values={}, help="2 layers, width 32", parameters=25_568),),
    ),
)


def build(fields: dict[str, Any], seed: int) -> Traceable:
    """transformers' MambaModel: tokens [batch, length] i64 -> [batch, length, width]."""
    import torch
    from transformers import MambaConfig, MambaModel

    from iree_pilot.models.traceable import made, single

    config = MambaConfig(
        num_hidden_layers=fields["layers"],
        hidden_size=fields["width"],
        state_size=fields["state"],
        time_step_rank=fields["rank"],
        vocab_size=fields["vocabulary"],
        residual_in_fp32=False,  # else the results would be f32 whatever the weights' dtype
        use_cache=False,
    )
    with made(MambaModel, config, fields["dtype"], seed) as (root, _):
        tokens = torch.randint(fields["vocabulary"], (fields["batch"], fields["length"]))
    return single(root, {"input_ids": tokens}, ("last_hidden_state",))
