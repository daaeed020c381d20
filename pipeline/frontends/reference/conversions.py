"""Floats that become integers or answers: where a rounding changes which, where none is defined.

A rounding of what a cast, a rounding to whole numbers or a comparison takes may tip its result;
another result is then as right. A float that its integer type cannot hold has no defined result at
all: "If the truncated value cannot fit into the target type (e.g., casting torch.inf to
torch.long), the behavior is undefined and the result may vary across platforms" (`Tensor.to`).
Imports torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from iree_pilot.pipeline.frontends.reference import draws
from iree_pilot.pipeline.numerics import noise

_CASTS = ("aten::_to_copy", "aten::to", "prims::convert_element_type")
_WHOLE = ("aten::floor", "aten::ceil", "aten::round", "aten::trunc")
_COMPARES = ("aten::gt", "aten::ge", "aten::lt", "aten::le")
#: Move of what is rounded, relative to its size: so many roundings of its own type, or of f32.
_OWN, _SINGLE, _MOST = 8, 64, 2.0**-5

UNDEFINED = (
    "it depends on floats converted to integers that cannot hold them, which PyTorch leaves "
    "undefined"
)


def rounds(target: Any, args: Sequence[Any], kwargs: Any) -> bool:
    """True if a call of an operator makes integers, whole numbers or answers of floats in f64."""
    if not args or not isinstance(args[0], torch.Tensor) or args[0].dtype != torch.float64:
        return False
    name = _name(target)
    if name not in _CASTS:
        return name in (*_WHOLE, *_COMPARES)
    dtypes = [v for v in pytree.tree_leaves((args[1:], kwargs)) if isinstance(v, torch.dtype)]
    return any(map(_whole_type, dtypes))


def tipping(target: Any, args: Sequence[Any], unit: float) -> torch.Tensor:
    """Mask of the elements of the first argument, f64, whose roundings may change the result.

    Whole numbers are taken to be exact, as is what equals the number that it is compared with.
    unit: a rounding of the type that the program has for it.
    """
    values = args[0]
    if _name(target) in _COMPARES:
        return values.isfinite() & (values != args[1])  # type: ignore[no-any-return]
    coarse = values.abs() * unit >= 1 / 2
    return values.isfinite() & ((values != values.trunc()) | coarse)  # type: ignore[no-any-return]


def tilted(values: torch.Tensor, moving: torch.Tensor, tilt: float, unit: float) -> torch.Tensor:
    """The values, f64, where `moving` off by the error of a correct result. tilt: its sign."""
    size = values.abs().nan_to_num(0.0, 0.0, 0.0)
    root = size.square().mean().sqrt() if size.numel() else 0.0
    by = min(max(_OWN * unit, _SINGLE * noise.unit("f32")), _MOST)
    return torch.where(moving, values + tilt * by * (size + root), values)


def converts(target: Any, source: Any, results: Any) -> bool:
    """True if an operator converts a tensor of floats to one of integers."""
    return _name(target) in _CASTS and _floating(source) and _integer(results)


class Conversions(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Within, floats are watched that the integer type which they are converted to cannot hold.

    filler: what comes of them, the least or the most number of the type; None: what PyTorch's
    kernel makes of them. met: whether there was one.
    """

    def __init__(self, filler: Literal["min", "max"] | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.met = False
        self._filler = filler

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        results = func(*args, **(kwargs or {}))
        if not args or not converts(func, args[0], results):
            return results
        outside = _outside(args[0], results.dtype)
        if bool(outside.any()):
            self.met = True
            if self._filler is not None:
                filler = getattr(torch.iinfo(results.dtype), self._filler)
                results.masked_fill_(outside, filler)
        return results


def undefined(
    own: Sequence[torch.Tensor], evaluate: Callable[[], Sequence[torch.Tensor] | None]
) -> list[str]:
    """Reason for each result of an evaluation that PyTorch leaves it undefined; empty if none.

    evaluate: evaluates once more; None if it fails, as an index that is out of a tensor may make
    it: all results depend then.
    """
    found = [False] * len(own)
    for filler in ("min", "max"):
        with Conversions(filler):
            other = evaluate()
        differing = [True] * len(own) if other is None else draws.differing(own, other)
        found = [a or b for a, b in zip(found, differing, strict=True)]
    return [UNDEFINED if depends else "" for depends in found]


def _name(target: Any) -> str:
    return str(getattr(getattr(target, "_schema", None), "name", ""))


def _floating(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def _integer(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and _whole_type(value.dtype)


def _whole_type(dtype: torch.dtype) -> bool:
    return not (dtype.is_floating_point or dtype.is_complex or dtype == torch.bool)


def _outside(values: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Mask of the floats that an integer type cannot hold when they are truncated."""
    limits = torch.iinfo(dtype)
    whole = values.detach().to(torch.float64).trunc()
    # 2**63 - 1 is no float64: less than the next power of two.
    return ~((whole >= float(limits.min)) & (whole < float(limits.max + 1)))
