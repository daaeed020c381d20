"""Stable Diffusion's UNet from diffusers: the whole, and its block with cross-attention alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from iree_pilot.models import fields as shared
from iree_pilot.models.spec import MOST_LAYERS, Field, ModelSpec, Preset, Value
from iree_pilot.models.versions import Signature

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from torch import nn

    from iree_pilot.models.traceable import Traceable

_RELEASES = ">=0.42,<0.43"
_BLOCKS = "diffusers.models.unets.unet_2d_blocks"

_FIELDS = (
    Field(
        name="layers",
        default=1,
        help="residual layers of a block, each with attention",
        max=MOST_LAYERS,
    ),
    Field(name="heads", default=4, help="attention heads of a block"),
    Field(name="groups", default=8, help="groups of channels that are normalised together"),
    Field(name="text_width", default=32, help="hidden size of the text attended to"),
    Field(name="text", default=7, help="tokens of the text attended to"),
    Field(name="batch", default=1, help="images at once"),
    shared.ATTENTION,
    shared.dtype(),
)
_SD15: dict[str, Value] = {
    "layers": 2,
    "heads": 8,
    "groups": 32,
    "text_width": 768,
    "text": 77,
    "width": 320,
    "image": 64,
    "dtype": "f16",
}

SPECS = (
    ModelSpec(
        name="unet",
        help="Diffusion UNet of images and text (Stable Diffusion 1)",
        build=f"{__name__}:build",
        check=f"{__name__}:check",
        library="diffusers",
        releases=_RELEASES,
        needs=(
            Signature(
                function="diffusers:UNet2DConditionModel.forward",
                parameters=("sample", "timestep", "encoder_hidden_states"),
                release="0.42",
            ),
        ),
        fields=(
            Field(name="width", default=32, help="channels of the first stage"),
            Field(
                name="stages",
                default=2,
                min=2,
                max=MOST_LAYERS,
                help="stages down and up, wider by 2, 4, 4; all but the innermost attend to text",
            ),
            Field(name="image", default=16, help="height and width of the latent image"),
            *_FIELDS,
        ),
        presets=(
            Preset(
                name="tiny", values={}, help="2 stages of 32 and 64 channels", parameters=792_964
            ),
            Preset(
                name="sd1.5",
                values={**_SD15, "stages": 4},
                help="Stable Diffusion 1.5 at full size, without weights",
                parameters=859_520_964,
                weights=False,
            ),
        ),
    ),
    ModelSpec(
        name="unet-block",
        help="Downward block of a diffusion UNet: convolutions, cross-attention",
        build=f"{__name__}:build_block",
        check=f"{__name__}:check",
        library="diffusers",
        releases=_RELEASES,
        needs=(
            Signature(
                function=f"{_BLOCKS}:CrossAttnDownBlock2D.forward",
                parameters=("hidden_states", "temb", "encoder_hidden_states"),
                release="0.42",
            ),
        ),
        fields=(
            Field(name="width", default=32, help="channels"),
            Field(name="image", default=8, help="height and width of the latent image"),
            *_FIELDS,
        ),
        presets=(
            Preset(name="tiny", values={}, help="1 layer, 32 channels", parameters=55_200),
            Preset(
                name="sd1.5",
                values=_SD15,
                help="the first of Stable Diffusion 1.5 at full size, without weights",
                parameters=10_524_480,
                weights=False,
            ),
        ),
    ),
)


def check(fields: dict[str, Any]) -> str:
    """Reason to reject this combination of values, or ""."""
    for name in ("heads", "groups"):
        if problem := shared.multiple(fields, "width", name):
            return problem
    halved = fields.get("stages", 2) - 1
    if fields["image"] % 2**halved:
        return f"image={fields['image']} cannot be halved {halved} times"
    return ""


def build(fields: dict[str, Any], seed: int, weights: bool = True) -> Traceable:
    """diffusers' UNet2DConditionModel: noisy latents, time steps, text -> noise.

    Latents and noise are [batch, 4, image, image], time steps [batch] i64, the text is
    [batch, text, text_width].
    """
    import torch
    from diffusers import UNet2DConditionModel

    stages, batch = fields["stages"], fields["batch"]

    def model() -> nn.Module:
        unet: nn.Module = UNet2DConditionModel(
            sample_size=fields["image"],
            block_out_channels=[fields["width"] * min(2**i, 4) for i in range(stages)],
            layers_per_block=fields["layers"],
            down_block_types=["CrossAttnDownBlock2D"] * (stages - 1) + ["DownBlock2D"],
            up_block_types=["UpBlock2D"] + ["CrossAttnUpBlock2D"] * (stages - 1),
            cross_attention_dim=fields["text_width"],
            attention_head_dim=fields["heads"],  # so named by mistake, as diffusers says
            norm_num_groups=fields["groups"],
        )
        return unet

    return _traceable(
        model,
        lambda dtype: {
            "sample": torch.randn(batch, 4, fields["image"], fields["image"], dtype=dtype),
            "timestep": torch.randint(1000, (batch,)),
            "encoder_hidden_states": _text(fields, dtype),
        },
        ("noise",),
        fields,
        seed,
        weights,
    )


def build_block(fields: dict[str, Any], seed: int, weights: bool = True) -> Traceable:
    """diffusers' CrossAttnDownBlock2D: image, embedded time, text -> skips, half the image.

    The image is [batch, width, image, image], the time [batch, 4 * width]. A skip is a layer's
    result, which the upward block takes.
    """
    import torch
    from diffusers.models.unets.unet_2d_blocks import CrossAttnDownBlock2D

    width, image, batch = fields["width"], fields["image"], fields["batch"]

    def model() -> nn.Module:
        block: nn.Module = CrossAttnDownBlock2D(
            in_channels=width,
            out_channels=width,
            temb_channels=4 * width,
            num_layers=fields["layers"],
            num_attention_heads=fields["heads"],
            cross_attention_dim=fields["text_width"],
            resnet_groups=fields["groups"],
            resnet_eps=1e-5,
        )
        return block

    return _traceable(
        model,
        lambda dtype: {
            "hidden_states": torch.randn(batch, width, image, image, dtype=dtype),
            "temb": torch.randn(batch, 4 * width, dtype=dtype),
            "encoder_hidden_states": _text(fields, dtype),
        },
        (*(f"skip_{i}" for i in range(fields["layers"])), "hidden_states"),
        fields,
        seed,
        weights,
    )


def _text(fields: dict[str, Any], dtype: torch.dtype) -> torch.Tensor:
    import torch

    return torch.randn(fields["batch"], fields["text"], fields["text_width"], dtype=dtype)


def _traceable(
    make: Callable[[], nn.Module],
    inputs: Callable[[torch.dtype], dict[str, torch.Tensor]],
    outputs: tuple[str, ...],
    fields: dict[str, Any],
    seed: int,
    weights: bool,
) -> Traceable:
    """The model that `make` makes, seeded or without values, as one function of its inputs."""
    from dataclasses import replace

    import torch
    from diffusers.models.attention_processor import Attention, AttnProcessor, AttnProcessor2_0
    from torch import nn
    from torch._subclasses.fake_tensor import FakeTensorMode

    from iree_pilot.models.layer import function
    from iree_pilot.models.traceable import DTYPES, seeded, unsettle

    class Tensors(nn.Module):
        """The results of a block, which are those of all its layers, or of the whole."""

        def __init__(self, model: nn.Module) -> None:
            super().__init__()
            self.model = model

        def forward(self, *args: torch.Tensor) -> tuple[torch.Tensor, ...]:
            result = self.model(*args)
            return tuple(result[-1]) if isinstance(result, tuple) else (result.sample,)

    dtype = DTYPES[fields["dtype"]]
    processor = AttnProcessor() if fields["attention"] == "eager" else AttnProcessor2_0()
    mode = None if weights else FakeTensorMode()
    with mode or seeded(seed):
        before = torch.get_default_dtype()
        torch.set_default_dtype(dtype)  # a model of fake tensors cannot be cast once it is made
        try:
            root = make()
        finally:
            torch.set_default_dtype(before)
        if weights:
            unsettle(root)
        for module in root.modules():
            if isinstance(module, Attention):
                module.set_processor(processor)
        traceable = function(root, Tensors(root), inputs(dtype), outputs)
    return replace(traceable, mode=mode)
