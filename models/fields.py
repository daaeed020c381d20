"""The fields that families of the zoo have in common, and what may be wrong with them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from iree_pilot.models.spec import MOST_LAYERS, Field

ATTENTION = Field(
    name="attention",
    default="eager",
    choices=("eager", "sdpa"),
    help="sdpa: torch.scaled_dot_product_attention, which IREE does not compile for Vulkan",
)
BATCH = Field(name="batch", default=1, help="sequences at once")
DYNAMIC = Field(name="dynamic", default=False, help="length is dynamic: 2 to context")
#: The format of FP8 weights and activations, and what they are multiplied in.
FP8 = (
    Field(
        name="fp8",
        default="e4m3fnuz",
        choices=("e4m3fn", "e4m3fnuz"),
        help="FP8 format: e4m3fn as in checkpoints, e4m3fnuz the only one that gfx942 has",
    ),
    Field(
        name="compute",
        default="f32",
        choices=("f32", "f16", "bf16"),
        help="f32: multiply FP8 codes, scale the sum; f16, bf16: scale first, multiply there",
    ),
)


def dtype(of: str = "weights") -> Field:
    """The dtype of a model's weights, or of what `of` says."""
    return Field(name="dtype", default="f32", choices=("f32", "f16", "bf16"), help=f"of {of}")


def layers(what: str, config: str = "") -> tuple[Field, ...]:
    """The sizes of a stack of transformer layers, an "encoder" or a "decoder".

    config: what precedes their names in transformers' config, `text_config.`.
    """
    return (
        Field(
            name="layers",
            default=2,
            help=f"{what} layers",
            max=MOST_LAYERS,
            config=f"{config}num_hidden_layers",
        ),
        Field(
            name="width",
            default=64,
            help=f"hidden size of the {what}",
            min=2,
            config=f"{config}hidden_size",
        ),
        Field(
            name="hidden",
            default=128,
            help="size inside its feed-forward blocks",
            config=f"{config}intermediate_size",
        ),
        Field(
            name="heads",
            default=4,
            help="its attention heads",
            config=f"{config}num_attention_heads",
        ),
    )


def kv_heads(config: str = "", default: int = 2) -> Field:
    """Number of key and value heads."""
    return Field(
        name="kv_heads",
        default=default,
        help="key-value heads, shared by groups of heads",
        config=f"{config}num_key_value_heads",
    )


def tokens(config: str = "", context: int = 128) -> tuple[Field, ...]:
    """Fields of a language model's tokens: the vocabulary and the context."""
    return (
        Field(
            name="vocabulary",
            default=256,
            help="tokens that exist",
            min=2,
            config=f"{config}vocab_size",
        ),
        Field(
            name="context",
            default=context,
            help="positions at most",
            min=3,
            config=f"{config}max_position_embeddings",
        ),
    )


def head_size(config: str = "") -> Field:
    """The size of a head, where the model's width does not decide it."""
    return Field(
        name="head_size",
        default=32,
        help="size of a head, whatever the width",
        min=2,
        config=f"{config}head_dim",
    )


def multiple(fields: Mapping[str, Any], name: str, of: str) -> str:
    """Error for a size that is not a multiple of another; "" if it is."""
    whole = fields[name] % fields[of] == 0
    return "" if whole else f"{name}={fields[name]} is no multiple of {of}={fields[of]}"


def fits(fields: Mapping[str, Any], *, decodes: bool = False) -> str:
    """Error for a length that exceeds the context, with one more token if the model decodes it, or
    that is too short to be dynamic; "" if there is none."""
    length, context = fields["length"], fields["context"]
    if decodes and length >= context:
        return f"length={length} and one more token do not fit context={context}"
    if length > context:
        return f"length={length} does not fit context={context}"
    if fields.get("dynamic") and length < 2:
        return "dynamic=true needs an example of length 2 or more"
    return ""
