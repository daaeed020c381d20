"""Transformer blocks around a PReLU with a weight for each position."""

import torch
from torch import nn


class Block(nn.Module):
    def __init__(self, width: int = 64, heads: int = 4) -> None:
        super().__init__()
        self.before, self.after = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.heads = heads

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        q, k, v = (
            part.view(batch, length, self.heads, -1).transpose(1, 2)
            for part in self.qkv(self.before(x)).split(width, -1)
        )
        weights = (torch.matmul(q, k.transpose(-1, -2)) * q.shape[-1] ** -0.5).softmax(-1)
        attended = torch.matmul(weights, v).transpose(1, 2).reshape(batch, length, width)
        x = x + self.out(attended)
        return x + self.down(nn.functional.gelu(self.up(self.after(x))))


class Odd(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((16,), 0.25))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.prelu(x, self.weight)


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.front = nn.Sequential(*(Block() for _ in range(3)))
        self.odd = Odd()
        self.back = nn.Sequential(*(Block() for _ in range(4)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.back(self.odd(self.front(x))).mean(1)


def model() -> nn.Module:
    torch.manual_seed(0)
    return Model().eval()


def inputs() -> tuple[torch.Tensor, ...]:
    return (torch.randn(2, 16, 64),)
