"""A number taken from 8-bit integers."""

import torch
from torch import nn


class Model(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x - 8


def model() -> nn.Module:
    return Model().eval()


def inputs() -> tuple[torch.Tensor, ...]:
    torch.manual_seed(0)
    return (torch.randint(0, 16, (4, 8), dtype=torch.int8),)
