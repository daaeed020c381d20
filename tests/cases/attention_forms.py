"""Attention in the forms that it has, with heads of any size; rows without keys are 0."""

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention as attend


class Model(nn.Module):
    def forward(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        mask: torch.Tensor,
        added: torch.Tensor,
        few: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        lost = torch.where(mask[:, :, 0, :, None], k, float("nan"))
        return (
            attend(q, k, v),
            attend(q, k, v, is_causal=True),
            attend(q, k, v, attn_mask=mask),
            attend(q, k, v, attn_mask=added, scale=0.3),
            attend(q, few, few, enable_gqa=True),
            attend(q.double(), k.double(), v.double()).float(),
            attend(q.half(), k.half(), v.half()),
            # Scores that f16 does not hold.
            attend((q * 40).half(), (k * 40).half(), v.half(), scale=1e-5),
            torch.cat([attend(q.abs(), torch.full_like(k, float("-inf")), v), attend(q, k, v)]),
            torch.cat([attend(q, lost, v, attn_mask=mask), attend(q, k, v)]),
        )


def model() -> nn.Module:
    return Model().eval()


def inputs() -> tuple[torch.Tensor, ...]:
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 4, n, 144) for n in (6, 8, 8))
    mask = torch.rand(2, 1, 6, 8) > 0.4
    mask[:, :, 2] = False
    added = torch.randn(2, 1, 6, 8)
    added[:, :, 1] = float("-inf")
    return q, k, v, mask, added, torch.randn(2, 2, 8, 144)
