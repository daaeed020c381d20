"""Gemma, Gemma 2 and Gemma 3 text decoders: prefill and decode with a KV cache."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from iree_pilot.models import fields as shared
from iree_pilot.models.siglip import GELU, GELU_FIELD
from iree_pilot.models.spec import Field, ModelSpec, Preset, Value

if TYPE_CHECKING:
    from torch import nn

    from iree_pilot.models.traceable import Traceable

_FIELDS = (
    *shared.layers("decoder"),
    shared.kv_heads(),
    shared.head_size(),
    *shared.tokens(),
    shared.BATCH,
    Field(name="length", default=8, help="tokens in the prompt, and in decode's cache"),
    shared.DYNAMIC,
    GELU_FIELD,
    shared.dtype("weights and cache"),
)
_SLIDING = (
    Field(
        name="window",
        default=4,
        help="tokens that a sliding layer sees, with its own",
        min=2,
        config="sliding_window",
    ),
    Field(
        name="global_every",
        default=2,
        help="each so-manieth layer sees all, the others slide",
        config="layer_types",
    ),
)
_CAPPED = (
    Field(
        name="attention_cap",
        default=50,
        help="attention scores become cap * tanh(score / cap)",
        config="attn_logit_softcapping",
    ),
    Field(name="final_cap", default=30, help="logits likewise", config="final_logit_softcapping"),
)
_SCALED = Field(
    name="rope_factor",
    default=8,
    help="positions of the layers that see all are divided by it",
    config="rope_parameters",
)

_TINY = "2 layers, width 64: seconds"
_GEMMA3: dict[str, Value] = {
    "head_size": 256,
    "vocabulary": 262208,
    "context": 131072,
    "length": 128,
    "window": 1024,
    "global_every": 6,
    "dtype": "bf16",
}
_2B: dict[str, Value] = {
    "head_size": 256,
    "vocabulary": 256000,
    "context": 8192,
    "length": 128,
    "heads": 8,
    "dtype": "bf16",
}
_4B = _GEMMA3 | {"layers": 34, "width": 2560, "hidden": 10240, "heads": 8, "kv_heads": 4}
_12B = _GEMMA3 | {"layers": 48, "width": 3840, "hidden": 15360, "heads": 16, "kv_heads": 8}


def _spec(
    name: str, help: str, fields: tuple[Field, ...], presets: tuple[Preset, ...]
) -> ModelSpec:
    return ModelSpec(
        name=name,
        help=f"{help}: prefill and decode with a KV cache",
        build=f"{__name__}:build_{name}",
        check=f"{__name__}:check",
        parts=("prefill", "decode"),
        chain="iree_pilot.models.chains:causal",
        architectures=(f"{name.capitalize()}ForCausalLM",),
        fields=(*_FIELDS, *fields),
        presets=presets,
    )


SPECS = (
    _spec(
        "gemma",
        "Gemma decoder, all heads on one key-value head",
        (shared.ATTENTION,),
        (
            Preset(name="tiny", values={"kv_heads": 1}, help=_TINY, parameters=106_816),
            Preset(
                name="2b",
                values=_2B | {"layers": 18, "width": 2048, "hidden": 16384, "kv_heads": 1},
                help="Gemma 2B at full size, without weights",
                parameters=2_506_172_416,
                weights=False,
            ),
        ),
    ),
    _spec(
        "gemma2",
        "Gemma 2 decoder, sliding and global layers, soft-capped scores and logits",
        (*_SLIDING, *_CAPPED),
        (
            # Random weights keep scores and logits far below the real caps, which then do nothing.
            Preset(
                name="tiny",
                values={"attention_cap": 2, "final_cap": 2},
                help=_TINY,
                parameters=115_264,
            ),
            Preset(
                name="2b",
                values=_2B
                | {"layers": 26, "width": 2304, "hidden": 9216, "kv_heads": 4, "window": 4096},
                help="Gemma 2 2B at full size, without weights",
                parameters=2_614_341_888,
                weights=False,
            ),
        ),
    ),
    _spec(
        "gemma3",
        "Gemma 3 text decoder, sliding and global layers with rotary frequencies of their own",
        (*_SLIDING, _SCALED, shared.ATTENTION),
        (
            Preset(name="tiny", values={}, help=_TINY, parameters=115_392),
            Preset(
                name="4b",
                values=_4B,
                help="Gemma 3 4B's decoder at full size, without weights",
                parameters=3_880_263_168,
                weights=False,
            ),
            Preset(
                name="12b",
                values=_12B,
                help="Gemma 3 12B's decoder at full size, without weights",
                parameters=11_766_034_176,
                weights=False,
            ),
        ),
    ),
)


def check(fields: dict[str, Any]) -> str:
    """Reason to reject this combination of values, or ""."""
    for name, of in (("width", "heads"), ("heads", "kv_heads")):
        if problem := shared.multiple(fields, name, of):
            return problem
    if fields["head_size"] % 2:
        return f"head_size={fields['head_size']} is odd: rotary embedding turns pairs"
    return shared.fits(fields, decodes=True)


def build_gemma(
    fields: dict[str, Any], seed: int, weights: bool = True, model: nn.Module | None = None
) -> Traceable:
    """transformers' GemmaForCausalLM."""
    from transformers import GemmaConfig, GemmaForCausalLM

    config = GemmaConfig(**_common(fields), hidden_act=GELU[fields["gelu"]])
    return _build(GemmaForCausalLM, config, fields, seed, weights=weights, model=model)


