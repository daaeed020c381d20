"""References that tell nothing: whatever gives one number throughout agrees with them.

An all-zero output is what a buffer holds that nobody wrote, and what a layer that is not
initialised computes from anything; agreeing with it proves nothing. Where all of it is below the
smallest normal number, a device may make zeros of it. numpy is imported when a reference is read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from iree_pilot.pipeline.numerics import noise
from iree_pilot.pipeline.program import tensors
from iree_pilot.pipeline.program.program import ELEMENT_TYPES, Tensor

_SMALL = (
    "all of the reference is below the smallest normal number, which a device may make 0: give "
    "other inputs"
)
_EMPTY = "the reference has no elements: give other inputs"
#: See `pipeline.numerics.pairs.Pair.unsettled`.
UNSETTLED = (
    "all of it depends on numbers below the smallest normal one, which a device may make 0: give "
    "other inputs"
)
_INPUTS = "give other inputs"
_ADVICE = f"initialise the model's weights, or {_INPUTS}"


def reasons(
    outputs: Sequence[Tensor], directory: Path, *, drawn: bool = False, expected: bool = False
) -> tuple[str, ...]:
    """Reason for each reference output that agreeing with it proves nothing; "" if it does.

    A floating-point tensor of more than one element tells nothing where it is nowhere finite. Where
    every output is one number throughout, none tells anything; beside others that vary zeros do, as
    in what is weighted by a router that chose nothing. Integers and single numbers tell something,
    as something must have computed them, unless they are zero or not finite. Empty outputs are left
    out. drawn: there are weights, and not those of the user's files. expected: one number
    throughout is what has to come out, and is no reason.
    """
    advice = _ADVICE if drawn else _INPUTS
    read = [_constant(directory / o.file, o) if o.bytes else (None, False) for o in outputs]
    constants = [constant for constant, _ in read]
    wide = [_rounds(o) and math.prod(o.shape) > 1 for o in outputs]
    dull = [
        not output.bytes
        or (constant is not None and (values or constant == 0 or math.isnan(constant)))
        for output, constant, values in zip(outputs, constants, wide, strict=True)
    ]
    everything = all(dull)
    return tuple(
        _SMALL
        if small
        else f"{_why(constant)}: {advice}"
        if constant is not None
        and not expected
        and (everything or (values and math.isnan(constant)))
        else ""
        for (constant, small), values in zip(read, wide, strict=True)
    )


def empty(outputs: Sequence[Tensor]) -> tuple[str, ...]:
    """Reason for each output if none has any elements; "" for each if one has."""
    return ("" if any(o.bytes for o in outputs) else _EMPTY,) * len(outputs)


def _rounds(output: Tensor) -> bool:
    return ELEMENT_TYPES[output.dtype].family in ("float", "complex")


def _constant(file: Path, output: Tensor) -> tuple[float | None, bool]:
    """(the number that the output is throughout, NaN where none is finite, None where it varies;
    whether it is zero only where what is below the smallest normal number is)."""
    import numpy as np

    rounds = _rounds(output)
    smallest = noise.smallest(output.dtype) if rounds else 0.0
    low, high, small = math.inf, -math.inf, False
    for start in range(0, tensors.length(output), tensors.PIECE):
        values = tensors.read(file, output, start)
        values = values[np.isfinite(values)]
        if rounds:
            tiny = (np.abs(values) < smallest) & (values != 0)
            small |= bool(tiny.any())
            values = np.where(tiny, 0.0, values)
        if values.size:
            low, high = min(low, float(values.min())), max(high, float(values.max()))
        if low < high:
            return None, False
    return (low if math.isfinite(low) else math.nan), small and low == 0


def _why(constant: float) -> str:
    if math.isnan(constant):
        return "the reference has no finite number"
    named = "all zero" if constant == 0 else f"{constant:g} throughout"
    same = "zeros" if constant == 0 else "that number"
    return f"the reference is {named}, so that any result of {same} would pass"
