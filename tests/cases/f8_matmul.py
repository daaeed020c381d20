"""A matrix product of values rounded to FP8."""

import torch
from torch import nn


class Model(nn.Module):
    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return a.to(torch.float8_e4m3fn).float() @ b.to(torch.float8_e4m3fn).float()


def model() -> nn.Module:
    return Model().eval()


def inputs() -> tuple[torch.Tensor, ...]:
    torch.manual_seed(0)
    return (torch.randn(16, 32), torch.randn(32, 16))
