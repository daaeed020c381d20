"""A linear layer with FP8 weights and activations, and the calibration that gives its scales."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

FORMATS = {"e4m3fn": torch.float8_e4m3fn, "e4m3fnuz": torch.float8_e4m3fnuz}


def quantize(x: torch.Tensor, scale: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """`x / scale` rounded to the FP8 `dtype`, values beyond its range saturated."""
    limits = torch.finfo(dtype)
    return torch.clamp(x.float() / scale, limits.min, limits.max).to(dtype)


class FP8Linear(nn.Module):
    """`y = x @ weight.T` with both operands in FP8 and one static f32 scale for each of them.

    Tensors are named and scaled as in published checkpoints: real weight = weight * weight_scale,
    real input = quantised input * input_scale; weight is [out, in], scales have shape [].

    compute f32: the FP8 codes themselves are multiplied and summed in f32, and the scales applied
    to the sum, as FP8 matrix units do. compute f16 or bf16: the operands are first brought back to
    their real size in that dtype (sums of codes leave f16's range) and multiplied there. The result
    has the dtype of `x`.
    """

    def __init__(
        self,
        weight: torch.Tensor,
        weight_scale: torch.Tensor,
        input_scale: torch.Tensor,
        compute: torch.dtype,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.weight_scale = nn.Buffer(weight_scale)
        self.input_scale = nn.Buffer(input_scale)
        self.compute = compute

    @classmethod
    def quantized(
        cls, linear: nn.Linear, peak: torch.Tensor, fp8: torch.dtype, compute: torch.dtype
    ) -> FP8Linear:
        """The FP8 form of a linear layer without bias whose inputs reach `peak` in magnitude.

        Raises ValueError for a layer with a bias.
        """
        if linear.bias is not None:
            raise ValueError(f"{linear}: FP8 linears have no bias")
        largest = torch.finfo(fp8).max
        weight = linear.weight.detach()
        weight_scale = weight.float().abs().max() / largest
        return cls(
            quantize(weight, weight_scale, fp8), weight_scale, peak.float() / largest, compute
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., in] in any float dtype -> [..., out] in the same dtype."""
        codes = quantize(x, self.input_scale, self.weight.dtype)
        if self.compute == torch.float32:
            y = torch.matmul(codes.float(), self.weight.float().t())
            return (y * (self.input_scale * self.weight_scale)).to(x.dtype)
        left = (codes.float() * self.input_scale).to(self.compute)
        right = (self.weight.float() * self.weight_scale).to(self.compute)
        return torch.matmul(left, right.t()).to(x.dtype)


def calibrate(model: nn.Module, run: Callable[[], object]) -> dict[str, torch.Tensor]:
    """Each `nn.Linear`'s largest input magnitude (f32, shape []) while `run` runs, by name."""
    peaks: dict[str, torch.Tensor] = {}

    def watch(name: str) -> Callable[[nn.Module, tuple[torch.Tensor, ...]], None]:
        def record(_: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
            peak = args[0].detach().float().abs().max()
            peaks[name] = torch.maximum(peaks[name], peak) if name in peaks else peak

        return record

    hooks = [
        module.register_forward_pre_hook(watch(name))
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
    ]
    try:
        with torch.no_grad():
            run()
    finally:
        for hook in hooks:
            hook.remove()
    return peaks


def replace_linears(
    model: nn.Module,
    peaks: dict[str, torch.Tensor],
    fp8: torch.dtype,
    compute: torch.dtype,
    keep: tuple[str, ...] = (),
) -> None:
    """Replaces the linears named in `peaks`, except those in `keep`, by their FP8 forms."""
    for name, peak in peaks.items():
        if name in keep:
            continue
        parent, _, attribute = name.rpartition(".")
        linear = model.get_submodule(name)
        assert isinstance(linear, nn.Linear)
        setattr(
            model.get_submodule(parent),
            attribute,
            FP8Linear.quantized(linear, peak, fp8, compute),
        )


def codes_to_fnuz(weight: torch.Tensor) -> torch.Tensor:
    """The codes of an e4m3fn tensor as e4m3fnuz, where each stands for half as much.

    0x80, -0 in e4m3fn, is NaN there and becomes 0; 0x7f and 0xff, NaN in e4m3fn, are the numbers
    240 and -240 there and become NaN, which is 0x80.
    """
    codes = weight.view(torch.uint8)
    nan = (codes & 0x7F) == 0x7F
    codes = torch.where(codes == 0x80, 0, codes)
    return torch.where(nan, 0x80, codes).view(torch.float8_e4m3fnuz)
