"""A rotary embedding, whose halves are taken by chunk."""

import torch
from torch import nn


class Model(nn.Module):
    def forward(self, q: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        a, b = q.chunk(2, -1)
        return q * cos + torch.cat([-b, a], -1) * sin


def model() -> nn.Module:
    return Model().eval()


def inputs() -> tuple[torch.Tensor, ...]:
    torch.manual_seed(0)
    return (torch.randn(1, 2, 6, 8), torch.randn(6, 8), torch.randn(6, 8))
