"""Whole models of different layers, each with something in the middle that does not compile."""

import torch
from torch import nn
from torch.nn import functional as F

WIDTH = 32


class Attention(nn.Module):
    def __init__(self, heads: int = 4) -> None:
        super().__init__()
        self.norm, self.heads = nn.LayerNorm(WIDTH), heads
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        q, k, v = (
            part.view(batch, length, self.heads, -1).transpose(1, 2)
            for part in self.qkv(self.norm(x)).split(width, -1)
        )
        weights = (torch.matmul(q, k.transpose(-1, -2)) * q.shape[-1] ** -0.5).softmax(-1)
        return x + self.out(torch.matmul(weights, v).transpose(1, 2).reshape(batch, length, width))


class Convolution(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Conv1d(WIDTH, WIDTH, 3, padding=1)
        self.grouped = nn.Conv1d(WIDTH, WIDTH, 3, padding=1, groups=4)
        self.gate = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.silu(self.grouped(F.relu(self.wide(x.transpose(1, 2)))))
        return x + (y * torch.sigmoid(self.gate(y.mean(-1))).unsqueeze(-1)).transpose(1, 2)


class Recurrent(nn.Module):
    def __init__(self, steps: int = 4) -> None:
        super().__init__()
        self.steps = steps
        self.input, self.state = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(WIDTH, 2 * WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        state = torch.zeros_like(x[:, 0])
        for step in range(self.steps):
            gate, new = self.input(x[:, step]).chunk(2, -1)
            kept, old = self.state(state).chunk(2, -1)
            gate = torch.sigmoid(gate + kept)
            state = (1 - gate) * torch.tanh(new + old) + gate * state
        return x + state.unsqueeze(1)


class Bytes(nn.Module):
    """A diagnostic, then a signal."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scaled = torch.clamp((x * 4).to(torch.int8), -7, 7)
        return x + (scaled // 3).float()


class Constants(nn.Module):
    """The diagnostic names a constant, one of many that are alike."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x - x.logsumexp(-1, keepdim=True)


class Empty(nn.Module):
    """A signal that names nothing: a sum over no products."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        none = x[:, :, :0]
        return x + torch.matmul(torch.matmul(none, none.transpose(1, 2)), x)


class Largest(nn.Module):
    """A fatal error of LLVM's, on one of many threads."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        wide = torch.cat([x, x], -1)
        return x * (wide * 10).to(torch.int8).amax(-1, keepdim=True).float()


class Two(nn.Module):
    """One failure before code generation, and one that it hides."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((16,), 0.25))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        half = x.to(torch.float8_e4m3fn).to(torch.float16)
        return F.prelu(x, self.weight) + half.float()


class Model(nn.Module):
    def __init__(self, odd: nn.Module) -> None:
        super().__init__()
        before = (Attention(), Convolution(), Recurrent())
        after = (Attention(), Recurrent(), Convolution(), Attention(), Convolution())
        self.layers = nn.Sequential(*before, odd, *after)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x).mean(1)


def inputs() -> tuple[torch.Tensor]:
    return (torch.randn(2, 16, WIDTH, generator=torch.Generator().manual_seed(0)),)


def _model(odd: type[nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return Model(odd()).eval()


def bytes_() -> nn.Module:
    return _model(Bytes)


def constants() -> nn.Module:
    return _model(Constants)


def empty() -> nn.Module:
    return _model(Empty)


def largest() -> nn.Module:
    return _model(Largest)


def two() -> nn.Module:
    return _model(Two)