def build_gemma2(
    fields: dict[str, Any], seed: int, weights: bool = True, model: nn.Module | None = None
) -> Traceable:
    """transformers' Gemma2ForCausalLM, with the eager attention that soft-capping needs."""
    from transformers import Gemma2Config, Gemma2ForCausalLM

    config = Gemma2Config(
        **_common(fields),
        **_later(fields),
        attn_logit_softcapping=float(fields["attention_cap"]),
        final_logit_softcapping=float(fields["final_cap"]),
    )
    return _build(Gemma2ForCausalLM, config, fields, seed, weights=weights, model=model)


def build_gemma3(
    fields: dict[str, Any], seed: int, weights: bool = True, model: nn.Module | None = None
) -> Traceable:
    """transformers' Gemma3ForCausalLM."""
    from transformers import Gemma3ForCausalLM

    config = gemma3_config(fields)
    return _build(Gemma3ForCausalLM, config, fields, seed, weights=weights, model=model)


def gemma3_config(fields: dict[str, Any]) -> Any:
    """transformers' Gemma3TextConfig of these fields."""
    from transformers import Gemma3TextConfig

    return Gemma3TextConfig(
        **_common(fields),
        **_later(fields),
        rope_parameters={
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
            "full_attention": {
                "rope_type": "linear",
                "rope_theta": 1e6,
                "factor": float(fields["rope_factor"]),
            },
        },
    )


def _common(fields: dict[str, Any]) -> dict[str, Any]:
    return {
        "num_hidden_layers": fields["layers"],
        "hidden_size": fields["width"],
        "intermediate_size": fields["hidden"],
        "num_attention_heads": fields["heads"],
        "num_key_value_heads": fields["kv_heads"],
        "head_dim": fields["head_size"],
        "vocab_size": fields["vocabulary"],
        "max_position_embeddings": fields["context"],
        "attn_implementation": fields.get("attention", "eager"),
        # Values of order one in every layer: scores that differ, caps that bite.
        "initializer_range": fields["width"] ** -0.5,
    }


def _later(fields: dict[str, Any]) -> dict[str, Any]:
    """Config attributes that Gemma 2 and 3 have beyond Gemma, or under another name."""
    return {
        "hidden_activation": GELU[fields["gelu"]],
        "sliding_window": fields["window"],
        "query_pre_attn_scalar": fields["head_size"],
        "layer_types": [
            "sliding_attention" if i % fields["global_every"] else "full_attention"
            for i in range(1, fields["layers"] + 1)
        ],
    }


def _build(
    kind: Any,
    config: Any,
    fields: dict[str, Any],
    seed: int,
    *,
    weights: bool,
    model: nn.Module | None,
) -> Traceable:
    import torch
    from transformers.activations import ACT2FN

    from iree_pilot.models.causal import entries
    from iree_pilot.models.traceable import Traceable, made

    with made(kind, config, fields["dtype"], seed, weights=weights, model=model) as (root, mode):
        if model is not None:
            for layer in root.model.layers:
                layer.mlp.act_fn = ACT2FN[GELU[fields["gelu"]]]
        tokens = torch.randint(fields["vocabulary"], (fields["batch"], fields["length"] + 1))
        functions = entries(root, tokens, dynamic=fields["dynamic"], context=fields["context"])
    return Traceable(root=root, functions=functions, mode=mode)
