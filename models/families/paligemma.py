"""PaliGemma and PaliGemma 2 in parts, as for web export: vision, embedding, decoder with KV cache.

The parts chain: image features go before the embedded text, the whole through prefill, then each
embedded token through decode with the cache that the last step returned.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from iree_pilot.models import fields as shared
from iree_pilot.models import siglip
from iree_pilot.models.spec import Field, ModelSpec, Preset, Value

if TYPE_CHECKING:
    import torch
    from torch import nn

    from iree_pilot.models.traceable import Traceable

_FIELDS = (
    *siglip.FIELDS,
    *shared.layers("decoder", "text_config."),
    shared.kv_heads("text_config.", default=1),
    shared.head_size("text_config."),
    *shared.tokens("text_config.", context=8192),
    Field(name="batch", default=1, help="prompts at once, each with an image"),
    Field(name="length", default=8, help="text tokens that follow the image", min=2),
    Field(name="dynamic", default=False, help="length of the prompt and the cache is dynamic"),
    siglip.GELU_FIELD,
    shared.dtype("weights and cache"),
)
_CAPPED = (
    Field(
        name="attention_cap",
        default=50,
        help="attention scores become cap * tanh(score / cap)",
        config="text_config.attn_logit_softcapping",
    ),
    Field(
        name="final_cap",
        default=30,
        help="logits likewise",
        config="text_config.final_logit_softcapping",
    ),
)
_FULL: dict[str, Value] = {
    **siglip.SO400M,
    "image": 224,
    "heads": 8,
    "head_size": 256,
    "vocabulary": 257216,
    "length": 128,
    "dtype": "bf16",
}


def _spec(
    name: str, help: str, text_model: str, presets: tuple[Preset, ...], *fields: Field
) -> ModelSpec:
    return ModelSpec(
        name=name,
        help=help,
        build=f"{__name__}:build",
        check=f"{__name__}:check",
        parts=("vision", "embed", "prefill", "decode"),
        chain="iree_pilot.models.chains:paligemma",
        generates=4,
        architectures=("PaliGemmaForConditionalGeneration",),
        text_model=text_model,
        fields=(*_FIELDS, *fields),
        presets=presets,
    )


SPECS = (
    _spec(
        "paligemma",
        "PaliGemma: SigLIP and Gemma as separate functions",
        "gemma",
        (
            Preset(
                name="tiny",
                values={"dynamic": True},
                help="2 and 2 layers, width 64",
                parameters=216_768,
            ),
            Preset(
                name="3b",
                values={**_FULL, "layers": 18, "width": 2048, "hidden": 16384},
                help="PaliGemma 3B at full size, without weights",
                parameters=2_923_466_480,
                weights=False,
            ),
        ),
    ),
    _spec(
        "paligemma2",
        "PaliGemma 2: SigLIP and Gemma 2 as separate functions",
        "gemma2",
        (
            Preset(
                name="tiny",
                # Random weights keep scores and logits far below the real caps.
                values={"kv_heads": 2, "attention_cap": 2, "final_cap": 2, "dynamic": True},
                help="2 and 2 layers, width 64",
                parameters=225_216,
            ),
            Preset(
                name="3b",
                values={**_FULL, "layers": 26, "width": 2304, "hidden": 9216, "kv_heads": 4},
                help="PaliGemma 2 3B at full size, without weights",
                parameters=3_032_242_416,
                weights=False,
            ),
        ),
        *_CAPPED,
    ),
)


def _image_tokens(fields: dict[str, Any]) -> int:
    side: int = fields["image"] // fields["patch"]
    return side**2


def check(fields: dict[str, Any]) -> str:
    """Reason to reject this combination of values, or ""."""
    if problem := siglip.check(fields):
        return problem
    if fields["heads"] % fields["kv_heads"]:
        return f"heads={fields['heads']} is no multiple of kv_heads={fields['kv_heads']}"
    if fields["head_size"] % 2:
        return f"head_size={fields['head_size']} is odd: rotary embedding turns pairs"
    tokens = _image_tokens(fields)
    if tokens + fields["length"] >= fields["context"]:
        return (
            f"an image of {tokens} tokens, length={fields['length']} and one more token do not "
            f"fit context={fields['context']}"
        )
    return ""


def _config(fields: dict[str, Any]) -> Any:
    from transformers import PaliGemmaConfig

    text = {
        "model_type": "gemma",
        "hidden_act": siglip.GELU[fields["gelu"]],
        "num_hidden_layers": fields["layers"],
        "hidden_size": fields["width"],
        "intermediate_size": fields["hidden"],
        "num_attention_heads": fields["heads"],
        "num_key_value_heads": fields["kv_heads"],
        "head_dim": fields["head_size"],
        "vocab_size": fields["vocabulary"],
        "max_position_embeddings": fields["context"],
        # Values of order one in every layer: scores that differ, caps that bite.
        "initializer_range": fields["width"] ** -0.5,
    }
    if "attention_cap" in fields:
        text |= {
            "model_type": "gemma2",
            "hidden_activation": text.pop("hidden_act"),
            "query_pre_attn_scalar": fields["head_size"],
            # One mask serves all layers: the window must hold whatever the context holds.
            "sliding_window": fields["context"],
            "attn_logit_softcapping": float(fields["attention_cap"]),
            "final_logit_softcapping": float(fields["final_cap"]),
        }
    return PaliGemmaConfig(
        vision_config=siglip.config(fields),
        text_config=text,
        projection_dim=fields["width"],
        hidden_size=fields["width"],
        image_token_index=fields["vocabulary"] - 1,
        attn_implementation="eager",
    )


def build(
    fields: dict[str, Any], seed: int, weights: bool = True, model: nn.Module | None = None
) -> Traceable:
    """transformers' PaliGemmaForConditionalGeneration; decode's example follows prefill's.

    The image and the first half of the text see each other, what follows sees what was before, as
    transformers has it for a prefix and a suffix. Positions count from 1. model: one with weights
    of its own; its sliding window, where it has one, is the longest context, as one mask serves all
    layers.
    """
    import torch
    from transformers import PaliGemmaForConditionalGeneration

    from iree_pilot.models.causal import OUTPUTS, EmbeddedDecode, EmbeddedPrefill
    from iree_pilot.models.traceable import DTYPES, EntryFunction, Traceable, made
    from iree_pilot.models.vision import Embed, Features

    dtype, batch, length = DTYPES[fields["dtype"]], fields["batch"], fields["length"]
    image = _image_tokens(fields)
    prompt = image + length
    kind = PaliGemmaForConditionalGeneration
    config, context = _config(fields), fields["context"]
    with made(kind, config, fields["dtype"], seed, weights=weights, model=model) as (root, mode):
        if model is not None:
            siglip.reactivate(root, fields)
            text = root.config.text_config
            context = min(context, getattr(text, "sliding_window", None) or context)
        vision, embed = Features(root).eval(), Embed(root).eval()
        prefill, decode = EmbeddedPrefill(root).eval(), EmbeddedDecode(root).eval()
        pixels = torch.randn(batch, 3, fields["image"], fields["image"], dtype=dtype)
        tokens = torch.randint(fields["vocabulary"] - 1, (batch, length))
        token = torch.randint(fields["vocabulary"] - 1, (batch, 1))
        with torch.no_grad():
            embedded = torch.cat([vision(pixels)[0], embed(tokens)[0]], 1)
            mask = _mask(batch, prompt, image + length // 2, dtype)
            positions = torch.arange(1, prompt + 1).repeat(batch, 1)
            prefilled = (embedded, mask, positions)
            cache = prefill(*prefilled)[1:]
            step = (
                embed(token)[0],
                torch.zeros(batch, 1, 1, prompt + 1, dtype=dtype),
                torch.full((batch, 1), prompt + 1),
                *cache,
            )
    shapes: dict[str, Any] = {}
    if fields["dynamic"]:
        size = torch.export.Dim("length", min=2, max=context)
        # What is embedded is a prompt, or one token that was decoded.
        words = torch.export.Dim("text", min=1, max=context)
        kept = torch.export.Dim("cached", min=2, max=context - 1)
        shapes = {
            "embed": ({1: words},),
            "prefill": ({1: size}, {2: size, 3: size}, {1: size}),
            "decode": (None, {3: kept + 1}, None, {3: kept}, {3: kept}),
        }

    def entry(
        name: str, module: Any, args: tuple[Any, ...], names: tuple[str, ...], *outputs: str
    ) -> EntryFunction:
        return EntryFunction(
            name=name,
            module=module,
            args=args,
            input_names=names,
            output_names=outputs,
            dynamic_shapes=shapes.get(name),
            strict=name == "decode" and fields["dynamic"],
        )

    names = ("inputs_embeds", "mask", "positions")
    functions = (
        entry("vision", vision, (pixels,), ("pixel_values",), "image_features"),
        entry("embed", embed, (tokens,), ("tokens",), "embeds"),
        entry("prefill", prefill, prefilled, names, *OUTPUTS),
        entry("decode", decode, step, (*names, "keys", "values"), *OUTPUTS),
    )
    return Traceable(root=root, functions=functions, mode=mode)


def _mask(batch: int, length: int, prefix: int, dtype: torch.dtype) -> torch.Tensor:
    """[batch, 1, length, length]: the first `prefix` see each other, the others what was before."""
    import torch

    key, query = torch.arange(length)[None], torch.arange(length)[:, None]
    hidden = (key > query) & ((key >= prefix) | (query >= prefix))
    mask = torch.zeros(1, 1, 1, 1, dtype=dtype).masked_fill(hidden, torch.finfo(dtype).min)
    return mask.repeat(batch, 1, 1, 1)
