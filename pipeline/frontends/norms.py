"""Norms whose mean is off: what is left of nearly equal values is little else than that error.

Imports torch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

_aten = torch.ops.aten
_LAYER = (_aten.layer_norm.default, _aten.native_layer_norm.default)
NORMS = (
    *_LAYER,
    _aten.group_norm.default,
    _aten.native_group_norm.default,
    _aten.instance_norm.default,
)


def with_means(
    target: Any, args: Any, kwargs: Any, moved: Callable[[torch.Tensor, int], torch.Tensor]
) -> torch.Tensor:
    """The output of one of `NORMS` in the type of its input, computed with other means.

    moved: what becomes of the means of so many values each.
    """
    given = dict(zip((a.name for a in target._schema.arguments), args, strict=False)) | kwargs
    values = given["input"]
    rows = values.reshape(*_rows(target, given), -1)
    rest = rows - moved(rows.mean(-1, keepdim=True), rows.shape[-1])
    rest = rest * torch.rsqrt(rest.square().mean(-1, keepdim=True) + given.get("eps", 1e-5))
    result: torch.Tensor = rest.reshape(values.shape)
    for name, apply in (("weight", torch.mul), ("bias", torch.add)):
        if (factor := given.get(name)) is not None:
            if target not in _LAYER:
                factor = factor.reshape(-1, *[1] * (values.ndim - 2))
            result = apply(result, factor)
    return result


def _rows(target: Any, given: dict[str, Any]) -> tuple[int, ...]:
    """The dimensions that each have a mean of their own."""
    shape = given["input"].shape
    if target in _LAYER:
        return tuple(shape[: len(shape) - len(given["normalized_shape"])])
    groups = given.get("num_groups", given.get("group", shape[1]))
    return (shape[0], groups)
