"""Llama: prefill and decode with a KV cache, in plain dtypes or with FP8 linears."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from iree_pilot.models import fields as shared
from iree_pilot.models.spec import Field, ModelSpec, Preset, Value
from iree_pilot.models.versions import Signature

if TYPE_CHECKING:
    from torch import nn

    from iree_pilot.models.traceable import Traceable

_FIELDS = (
    *shared.layers("decoder"),
    shared.kv_heads(),
    *shared.tokens(),
    shared.BATCH,
    Field(name="length", default=8, help="tokens in the prompt, and in decode's cache"),
    shared.DYNAMIC,
    shared.ATTENTION,
    shared.dtype("weights and cache"),
)

_FP8_FIELDS = (
    *shared.FP8,
    Field(
        name="head",
        default="plain",
        choices=("plain", "fp8"),
        help="output head; published FP8 checkpoints leave it in the model's dtype",
    ),
)

_SMALL: dict[str, Value] = {
    "layers": 4,
    "width": 256,
    "hidden": 768,
    "heads": 4,
    "kv_heads": 2,
    "vocabulary": 4096,
    "context": 1024,
    "length": 64,
}
_8B: dict[str, Value] = {
    "layers": 32,
    "width": 4096,
    "hidden": 14336,
    "heads": 32,
    "kv_heads": 8,
    "vocabulary": 128256,
    "context": 8192,
    "length": 128,
    "dtype": "f16",
}


def _presets() -> tuple[Preset, ...]:
    return (
        Preset(name="tiny", values={}, help="2 layers, width 64: seconds", parameters=106_816),
        Preset(name="small", values=_SMALL, help="4 layers, width 256", parameters=5_245_184),
        Preset(
            name="8b",
            values=_8B,
            help="Llama 3 8B at full size, without weights",
            parameters=8_030_261_248,
            weights=False,
        ),
    )


_ARCHITECTURES = ("LlamaForCausalLM",)
_MODULE = "transformers.models.llama.modeling_llama"
_NEEDS = (
    Signature(
        function=f"{_MODULE}:LlamaRotaryEmbedding.forward",
        parameters=("x", "position_ids"),
        release="5.23",
    ),
    Signature(
        function=f"{_MODULE}:apply_rotary_pos_emb",
        parameters=("q", "k", "cos", "sin"),
        release="5.23",
    ),
    Signature(
        function="transformers.cache_utils:DynamicCache.update",
        parameters=("key_states", "value_states", "layer_idx"),
        release="5.23",
    ),
)


def _spec(name: str, help: str, *fields: Field) -> ModelSpec:
    return ModelSpec(
        name=name,
        help=help,
        build=f"{__name__}:build",
        check=f"{__name__}:check",
        parts=("prefill", "decode"),
        chain="iree_pilot.models.chains:causal",
        architectures=_ARCHITECTURES,
        unused=(r"\.rotary_emb\.inv_freq$",),
        needs=_NEEDS,
        fields=(*_FIELDS, *fields),
        presets=_presets(),
    )


SPECS = (
    _spec("llama", "Llama decoder: prefill and decode with a KV cache"),
    _spec("llama-fp8", "Llama decoder with FP8 linears (static per-tensor scales)", *_FP8_FIELDS),
)


def check(fields: dict[str, Any]) -> str:
    """Reason to reject this combination of values, or ""."""
    if fields["width"] % (2 * fields["heads"]):
        return f"width={fields['width']} is no even multiple of heads={fields['heads']}"
    groups = shared.multiple(fields, "heads", "kv_heads")
    return groups or shared.fits(fields, decodes=True)


def build(
    fields: dict[str, Any], seed: int, weights: bool = True, model: nn.Module | None = None
) -> Traceable:
    """Llama with seeded random weights (or none), FP8 where `fields` has the FP8 ones.

    model: one with weights of its own, in FP8 already where it is to be.
    """
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    from iree_pilot.models.causal import Prefill, entries
    from iree_pilot.models.fp8 import FORMATS, calibrate, replace_linears
    from iree_pilot.models.traceable import DTYPES, Traceable, mode_of, seeded, unsettle

    mode = None if weights else FakeTensorMode(allow_non_fake_inputs=True)
    root: Any = model
    if root is not None:
        mode = mode_of(root)
    with mode or seeded(seed):
        if root is None:
            root = _random(fields)
        tokens = torch.randint(fields["vocabulary"], (fields["batch"], fields["length"] + 1))
    # Rotary frequencies are constants of the program, no parameters: they need values always.
    root.model.rotary_emb = LlamaRotaryEmbedding(root.config)
    with mode or seeded(seed):
        if weights and model is None:
            unsettle(root)
        if "fp8" in fields and model is None:
            peaks = calibrate(root, lambda: Prefill(root)(tokens))
            keep = ("lm_head",) if fields["head"] == "plain" else ()
            replace_linears(root, peaks, FORMATS[fields["fp8"]], DTYPES[fields["compute"]], keep)
        functions = entries(root, tokens, dynamic=fields["dynamic"], context=fields["context"])
    return Traceable(root=root, functions=functions, mode=mode)


def _random(fields: dict[str, Any]) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    from iree_pilot.models.traceable import DTYPES

    config = LlamaConfig(
        num_hidden_layers=fields["layers"],
        hidden_size=fields["width"],
        intermediate_size=fields["hidden"],
        num_attention_heads=fields["heads"],
        num_key_value_heads=fields["kv_heads"],
        vocab_size=fields["vocabulary"],
        max_position_embeddings=fields["context"],
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 500000.0},
        attn_implementation=fields["attention"],
    )
    model = LlamaForCausalLM._from_config(config, dtype=DTYPES[fields["dtype"]])
    return model.eval().requires_grad_(False)
