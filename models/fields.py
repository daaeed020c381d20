"""The fields that families of the zoo have in common."""

from __future__ import annotations

from iree_pilot.models.spec import Field

ATTENTION = Field(
    name="attention",
    default="eager",
    choices=("eager", "sdpa"),
    help="sdpa: torch.scaled_dot_product_attention, which fails on Vulkan",
)
BATCH = Field(name="batch", default=1, help="sequences at once")
DYNAMIC = Field(name="dynamic", default=False, help="length is dynamic: 2 to context")


def dtype(of: str = "weights") -> Field:
    """The dtype of a model's weights, or of what `of` says."""
    return Field(name="dtype", default="f32", choices=("f32", "f16", "bf16"), help=f"of {of}")


def layers(what: str, config: str = "") -> tuple[Field, ...]:
    """The sizes of a stack of transformer layers, an "encoder" or a "decoder".

    config: what precedes their names in transformers' config, `text_config.`.
    """
    return (
        Field(name="layers", default=2, help=f"{what} layers", config=f"{config}num_hidden_layers"),
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
    """How many heads of keys and values there are."""
    return Field(
        name="kv_heads",
        default=default,
        help="key-value heads, shared by groups of heads",
        config=f"{config}num_key_value_heads",
    )


def tokens(config: str = "", context: int = 128) -> tuple[Field, ...]:
    """What a model of tokens can take: which ones, and how many."""
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
