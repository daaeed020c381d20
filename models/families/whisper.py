"""Whisper's encoder: speech as mel frames -> hidden states."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from iree_pilot.models import fields as shared
from iree_pilot.models.spec import MOST_LAYERS, Field, ModelSpec, Preset

if TYPE_CHECKING:
    from iree_pilot.models.traceable import Traceable

SPECS = (
    ModelSpec(
        name="whisper-encoder",
        help="Whisper speech encoder",
        build=f"{__name__}:build",
        check=f"{__name__}:check",
        fields=(
            Field(name="layers", default=2, help="encoder layers", max=MOST_LAYERS),
            Field(name="width", default=64, help="hidden size", min=4),
            Field(name="hidden", default=128, help="size inside the feed-forward block"),
            Field(name="heads", default=4, help="attention heads"),
            Field(name="mels", default=16, help="mel frequency bins"),
            Field(name="positions", default=32, help="hidden states; each is made of two frames"),
            Field(name="batch", default=1, help="recordings at once"),
            shared.ATTENTION,
            shared.dtype(),
        ),
        presets=(
            Preset(name="tiny", values={}, help="2 layers, width 64", parameters=84_480),
            Preset(
                name="small",
                values={
                    "layers": 4,
                    "width": 384,
                    "hidden": 1536,
                    "heads": 6,
                    "mels": 80,
                    "positions": 250,
                },
                help="Whisper tiny for 5 seconds",
                parameters=7_728_384,
            ),
        ),
    ),
)


def check(fields: dict[str, Any]) -> str:
    """Reason to reject this combination of values, or ""."""
    if problem := shared.multiple(fields, "width", "heads"):
        return problem
    odd = f"width={fields['width']} is odd; positions are pairs of sine and cosine"
    return odd if fields["width"] % 2 else ""


def build(fields: dict[str, Any], seed: int) -> Traceable:
    """transformers' WhisperEncoder: [batch, mels, 2 * positions] -> [batch, positions, width]."""
    import torch
    from transformers import WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    from iree_pilot.models.traceable import DTYPES, made, single

    config = WhisperConfig(
        encoder_layers=fields["layers"],
        d_model=fields["width"],
        encoder_ffn_dim=fields["hidden"],
        encoder_attention_heads=fields["heads"],
        num_mel_bins=fields["mels"],
        max_source_positions=fields["positions"],
        attn_implementation=fields["attention"],
    )
    shape = fields["batch"], fields["mels"], 2 * fields["positions"]
    with made(WhisperEncoder, config, fields["dtype"], seed) as (root, _):
        frames = torch.randn(shape, dtype=DTYPES[fields["dtype"]])
    return single(root, {"input_features": frames}, ("last_hidden_state",))
