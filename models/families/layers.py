"""Single layers as models of their own: FP8 linear, attention, rotary embedding, RMS norm.

What fails in a large model can be tried here with the layer's sizes alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from iree_pilot.models import fields as shared
from iree_pilot.models.spec import Field, ModelSpec, Preset
from iree_pilot.models.versions import Signature

if TYPE_CHECKING:
    from iree_pilot.models.traceable import Traceable

_WIDTH = Field(name="width", default=64, help="hidden size")
_LENGTH = Field(name="length", default=16, help="tokens in a sequence")

_HEADS = (
    Field(name="heads", default=4, help="attention heads"),
    shared.kv_heads(),
)

_MODULE = "transformers.models.llama.modeling_llama"
_EMBEDDING = Signature(
    function=f"{_MODULE}:LlamaRotaryEmbedding.forward",
    parameters=("x", "position_ids"),
    release="5.23",
)
_ROTATE = Signature(
    function=f"{_MODULE}:apply_rotary_pos_emb",
    parameters=("q", "k", "cos", "sin"),
    release="5.23",
)
_ATTENTION = Signature(
    function=f"{_MODULE}:LlamaAttention.forward",
    parameters=("hidden_states", "position_embeddings", "attention_mask"),
    release="5.23",
)

SPECS = (
    ModelSpec(
        name="fp8-linear",
        help="Linear layer with FP8 weights and activations (static per-tensor scales)",
        build=f"{__name__}:build_fp8_linear",
        fields=(
            Field(name="inputs", default=64, help="size of what comes in"),
            Field(name="outputs", default=96, help="size of what goes out"),
            shared.BATCH,
            _LENGTH,
            *shared.FP8,
            shared.dtype("what comes in and goes out"),
        ),
        presets=(
            Preset(name="tiny", values={}, help="64 to 96", parameters=6_144),
            Preset(
                name="e4m3fn", values={"fp8": "e4m3fn"}, help="the other format", parameters=6_144
            ),
        ),
    ),
    ModelSpec(
        name="attention",
        help="Llama's self-attention with rotary embedding and a causal mask",
        build=f"{__name__}:build_attention",
        check=f"{__name__}:check_attention",
        needs=(_EMBEDDING, _ATTENTION),
        fields=(
            _WIDTH,
            *_HEADS,
            shared.BATCH,
            _LENGTH,
            Field(name="context", default=128, help="positions at most", min=2),
            shared.DYNAMIC,
            shared.ATTENTION,
            shared.dtype(),
        ),
        presets=(
            Preset(name="tiny", values={}, help="grouped queries: 4 to 2", parameters=12_288),
            Preset(
                name="mha",
                values={"kv_heads": 4},
                help="as many key-value heads as heads",
                parameters=16_384,
            ),
            Preset(name="mqa", values={"kv_heads": 1}, help="one for all", parameters=10_240),
            Preset(
                name="sdpa",
                values={"attention": "sdpa"},
                help="torch's fused attention, grouped queries",
                parameters=12_288,
            ),
        ),
    ),
    ModelSpec(
        name="rope",
        help="Rotary embedding of queries and keys",
        build=f"{__name__}:build_rope",
        check=f"{__name__}:check_rope",
        needs=(_EMBEDDING, _ROTATE),
        fields=(
            Field(name="head", default=16, help="size of a head", min=2),
            *_HEADS,
            shared.BATCH,
            _LENGTH,
            Field(name="context", default=128, help="positions at most", min=2),
            shared.dtype("queries and keys"),
        ),
        presets=(Preset(name="tiny", values={}, help="heads of 16", parameters=0),),
    ),
    ModelSpec(
        name="rms-norm",
        help="RMS norm with a gain",
        build=f"{__name__}:build_rms_norm",
        fields=(_WIDTH, shared.BATCH, _LENGTH, shared.dtype()),
        presets=(Preset(name="tiny", values={}, help="width 64", parameters=64),),
    ),
)


def check_attention(fields: dict[str, Any]) -> str:
    """Reason to reject this combination of values, or ""."""
    if fields["width"] % (2 * fields["heads"]):
        return f"width={fields['width']} is no even multiple of heads={fields['heads']}"
    return shared.multiple(fields, "heads", "kv_heads") or shared.fits(fields)


def check_rope(fields: dict[str, Any]) -> str:
    """Reason to reject this combination of values, or ""."""
    if fields["head"] % 2:
        return f"head={fields['head']} is odd; rotary embedding turns pairs"
    return shared.fits(fields)


def build_fp8_linear(fields: dict[str, Any], seed: int) -> Traceable:
    """iree_pilot.models.fp8's FP8Linear, scaled to its random weights and inputs: x -> y."""
    import torch

    from iree_pilot.models.fp8 import FORMATS, FP8Linear
    from iree_pilot.models.layer import First, function
    from iree_pilot.models.traceable import DTYPES, seeded

    dtype = DTYPES[fields["dtype"]]
    with seeded(seed):
        linear = torch.nn.Linear(fields["inputs"], fields["outputs"], bias=False)
        x = torch.randn(fields["batch"], fields["length"], fields["inputs"], dtype=dtype)
    compute = DTYPES[fields["compute"]]
    module = FP8Linear.quantized(linear, x.abs().max(), FORMATS[fields["fp8"]], compute)
    return function(module, First(module), {"x": x}, ("y",))


