"""Six blocks, of which the fifth has a gate that looks at its values: it does not trace."""

import torch
from torch import nn


class Gate(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.mix = nn.Linear(width, width)

    def forward(self, x):
        y = self.mix(x)
        if y.mean() > 0:
            return torch.relu(y)
        return y


class Block(nn.Module):
    def __init__(self, width, gated):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.mix = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))
        self.gate = Gate(width) if gated else nn.Identity()

    def forward(self, x, scale=1.0):
        return x + self.gate(self.mix(self.norm(x))) * scale


class Net(nn.Module):
    def __init__(self, width=16, layers=6):
        super().__init__()
        self.embed = nn.Embedding(100, width)
        self.layers = nn.ModuleList(Block(width, i == 4) for i in range(layers))

    def forward(self, tokens):
        x = self.embed(tokens)
        for layer in self.layers:
            x = layer(x, scale=0.5)
        return x


def model():
    return Net().eval()


def inputs():
    return (torch.randint(0, 100, (2, 8)),)
