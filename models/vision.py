"""The vision side of a multimodal model as a function of its own."""

from __future__ import annotations

import torch

from iree_pilot.models.layer import OfModel


class Features(OfModel):
    """pixel_values [batch, 3, height, width] -> image features [batch, tokens, width].

    model: any transformers model with `get_image_features`; the features are what its projector
    makes for the decoder.
    """

    def forward(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor]:
        """Runs the vision tower and the projector."""
        return (self.model.get_image_features(pixel_values).pooler_output,)


class Embed(OfModel):
    """tokens [batch, length] i64 -> their embeddings [batch, length, width]."""

    def forward(self, tokens: torch.Tensor) -> tuple[torch.Tensor]:
        """Returns the embeddings of the tokens."""
        return (self.model.get_input_embeddings()(tokens),)
