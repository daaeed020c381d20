"""A matrix product in double precision, from its inputs to its output."""

import torch
from torch import nn


class Model(nn.Module):
    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return a @ b


def model() -> nn.Module:
    return Model().eval()


def inputs() -> tuple[torch.Tensor, ...]:
    torch.manual_seed(0)
    return (
        torch.randn(17, 33, dtype=torch.float64),
        torch.randn(33, 9, dtype=torch.float64),
    )
