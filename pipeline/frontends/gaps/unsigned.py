"""Arithmetic of unsigned bytes in 32 bits, as torch-mlir takes bytes as signed.

Runs in the tracing child; imports torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

_BYTES = range(256)
#: What may stand beside bytes; of others PyTorch makes types that 32 bits are not turned into.
_BESIDE = (torch.uint8, torch.int32, torch.int64)


def in_32_bits(op: Callable[..., Any]) -> Callable[..., Any]:
    """The operation on 32-bit integers, of which bytes are made where its result has bytes.

    Exact: 32 bits hold the numbers of bytes, and the low 8 bits of sums and products are the same.
    """

    def decompose(*args: Any, **kwargs: Any) -> Any:
        made = op(*map(_wide, args), **kwargs)
        tensors = [one for one in args if isinstance(one, torch.Tensor)]
        own = torch.result_type(*tensors) if len(tensors) == 2 else torch.uint8
        return made.to(own) if (made.dtype, own) == (torch.int32, torch.uint8) else made

    return decompose


def binary(x: Any, other: Any, *_: Any, **kwargs: Any) -> bool:
    """True for bytes beside floats, bytes, wider integers, or a number that bytes hold."""
    tensors = [one for one in (x, other) if isinstance(one, torch.Tensor)]
    held = not isinstance(other, int) or (type(other) is int and other in _BYTES)
    known = all(t.dtype in _BESIDE or t.dtype.is_floating_point for t in tensors)
    return held and known and any(t.dtype == torch.uint8 for t in tensors)


def unlike(x: Any, other: Any, *_: Any, **kwargs: Any) -> bool:
    """True for bytes beside something else."""
    both = all(isinstance(one, torch.Tensor) and one.dtype == torch.uint8 for one in (x, other))
    return binary(x, other) and not both


def with_number(x: Any, other: Any, *_: Any, **kwargs: Any) -> bool:
    """True for bytes and a number."""
    return isinstance(other, int | float) and binary(x, other)


def with_fraction(x: Any, other: Any, *_: Any, **kwargs: Any) -> bool:
    """True for bytes and a number with a fraction."""
    return isinstance(other, float) and binary(x, other)


def alone(x: Any, *_: Any, **kwargs: Any) -> bool:
    """True for bytes."""
    return bool(x.dtype == torch.uint8)


def _wide(value: Any) -> Any:
    bytes_ = isinstance(value, torch.Tensor) and value.dtype == torch.uint8
    return value.to(torch.int32) if bytes_ else value


def _both(names: Sequence[str]) -> list[str]:
    return [f"aten.{name}.{kind}" for name in names for kind in ("Tensor", "Scalar")]


_DIVISIONS = ("aten.div.Tensor_mode", "aten.div.Scalar_mode", "aten.floor_divide")
#: By the names of what torch-mlir refuses of bytes, or computes wrong: in which calls. An overload
#: for tensors takes a number of Python too.
CALLS: Mapping[str, Callable[..., bool]] = {
    **dict.fromkeys((*_both(("div", "remainder", "fmod")), *_DIVISIONS), binary),
    "aten.rsub.Scalar": binary,
    **dict.fromkeys(_both(("mul", "eq", "ne", "lt", "le", "gt", "ge")), unlike),
    **dict.fromkeys(_both(("sub",)), with_number),
    **dict.fromkeys(_both(("add",)), with_fraction),
    **dict.fromkeys(("aten.abs", "aten.reciprocal", "aten.sum", "aten.prod"), alone),
    **dict.fromkeys(("aten.sum.dim_IntList", "aten.prod.dim_int"), alone),
}
