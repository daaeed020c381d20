"""Tests of a model, as its repository has them: `pytest examples/test_mlp.py`."""

import torch

from iree_pilot.pytest_plugin import Checker


class Mlp(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = torch.nn.Linear(16, 64), torch.nn.Linear(64, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(torch.nn.functional.gelu(self.up(x)))


def test_mlp(iree: Checker) -> None:
    torch.manual_seed(0)
    iree.check(Mlp().eval(), (torch.randn(4, 16),), targets=["llvm-cpu"])


def test_mlp_compiles_for_mi300(iree: Checker) -> None:
    torch.manual_seed(0)
    iree.check(Mlp().eval(), (torch.randn(4, 16),), targets=["hip:gfx942"], allow=["compiled"])
