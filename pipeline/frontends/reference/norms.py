"""Norms whose mean or variance is off, as it is where each step of a sum is rounded.

What is left of nearly equal values, once their mean is taken away, is little else than its error.

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


#: The mean of values over their last dimension, which is kept.
Mean = Callable[[torch.Tensor], torch.Tensor]


def with_moments(target: Any, args: Any, kwargs: Any, mean: Mean, variance: Mean) -> torch.Tensor:
    """The output of one of `NORMS` in the type of its input, with means and variances of
    the caller's."""
    given = dict(zip((a.name for a in target._schema.arguments), args, strict=False)) | kwargs
    values = given["input"]
    rows = values.reshape(*_rows(target, given), -1)
    rest = rows - mean(rows)
    rest = rest * torch.rsqrt(variance(rest.square()) + given.get("eps", 1e-5))
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
