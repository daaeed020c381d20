"""Small numbers as FP8: those below the smallest normal one are lost on llvm-cpu with 3.13."""

import torch
from torch import nn


class Model(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x * 1.0001).to(torch.float8_e4m3fn).float()


def model() -> nn.Module:
    return Model().eval()


def inputs() -> tuple[torch.Tensor, ...]:
    return (torch.linspace(-0.03, 0.03, 4096),)
