"""A Llama-like decoder in f32, in which one layer's attention output goes through an FP8 linear."""

import math

import torch
from torch import nn

WIDTH, HEADS, HIDDEN, VOCABULARY, LENGTH = 256, 4, 512, 512, 64
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


class RMSNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(WIDTH))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x.float()
        return (y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + 1e-5)).to(x.dtype) * self.gain


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    a, b = x.chunk(2, -1)
    return x * cos + torch.cat((-b, a), -1) * sin


def linear(features_in: int, features_out: int) -> nn.Module:
    return nn.Linear(features_in, features_out, bias=False)


class Layer(nn.Module):
    def __init__(self, *, fp8: bool) -> None:
        super().__init__()
        self.q, self.k, self.v = (linear(WIDTH, WIDTH) for _ in range(3))
        self.o = FP8Linear(WIDTH) if fp8 else linear(WIDTH, WIDTH)
        self.gate, self.up = linear(WIDTH, HIDDEN), linear(WIDTH, HIDDEN)
        self.down = linear(HIDDEN, WIDTH)
        self.before, self.after, self.mlp = RMSNorm(), RMSNorm(), RMSNorm()

    def forward(
        self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, mask: torch.Tensor
    ) -> torch.Tensor:
        batch, length, _ = x.shape
        y = self.before(x)
        q, k, v = (
            p(y).view(batch, length, HEADS, -1).transpose(1, 2) for p in (self.q, self.k, self.v)
        )
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        weights = torch.softmax((q @ k.transpose(2, 3)) / math.sqrt(q.shape[-1]) + mask, -1)
        attended = (weights @ v).transpose(1, 2).flatten(2, 3)
        x = x + self.after(self.o(attended)).to(x.dtype)
        y = self.mlp(x)
        return x + self.down(nn.functional.silu(self.gate(y)) * self.up(y))


class Decoder(nn.Module):
    def __init__(self, layers: int, fp8_layer: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.layers = nn.ModuleList(Layer(fp8=i == fp8_layer) for i in range(layers))
        self.norm = RMSNorm()
        self.head = linear(WIDTH, VOCABULARY)
        half = WIDTH // HEADS
        frequency = 1 / 10000 ** (torch.arange(0, half, 2) / half)
        angle = torch.outer(torch.arange(LENGTH), frequency).repeat(1, 2)
        self.register_buffer("cos", angle.cos())
        self.register_buffer("sin", angle.sin())
        self.register_buffer("mask", torch.full((LENGTH, LENGTH), -1e4).triu(1))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embedding(tokens)
        for layer in self.layers:
            x = layer(x, self.cos, self.sin, self.mask)
        return self.head(self.norm(x))


def layers16() -> nn.Module:
    torch.manual_seed(0)
    return Decoder(16, 9).eval()


def layers32() -> nn.Module:
    torch.manual_seed(0)
    return Decoder(32, 20).eval()


def inputs() -> tuple[torch.Tensor, ...]:
    torch.manual_seed(0)
    return (torch.randint(0, VOCABULARY, (2, LENGTH)),)
