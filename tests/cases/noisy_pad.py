"""A token shift of what a model draws itself: wrong where it pads by a negative number."""

import torch
from torch import nn


class Shift(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        noisy = x * (1 + 0.5 * torch.randn_like(x))
        return nn.functional.pad(noisy, (0, 0, 1, -1)) - noisy


class Coder(nn.Module):
    """Draws as a variational autoencoder does; all that it computes is right."""

    def __init__(self) -> None:
        super().__init__()
        self.encode, self.decode = nn.Linear(8, 8), nn.Linear(4, 8)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mean, spread = self.encode(x).chunk(2, -1)
        return self.decode(mean + torch.randn_like(mean) * torch.exp(spread / 2)), mean


def model() -> nn.Module:
    return Shift().eval()


def coder() -> nn.Module:
    torch.manual_seed(0)
    return Coder().eval()


def inputs() -> tuple[torch.Tensor, ...]:
    torch.manual_seed(1)
    return (torch.randn(1, 4, 8),)
