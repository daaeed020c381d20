"""NaN through a clamp and an argmax: PyTorch passes it on, the compiled program does not."""

import torch
from torch import nn


class Model(nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        hidden = torch.tanh(x * 0.5) + x
        return torch.clamp(hidden, -1.0, 1.0) * 2.0, torch.argmax(hidden, dim=-1)


def model() -> nn.Module:
    return Model().eval()


def inputs() -> tuple[torch.Tensor, ...]:
    values = torch.linspace(-3.0, 3.0, 64).reshape(4, 16)
    values[1, 5] = float("nan")
    return (values,)
