"""Two linear layers, for batches of any size up to 128."""

import torch
from torch import nn


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(64, 256), nn.Linear(256, 64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(torch.nn.functional.gelu(self.up(x)))


def model() -> nn.Module:
    torch.manual_seed(0)
    return Model().eval()


def inputs() -> tuple[torch.Tensor, ...]:
    return (torch.randn(8, 64),)


dynamic_shapes = {"x": {0: torch.export.Dim("batch", min=1, max=128)}}