def build_attention(fields: dict[str, Any], seed: int) -> Traceable:
    """transformers' LlamaAttention: hidden states, cos, sin, causal mask -> hidden states.

    cos and sin are [batch, length, head], the mask [1, 1, length, length]: 0 or the lowest number.
    """
    import torch
    from torch import nn
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaAttention, LlamaRotaryEmbedding

    from iree_pilot.models.layer import function
    from iree_pilot.models.traceable import DTYPES, seeded

    class Attention(nn.Module):
        def __init__(self, attention: nn.Module) -> None:
            super().__init__()
            self.attention = attention

        def forward(
            self,
            hidden_states: torch.Tensor,
            cos: torch.Tensor,
            sin: torch.Tensor,
            mask: torch.Tensor,
        ) -> tuple[torch.Tensor]:
            result = self.attention(hidden_states, (cos, sin), mask)
            return (result[0],)

    config = LlamaConfig(
        hidden_size=fields["width"],
        num_attention_heads=fields["heads"],
        num_key_value_heads=fields["kv_heads"],
        max_position_embeddings=fields["context"],
        attn_implementation=fields["attention"],
    )
    dtype, batch, length = DTYPES[fields["dtype"]], fields["batch"], fields["length"]
    with seeded(seed):
        attention = LlamaAttention(config, 0).to(dtype)
        hidden_states = torch.randn(batch, length, fields["width"], dtype=dtype)
    cos, sin = LlamaRotaryEmbedding(config)(hidden_states, torch.arange(length).repeat(batch, 1))
    lowest = torch.full((1, 1, length, length), torch.finfo(dtype).min, dtype=dtype)
    mask = lowest.triu(1)
    example = {"hidden_states": hidden_states, "cos": cos, "sin": sin, "mask": mask}
    dim = torch.export.Dim("length", min=2, max=fields["context"])
    dynamic = {
        "hidden_states": {1: dim},
        "cos": {1: dim},
        "sin": {1: dim},
        "mask": {2: dim, 3: dim},
    }
    return function(
        attention,
        Attention(attention),
        example,
        ("hidden_states",),
        dynamic if fields["dynamic"] else None,
    )


def build_rope(fields: dict[str, Any], seed: int) -> Traceable:
    """transformers' rotary embedding of Llama: queries, keys, positions -> queries, keys.

    Queries and keys are [batch, heads, length, head], positions [batch, length] i64.
    """
    import torch
    from torch import nn
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import (
        LlamaRotaryEmbedding,
        apply_rotary_pos_emb,
    )

    from iree_pilot.models.layer import function
    from iree_pilot.models.traceable import DTYPES, seeded

    class Rope(nn.Module):
        def __init__(self, config: LlamaConfig) -> None:
            super().__init__()
            self.rotary_emb = LlamaRotaryEmbedding(config)

        def forward(
            self, queries: torch.Tensor, keys: torch.Tensor, positions: torch.Tensor
        ) -> tuple[torch.Tensor, torch.Tensor]:
            cos, sin = self.rotary_emb(queries, positions)
            turned: tuple[torch.Tensor, torch.Tensor] = apply_rotary_pos_emb(
                queries, keys, cos, sin
            )
            return turned

    head, batch, length = fields["head"], fields["batch"], fields["length"]
    config = LlamaConfig(
        hidden_size=fields["heads"] * head,
        num_attention_heads=fields["heads"],
        max_position_embeddings=fields["context"],
    )
    with seeded(seed):
        queries, keys = (
            torch.randn(batch, heads, length, head, dtype=DTYPES[fields["dtype"]])
            for heads in (fields["heads"], fields["kv_heads"])
        )
        positions = torch.stack(
            [torch.randperm(fields["context"])[:length].sort().values for _ in range(batch)]
        )
    rope = Rope(config)
    example = {"queries": queries, "keys": keys, "positions": positions}
    return function(rope, rope, example, ("queries", "keys"))


def build_rms_norm(fields: dict[str, Any], seed: int) -> Traceable:
    """transformers' LlamaRMSNorm: x [batch, length, width] -> y of the same shape."""
    import torch
    from transformers.models.llama.modeling_llama import LlamaRMSNorm

    from iree_pilot.models.layer import First, function
    from iree_pilot.models.traceable import DTYPES, seeded, unsettle

    dtype = DTYPES[fields["dtype"]]
    with seeded(seed):
        norm = LlamaRMSNorm(fields["width"]).to(dtype)
        unsettle(norm)
        x = torch.randn(fields["batch"], fields["length"], fields["width"], dtype=dtype)
    return function(norm, First(norm), {"x": x}, ("y",))
