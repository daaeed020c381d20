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
from iree_pilot.pipeline.program.program import TORCH_ELEMENT_TYPES

_CASTS = ("aten::_to_copy", "aten::to", "prims::convert_element_type")
_WHOLE = ("aten::floor", "aten::ceil", "aten::round", "aten::trunc")
_COMPARES = ("aten::gt", "aten::ge", "aten::lt", "aten::le")
#: Error of what is rounded: so many roundings of its own type, so many times the error of
#: PyTorch's own, and the median of those, which one element may have had none of by luck.
_OWN, _OFF, _MEDIAN = 8, 4, 10

UNDEFINED = (
    "it depends on floats converted to integers that cannot hold them, which PyTorch leaves "
    "undefined"
)


class Roundings:
    """Follows what is rounded through evaluations of one program: in its own types, then in f64,
    then in f64 with what is rounded moved by the error of a correct result, down and up.

    tips: whether such a move changes the result of one. That error is measured: PyTorch's own
    against f64, of the element, and the median of all; of what is given, or exact, it is none.
    """

    def __init__(self) -> None:
        self.tips = False
        self._wide, self._tilt, self._met = False, 0, 0
        self._own: list[tuple[torch.Tensor, float]] = []
        self._errors: list[torch.Tensor] = []

    def start(self, *, wide: bool, tilt: int = 0) -> None:
        """Begins an evaluation. tilt: the sign of the move, 0: none."""
        self._wide, self._tilt, self._met = wide, tilt, 0

    def carried_out(self, target: Any, run: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Results of a call whose operand may be moved."""
        if not _rounds(target, args, kwargs):
            return run(*args, **kwargs)
        number, self._met = self._met, self._met + 1
        operand = _operand(target, args)
        if not self._wide:
            unit = noise.unit(TORCH_ELEMENT_TYPES[str(args[0].dtype).removeprefix("torch.")])
            self._own.append((operand, unit))
        elif not self._tilt:
            self._errors.append(self._error(number, operand, whole=not _compares(target)))
            if not self.tips:
                low, high = (
                    run(args[0] + sign * self._errors[-1], *args[1:], **kwargs) for sign in (-1, 1)
                )
                self.tips = not torch.equal(low, high)
        elif number < len(self._errors) and self._errors[number].shape == operand.shape:
            args = (args[0] + self._tilt * self._errors[number], *args[1:])
        return run(*args, **kwargs)

    def _error(self, number: int, operand: torch.Tensor, *, whole: bool) -> torch.Tensor:
        """The error of each element of an operand in f64; 0 of those that no rounding may tip.

        whole: it is made a whole number, else compared with 0.
        """
        if number >= len(self._own) or self._own[number][0].shape != operand.shape:
            return torch.zeros_like(operand)
        own, unit = self._own[number]
        off = (own - operand).abs().nan_to_num(0.0, 0.0, 0.0)
        if not off.numel() or not bool(off.any()):
            return torch.zeros_like(operand)
        size = operand.abs()
        error = _OWN * unit * size + _OFF * off + _MEDIAN * off.median()
        # What is whole is taken to be exact, unless all numbers of its size are.
        fraction = (operand != operand.trunc()) | (size * unit >= 1 / 2)
        moving = fraction if whole else operand != 0
        return torch.where(moving & operand.isfinite(), error, 0.0)


def _rounds(target: Any, args: Sequence[Any], kwargs: Any) -> bool:
    """True if a call of an operator makes integers, whole numbers or answers of floats."""
    if not args or not _floating(args[0]):
        return False
    name = _name(target)
    if name not in _CASTS:
        return name in (*_WHOLE, *_COMPARES)
    dtypes = [v for v in pytree.tree_leaves((args[1:], kwargs)) if isinstance(v, torch.dtype)]
    return any(map(_whole_type, dtypes))


def rounds(target: Any) -> bool:
    """True if an operator may make integers, whole numbers or answers of floats."""
    return _name(target) in (*_WHOLE, *_COMPARES, *_CASTS)


def _compares(target: Any) -> bool:
    return _name(target) in _COMPARES


def _operand(target: Any, args: Sequence[Any]) -> torch.Tensor:
    """What is rounded, in f64; of a comparison the difference of what is compared."""
    values: torch.Tensor = args[0].detach().to(torch.float64)
    if not _compares(target):
        return values
    other = args[1].to(torch.float64) if isinstance(args[1], torch.Tensor) else args[1]
    return values - other


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
