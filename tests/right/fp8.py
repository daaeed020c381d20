"""Random programs with FP8 linears and casts among operations in f32 or bf16.

Imports torch.
"""

from __future__ import annotations

import torch

from iree_pilot.models.fp8 import FP8Linear, quantize
from right import floats
from right.steps import Draw, Right, Step, Tensor, chain, tame

_FORMATS = (torch.float8_e4m3fn, torch.float8_e4m3fnuz, torch.float8_e5m2)


def _linear(draw: Draw, x: Tensor) -> Step:
    width, fp8 = draw.size(), draw.one(_FORMATS)
    plain = torch.nn.Linear(x.shape[-1], width, bias=False)
    plain.weight = torch.nn.Parameter(draw.normal(width, x.shape[-1], scale=x.shape[-1] ** -0.5))
    # Half of what is seen saturates beyond the calibrated peak now and then, as in use.
    peak = x.detach().float().abs().max() * draw.one((1.0, 1.0, 0.8))
    compute = draw.one((torch.float32, torch.float32, torch.bfloat16))
    layer = FP8Linear.quantized(plain, peak, fp8, compute)
    return Step(f"{fp8} linear in {compute}", lambda m, x: m.layer(x), layer=layer)


def _cast(draw: Draw, x: Tensor) -> Step:
    fp8 = draw.one(_FORMATS)
    scale = x.detach().float().abs().max() / torch.finfo(fp8).max
    return Step(
        f"to {fp8} and back",
        lambda m, x: (quantize(x, m.scale, fp8).float() * m.scale).to(x.dtype),
        scale=scale,
    )


def _dynamic_cast(draw: Draw, x: Tensor) -> Step:
    """Scaled by the largest of each row."""
    fp8 = draw.one(_FORMATS)

    def call(_: Step, x: Tensor) -> Tensor:
        wide = x.float()
        scale = wide.abs().amax(-1, keepdim=True).clamp(min=1e-3) / torch.finfo(fp8).max
        return (quantize(wide, scale, fp8).float() * scale).to(x.dtype)

    return Step(f"to {fp8} by rows and back", call)


_OTHERS = floats.AMONG_FP8
_MAKERS = (_linear, _linear, _linear, _cast, _dynamic_cast, *_OTHERS)


def program(draw: Draw) -> Right:
    """A program of 2 to 7 steps on [batch, length, width], one of which at least is in FP8."""
    dtype = draw.one((torch.float32, torch.float32, torch.bfloat16))
    x = draw.normal(draw.one((1, 2, 3)), draw.size(), draw.size()).to(dtype)

    def finish(step: Step) -> Step:
        return step if "float8" in step.name else step.to(dtype)

    while True:
        module = chain(draw, x, _MAKERS, draw.one(range(2, 8)), tame, finish)
        if any("float8" in step.name for step in module.steps):
            return Right(module, (x,))
