"""A product of two f16 matrices that f16 cannot hold."""

import torch
from torch import nn


class Model(nn.Module):
    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return a @ b


def model() -> nn.Module:
    return Model().eval()


def inputs() -> tuple[torch.Tensor, ...]:
    torch.manual_seed(0)
    a, b = torch.rand(4, 16) + 90, torch.rand(16, 8) + 52
    return (a.half(), b.half())
