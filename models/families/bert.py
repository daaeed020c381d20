"""BERT: a bidirectional encoder with its masked-language head, over padded batches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from iree_pilot.models import fields as shared
from iree_pilot.models.spec import Field, ModelSpec, Preset

if TYPE_CHECKING:
    from torch import nn

    from iree_pilot.models.traceable import Traceable

SPECS = (
    ModelSpec(
        name="bert",
        help="BERT encoder with masked-language head, padded batch",
        build=f"{__name__}:build",
        check=f"{__name__}:check",
        architectures=("BertForMaskedLM",),
        unused=(r"^bert\.pooler\.", r"^cls\.seq_relationship\.", r"\.position_ids$"),
        fields=(
            *shared.layers("encoder"),
            *shared.tokens(),
            Field(name="batch", default=2, help="sequences at once, each shorter than the last"),
            Field(name="length", default=16, help="tokens in a sequence, padding included"),
            shared.DYNAMIC,
            shared.ATTENTION,
            shared.dtype(),
        ),
        presets=(
            Preset(name="tiny", values={}, help="2 layers, width 64", parameters=96_320),
            Preset(
                name="small",
                values={
                    "layers": 4,
                    "width": 256,
                    "hidden": 1024,
                    "vocabulary": 4096,
                    "context": 512,
                    "length": 64,
                },
                help="BERT-Mini with fewer tokens",
                parameters=4_410_112,
            ),
        ),
    ),
)


def check(fields: dict[str, Any]) -> str:
    """Reason to reject this combination of values, or ""."""
    return shared.multiple(fields, "width", "heads") or shared.fits(fields)


def build(fields: dict[str, Any], seed: int, model: nn.Module | None = None) -> Traceable:
    """transformers' BertForMaskedLM: tokens, token types and a mask -> logits.

    The mask is what transformers would make of a padding mask, [batch, 1, 1, length] in the model's
    dtype, 0 for tokens and the lowest number for padding: made in the graph it does not convert
    (iree-turbine 3.9.0).
    """
    import torch
    from transformers import BertConfig, BertForMaskedLM

    from iree_pilot.models.traceable import DTYPES, made, single

    config = BertConfig(
        num_hidden_layers=fields["layers"],
        hidden_size=fields["width"],
        intermediate_size=fields["hidden"],
        num_attention_heads=fields["heads"],
        vocab_size=fields["vocabulary"],
        max_position_embeddings=fields["context"],
        attn_implementation=fields["attention"],
    )
    batch, length, dtype = fields["batch"], fields["length"], DTYPES[fields["dtype"]]
    with made(BertForMaskedLM, config, fields["dtype"], seed, model=model) as (root, _):
        kept = [max(1, length - 3 * i) for i in range(batch)]
        padding = torch.arange(length)[None] >= torch.tensor(kept)[:, None]
        mask = torch.zeros(batch, 1, 1, length, dtype=dtype)
        inputs = {
            "input_ids": torch.randint(fields["vocabulary"], (batch, length)),
            "token_type_ids": (torch.arange(length) >= length // 2).long().repeat(batch, 1),
            "attention_mask": mask.masked_fill(padding[:, None, None], torch.finfo(dtype).min),
        }
    dim = torch.export.Dim("length", min=2, max=fields["context"])
    dynamic = {"input_ids": {1: dim}, "token_type_ids": {1: dim}, "attention_mask": {3: dim}}
    return single(root, inputs, ("logits",), dynamic=dynamic if fields["dynamic"] else None)
