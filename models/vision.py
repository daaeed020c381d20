"""The vision side of a multimodal model as a function of its own."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class Features(nn.Module):
    """pixel_values [batch, 3, height, width] -> image features [batch, tokens, width].

    model: any transformers model with `get_image_features`; the features are what its projector
    makes for the decoder.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model: Any = model

    def forward(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor]:
        """Runs the vision tower and the projector."""
        return (self.model.get_image_features(pixel_values).pooler_output,)


class Embed(nn.Module):
    """tokens [batch, length] i64 -> their embeddings [batch, length, width]."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model: Any = model

    def forward(self, tokens: torch.Tensor) -> tuple[torch.Tensor]:
        """Looks the tokens up."""
        return (self.model.get_input_embeddings()(tokens),)
