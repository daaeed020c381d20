"""A module with its example inputs as the only function of a model."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from iree_pilot.models.traceable import EntryFunction, Traceable


def function(
    root: nn.Module,
    module: nn.Module,
    example: dict[str, torch.Tensor],
    outputs: tuple[str, ...],
    dynamic: dict[str, dict[int, Any]] | None = None,
) -> Traceable:
    """`module(*example.values())` as the function `main` of a model whose weights are `root`'s.

    The module takes its inputs one by one. outputs: names of the results. dynamic: dimensions by
    input; None if all are static.
    """
    entry = EntryFunction(
        name="main",
        module=module.eval().requires_grad_(False),
        args=tuple(example.values()),
        input_names=tuple(example),
        output_names=outputs,
        dynamic_shapes=None if dynamic is None else tuple(dynamic.get(n) for n in example),
    )
    return Traceable(root=root, functions=(entry,))


class OfModel(nn.Module):
    """A function of a transformers model, as a module of its own."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model: Any = model


class First(nn.Module):
    """A module whose results are a tensor, or a tuple of which only the first is wanted."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *args: torch.Tensor) -> tuple[torch.Tensor]:
        """Returns that tensor, for the module's positional arguments."""
        result = self.module(*args)
        return (result if isinstance(result, torch.Tensor) else result[0],)
