"""An attention block whose four projections are FP8 linears: it fails in two ways at once."""

import torch
from torch import nn

FP8 = torch.float8_e4m3fnuz


def quantize(x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    limits = torch.finfo(FP8)
    return torch.clamp(x * scale, limits.min, limits.max).to(FP8)


class FP8Linear(nn.Module):
    """A linear layer in FP8 with static per-tensor scales, f32 inside and f16 out."""

    def __init__(self, features: int) -> None:
        super().__init__()
        weight = torch.randn(features, features) * 0.02
        self.register_buffer("weight_scale", 240.0 / weight.abs().max())
        self.register_buffer("weight", quantize(weight, self.weight_scale))
        self.register_buffer("input_scale", torch.tensor(16.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rounded = quantize(x.float(), self.input_scale)
        product = torch.matmul(rounded.float(), self.weight.float().t())
        return (product / (self.input_scale * self.weight_scale)).half()


class Attention(nn.Module):
    def __init__(self, width: int = 256, heads: int = 4) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (FP8Linear(width) for _ in range(4))
        self.heads = heads

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, _ = x.shape
        q, k, v = (
            p(x).view(batch, length, self.heads, -1).transpose(1, 2)
            for p in (self.q, self.k, self.v)
        )
        attended = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.o(attended.transpose(1, 2).flatten(2, 3))


def model() -> nn.Module:
    torch.manual_seed(0)
    return Attention().eval()


def inputs() -> tuple[torch.Tensor, ...]:
    return (torch.randn(2, 64, 256, dtype=torch.float16),)
