"""A mixture of experts: Mixtral's sparse feed-forward block."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from iree_pilot.models import fields as shared
from iree_pilot.models.spec import MOST_LAYERS, Field, ModelSpec, Preset

if TYPE_CHECKING:
    from iree_pilot.models.traceable import Traceable

SPECS = (
    ModelSpec(
        name="mixtral-moe",
        help="Mixtral's block of experts, of which each token uses a few",
        build=f"{__name__}:build",
        check=f"{__name__}:check",
        fields=(
            Field(name="width", default=32, help="hidden size"),
            Field(name="hidden", default=64, help="size inside an expert"),
            Field(name="experts", default=4, help="experts", min=2, max=MOST_LAYERS),
            Field(name="chosen", default=2, help="experts that a token uses"),
            shared.BATCH,
            Field(name="length", default=8, help="tokens in a sequence"),
            Field(
                name="dispatch",
                default="batched_mm",
                choices=("batched_mm", "eager"),
                help="batched_mm: each token's experts are gathered; eager: a loop over the "
                "experts that were hit, which does not trace: data decide its length",
            ),
            shared.dtype(),
        ),
        presets=(
            Preset(name="tiny", values={}, help="4 experts, 2 a token", parameters=24_704),
            Preset(
                name="eager",
                values={"dispatch": "eager"},
                help="a loop over experts: fails to trace in MixtralExperts",
                parameters=24_704,
            ),
        ),
    ),
)


def check(fields: dict[str, Any]) -> str:
    """Reason to reject this combination of values, or ""."""
    if fields["chosen"] > fields["experts"]:
        return f"chosen={fields['chosen']} is more than experts={fields['experts']}"
    return ""


def build(fields: dict[str, Any], seed: int) -> Traceable:
    """transformers' MixtralSparseMoeBlock: [batch, length, width] -> the same shape."""
    import torch
    from transformers import MixtralConfig
    from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock

    from iree_pilot.models.layer import First, function
    from iree_pilot.models.traceable import DTYPES, seeded

    config = MixtralConfig(
        hidden_size=fields["width"],
        intermediate_size=fields["hidden"],
        num_local_experts=fields["experts"],
        num_experts_per_tok=fields["chosen"],
        experts_implementation=fields["dispatch"],
    )
    dtype = DTYPES[fields["dtype"]]
    with seeded(seed), torch.no_grad():
        block = MixtralSparseMoeBlock(config)
        for parameter in block.parameters():  # transformers leaves them as the memory was
            parameter.normal_(0, fields["width"] ** -0.5)
        x = torch.randn(fields["batch"], fields["length"], fields["width"], dtype=dtype)
    return function(block, First(block.to(dtype)), {"hidden_states": x}, ("hidden_states",))
