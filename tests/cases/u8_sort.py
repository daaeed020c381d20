"""Unsigned bytes in order, and the largest of them."""

import torch
from torch import nn


class Model(nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x.sort(1)[0], x.topk(3)[0]


def model() -> nn.Module:
    return Model().eval()


def inputs() -> tuple[torch.Tensor, ...]:
    torch.manual_seed(0)
    return (torch.randint(0, 256, (5, 17), dtype=torch.uint8),)
