"""Random programs of networks' operations in f32, f16 and bf16.

Imports torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import nn

from right.steps import Draw, Maker, Right, Step, Tensor, chain, tame

#: Not gelu(x, approximate="tanh"): known.GELU.
_POINTWISE: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "silu": F.silu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "gelu": F.gelu,
    "leaky_relu": lambda x: F.leaky_relu(x, 0.1),
    "elu": F.elu,
    "softplus": F.softplus,
    "hardswish": F.hardswish,
    "mish": F.mish,
    "exp": lambda x: torch.exp(torch.clamp(x, -4, 3)),
    "log": lambda x: torch.log(x.abs() + 0.5),
    "sqrt": lambda x: torch.sqrt(x.abs() + 0.1),
    "rsqrt": lambda x: torch.rsqrt(x.square() + 0.1),
    "reciprocal": lambda x: 1 / (x.abs() + 0.25),
    "sin": torch.sin,
    "cos": torch.cos,
    "erf": torch.erf,
    "square": torch.square,
    "cube": lambda x: x**3,
    "abs": torch.abs,
    "neg": torch.neg,
    "clamp": lambda x: torch.clamp(x, -1.5, 0.75),
    "relu6": F.relu6,
    "expm1": lambda x: torch.expm1(torch.clamp(x, -3, 2)),
    "log1p": lambda x: torch.log1p(x.abs()),
    "scale and shift": lambda x: x * 1.7 - 0.3,
    "double": lambda x: x + x,
    "logsigmoid": F.logsigmoid,
    "tanhshrink": lambda x: x - torch.tanh(x),
}


def _pointwise(draw: Draw, x: Tensor) -> Step:
    name = draw.one([*_POINTWISE])
    return Step(name, lambda _, x: _POINTWISE[name](x))


def _linear(draw: Draw, x: Tensor) -> Step:
    width, bias = draw.size(), draw.chance(0.5)
    layer = nn.Linear(x.shape[-1], width, bias=bias)
    # Weights that keep the size of what they are applied to.
    layer.weight = nn.Parameter(draw.normal(width, x.shape[-1], scale=x.shape[-1] ** -0.5))
    return Step(f"linear {x.shape[-1]}->{width}", lambda m, x: m.layer(x), layer=layer)


def _layer_norm(draw: Draw, x: Tensor) -> Step | None:
    if x.shape[-1] < 5:
        return None
    layer = nn.LayerNorm(x.shape[-1])
    layer.weight = nn.Parameter(1 + draw.normal(x.shape[-1], scale=0.2))
    return Step(f"layer_norm {x.shape[-1]}", lambda m, x: m.layer(x), layer=layer)


def _rms_norm(draw: Draw, x: Tensor) -> Step:
    def call(m: Step, x: Tensor) -> Tensor:
        wide = x.float()
        normed = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + 1e-5)
        return normed.to(x.dtype) * m.weight

    return Step("rms_norm", call, weight=1 + draw.normal(x.shape[-1], scale=0.2))


def _softmax(draw: Draw, x: Tensor) -> Step | None:
    axis = draw.one(range(x.dim()))
    if x.shape[axis] < 2:
        return None
    gain = float(x.shape[axis])
    if draw.chance(0.3):
        return Step(f"log_softmax {axis}", lambda _, x: F.log_softmax(x, axis))
    return Step(f"softmax {axis}", lambda _, x: F.softmax(x, axis) * gain)


def _attention(draw: Draw, x: Tensor) -> Step | None:
    if x.dim() != 3:
        return None
    heads, size, width = draw.one((1, 2, 3)), draw.one((4, 7, 16)), x.shape[-1]
    causal, inner = draw.chance(0.5), heads * size
    named = {
        name: nn.Linear(width, inner, bias=draw.chance(0.3)) for name in ("query", "key", "value")
    }

    def call(m: Step, x: Tensor) -> Tensor:
        def split(y: Tensor) -> Tensor:
            return y.unflatten(-1, (heads, size)).transpose(1, 2)

        query, key, value = split(m.query(x)), split(m.key(x)), split(m.value(x))
        scores = query @ key.transpose(-1, -2) / math.sqrt(size)
        if causal:
            place = torch.arange(x.shape[1])
            scores = scores.masked_fill(place[None, :] > place[:, None], -10_000.0)
        mixed = F.softmax(scores, -1, dtype=torch.float32).to(x.dtype) @ value
        return m.output(mixed.transpose(1, 2).flatten(2))

    name = f"{'causal ' if causal else ''}attention {heads}x{size}"
    return Step(name, call, **named, output=nn.Linear(inner, width))


def _rotary(draw: Draw, x: Tensor) -> Step | None:
    if x.dim() != 3 or x.shape[-1] % 2:
        return None
    half = x.shape[-1] // 2
    angles = torch.arange(x.shape[1])[:, None] * 100.0 ** (-torch.arange(half) / half)[None]

    def call(m: Step, x: Tensor) -> Tensor:
        cos, sin = m.angles.cos().to(x.dtype), m.angles.sin().to(x.dtype)
        left, right = x.chunk(2, -1)
        return torch.cat([left * cos - right * sin, right * cos + left * sin], -1)

    return Step("rotary", call, angles=angles.float())


def _gated(draw: Draw, x: Tensor) -> Step:
    width, inner = x.shape[-1], draw.size()
    layers = {n: nn.Linear(width, inner) for n in ("gate", "up")}
    return Step(
        f"x + gated {inner}",
        lambda m, x: x + m.down(F.silu(m.gate(x)) * m.up(x)),
        **layers,
        down=nn.Linear(inner, width),
    )


def _expert(draw: Draw, x: Tensor) -> Step | None:
    """A soft mixture: every expert works, a softmax weighs them."""
    if x.dim() != 3:
        return None
    width, experts = x.shape[-1], draw.one((2, 3, 5))
    weights = draw.normal(experts, width, width, scale=width**-0.5)

    def call(m: Step, x: Tensor) -> Tensor:
        share = F.softmax(m.router(x), -1)
        each = torch.einsum("bsd,edh->bseh", x, m.weights)
        return (share.unsqueeze(-1) * each).sum(2)

    return Step(f"{experts} experts", call, router=nn.Linear(width, experts), weights=weights)


def _reduction(draw: Draw, x: Tensor) -> Step:
    axis, name = draw.one(range(x.dim())), draw.one(("mean", "sum", "amax", "amin", "var", "norm"))

    def call(_: Step, x: Tensor) -> Tensor:
        if name == "var":
            return x * torch.rsqrt(x.var(axis, keepdim=True, unbiased=False) + 0.5)
        if name == "norm":
            return x / (x.norm(dim=axis, keepdim=True) + 0.5)
        if name == "sum":
            return x + x.sum(axis, keepdim=True) / x.shape[axis]
        return x - 0.5 * getattr(x, name)(axis, keepdim=True)

    return Step(f"{name} {axis}", call)


def _running(draw: Draw, x: Tensor) -> Step:
    axis = draw.one(range(x.dim()))
    scale = 1.0 if axis == x.dim() - 1 else x.shape[axis] ** -0.5

    def call(_: Step, x: Tensor) -> Tensor:
        total = torch.cumsum(x, axis)
        return total if scale == 1.0 else total * scale

    return Step(f"cumsum {axis}", call)


def _cast(draw: Draw, x: Tensor) -> Step:
    other = draw.one([t for t in (torch.float32, torch.float16, torch.bfloat16) if t != x.dtype])
    name = draw.one([*_POINTWISE])
    return Step(f"{name} in {other}", lambda _, x: _POINTWISE[name](x.to(other)).to(x.dtype))


def _gather(draw: Draw, x: Tensor) -> Step:
    axis = draw.one(range(1, x.dim()))
    index = draw.whole(0, x.shape[axis], draw.size())
    return Step(f"index_select {axis}", lambda m, x: x.index_select(axis, m.index), index=index)


def _layout(draw: Draw, x: Tensor) -> Step:
    last = x.shape[-1]
    calls: dict[str, Callable[[Tensor], Tensor]] = {
        "flip": lambda x: x.flip(-1),
        "roll": lambda x: torch.cat([x[..., last // 2 :], x[..., : last // 2]], -1),
        "cat": lambda x: torch.cat([x, -x], -1),
        "pad": lambda x: F.pad(x, (1, 2)),
        "slice": lambda x: x[..., : max(1, last - 1)],
        "stride": lambda x: x[..., ::2],
        "transpose": lambda x: x.transpose(-1, -2),
        "stack": lambda x: torch.stack([x, x.square()], -1).flatten(-2),
        "chunks": lambda x: torch.cat([*x.chunk(2, -1)][::-1], -1),
        "repeat": lambda x: x.repeat_interleave(2, -1),
    }
    name = draw.one([*calls])
    return Step(name, lambda _, x: calls[name](x))


def _mask(draw: Draw, x: Tensor) -> Step:
    keep = draw.whole(0, 2, x.shape[-1]).bool()
    if draw.chance(0.5):
        return Step("masked_fill", lambda m, x: x.masked_fill(m.keep, 0.5), keep=keep)
    return Step("where", lambda m, x: torch.where(m.keep, x, x * 0.5), keep=keep)


def _selection(draw: Draw, x: Tensor) -> Step:
    """A choice by value whose result is continuous."""
    calls: dict[str, Callable[[Tensor], Tensor]] = {
        "sort": lambda x: torch.sort(x, -1).values,
        "topk": lambda x: torch.topk(x, max(1, x.shape[-1] // 2), -1).values,
        "maximum": lambda x: torch.maximum(x, x.flip(-1)),
        "where above": lambda x: torch.where(x > 0, x, x.neg() * 0.1),
    }
    name = draw.one([*calls])
    return Step(name, lambda _, x: calls[name](x))


def _product(draw: Draw, x: Tensor) -> Step | None:
    if x.dim() != 3:
        return None
    scale = 1 / x.shape[-1]
    return Step("x x^T x", lambda _, x: (x @ x.transpose(-1, -2)) @ x * scale)


def _lookup(draw: Draw, x: Tensor) -> Step:
    """Rows of a table, added: an embedding of places."""
    table = draw.normal(17, x.shape[-1])
    index = draw.whole(0, 17, x.shape[-2])
    return Step(
        "embedding", lambda m, x: x + F.embedding(m.index, m.table), table=table, index=index
    )


def _conv1d(draw: Draw, x: Tensor) -> Step | None:
    if x.dim() != 3:
        return None
    width, kernel = x.shape[-1], draw.one((1, 2, 3, 4))
    groups = width if draw.chance(0.5) else 1
    layer = nn.Conv1d(width, width, kernel, padding=kernel - 1, groups=groups)
    return Step(
        f"conv1d {width} by {kernel}{', depthwise' if groups > 1 else ''}",
        lambda m, x: m.layer(x.transpose(1, 2))[..., : x.shape[1]].transpose(1, 2),
        layer=layer,
    )


def _conv2d(draw: Draw, x: Tensor) -> Step:
    channels, wanted = x.shape[1], draw.one((1, 3, 4, 8, 16))
    groups = draw.one([1, *([channels] if wanted % channels == 0 else [])])
    kernel, stride = draw.one((1, 2, 3, 5)), draw.one((1, 1, 2))
    if groups > 1 and kernel == 1:
        stride = 1  # known.STRIDED
    layer = nn.Conv2d(
        channels,
        wanted,
        kernel,
        stride=stride,
        padding=draw.one((0, kernel // 2)),
        dilation=draw.one((1, 1, 2)),
        groups=groups,
        bias=draw.chance(0.5),
    )
    nn.init.normal_(layer.weight, std=(kernel * kernel * channels / groups) ** -0.5)
    return Step(f"{layer}", lambda m, x: m.layer(x), layer=layer)


def _conv_transposed(draw: Draw, x: Tensor) -> Step:
    layer = nn.ConvTranspose2d(x.shape[1], draw.one((1, 4, 7)), 2, stride=draw.one((1, 2)))
    return Step(f"{layer}", lambda m, x: m.layer(x), layer=layer)


def _batch_norm(draw: Draw, x: Tensor) -> Step:
    layer = nn.BatchNorm2d(x.shape[1])
    layer.running_mean = draw.normal(x.shape[1], scale=0.3)
    layer.running_var = 0.5 + draw.normal(x.shape[1]).abs()
    return Step(f"{layer}", lambda m, x: m.layer(x), layer=layer)


def _group_norm(draw: Draw, x: Tensor) -> Step | None:
    groups = draw.one([g for g in (1, 2, 4) if x.shape[1] % g == 0])
    if x[0].numel() // groups < 8:
        return None
    layer = nn.GroupNorm(groups, x.shape[1])
    return Step(f"{layer}", lambda m, x: m.layer(x), layer=layer)


def _pool(draw: Draw, x: Tensor) -> Step:
    calls: dict[str, Callable[[Tensor], Tensor]] = {
        "max_pool2d": lambda x: F.max_pool2d(x, 2),
        "max_pool2d 3 by 2": lambda x: F.max_pool2d(x, 3, 2, padding=1),
        "avg_pool2d": lambda x: F.avg_pool2d(x, 2),
        "nearest": lambda x: F.interpolate(x, scale_factor=2, mode="nearest"),
        "x * mean": lambda x: x * torch.sigmoid(x.mean((2, 3), keepdim=True)),
        "pixel_shuffle": lambda x: F.pixel_shuffle(x, 2),
    }
    name = draw.one([*calls])
    return Step(name, lambda _, x: calls[name](x))


def _residual(makers: Sequence[Maker]) -> Maker:
    def make(draw: Draw, x: Tensor) -> Step | None:
        inner = draw.one(makers)(draw, x)
        if inner is None:
            return None
        return Step(f"x + ({inner.name})", lambda m, x: x + m.inner(x), inner=inner)

    return make


_ANY: tuple[Maker, ...] = (
    _pointwise,
    _softmax,
    _reduction,
    _running,
    _cast,
    _gather,
    _layout,
    _mask,
    _selection,
)
OF_SEQUENCES: tuple[Maker, ...] = (
    *_ANY,
    _pointwise,
    _linear,
    _linear,
    _layer_norm,
    _rms_norm,
    _attention,
    _rotary,
    _gated,
    _expert,
    _product,
    _lookup,
    _conv1d,
    _residual((_linear, _attention, _pointwise, _conv1d, _rms_norm)),
)
#: Of which programs with FP8 linears have some in between.
AMONG_FP8: tuple[Maker, ...] = (
    _pointwise,
    _softmax,
    _reduction,
    _layer_norm,
    _rms_norm,
    _attention,
    _gated,
    _layout,
    _residual((_pointwise, _attention, _rms_norm)),
)
_OF_IMAGES: tuple[Maker, ...] = (
    *_ANY,
    _pointwise,
    _conv2d,
    _conv2d,
    _conv2d,
    _conv_transposed,
    _batch_norm,
    _group_norm,
    _pool,
    _pool,
    _residual((_conv2d, _pointwise, _batch_norm)),
)


def program(draw: Draw, dtype: torch.dtype) -> Right:
    """A program of 2 to 8 steps on a sequence [batch, length, width] or an image [N, C, H, W]."""
    if draw.chance(0.35):
        shape: tuple[int, ...] = (draw.one((1, 2)), draw.one((1, 3, 4, 8)), 4 + draw.size(13), 13)
        makers = _OF_IMAGES
    else:
        shape = (draw.one((1, 2, 3, 5)), draw.size(), draw.size())
        makers = OF_SEQUENCES
    x = draw.normal(*shape).to(dtype)
    module = chain(draw, x, makers, draw.one(range(2, 9)), tame, lambda step: step.to(dtype))
    dynamic = x.shape[0] > 1 and draw.chance(0.25)
    return Right(module, (x,), ({0: torch.export.Dim.AUTO},) if dynamic else None)
