"""NaN through a clamp and an argmax: PyTorch passes it on, the compiled program does not.

What is wrong uses none of the model's weights.
"""

import torch
from torch import nn


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(16, 8)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        hidden = torch.tanh(x * 0.5) + x
        kept = torch.clamp(hidden, -1.0, 1.0) * 2.0
        return kept, torch.argmax(hidden, dim=-1), self.out(hidden[2:])


def model() -> nn.Module:
    torch.manual_seed(0)
    return Model().eval()


def inputs() -> tuple[torch.Tensor, ...]:
    values = torch.linspace(-3.0, 3.0, 64).reshape(4, 16)
    values[1, 5] = float("nan")
    return (values,)
