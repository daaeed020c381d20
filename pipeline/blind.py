"""References that tell nothing: whatever gives one number throughout agrees with them.

An all-zero output is what a buffer holds that nobody wrote, and what a layer that is not
initialised computes from anything; agreeing with it proves nothing. numpy is imported when a
reference is read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from pipeline import tensors
from pipeline.program import ELEMENT_TYPES, Tensor

_ADVICE = "initialise the model's weights, or give other inputs"


def reasons(outputs: Sequence[Tensor], directory: Path) -> tuple[str, ...]:
    """For each reference output why agreeing with it proves nothing; "" where it proves something.

    A floating-point tensor of more than one element tells nothing where it is all zero or nowhere
    finite. Where every output is one number throughout, none tells anything; integers and single
    numbers other than zero do, as something must have computed them. Empty outputs are left out.
    """
    constants = [_constant(directory / o.file, o) if o.bytes else None for o in outputs]
    wide = [_wide(o) for o in outputs]
    dull = [
        not output.bytes or (constant is not None and (many or constant == 0))
        for output, constant, many in zip(outputs, constants, wide, strict=True)
    ]
    everything = all(dull) and any(wide)
    return tuple(
        _why(constant)
        if constant is not None
        and (everything or (many and (constant == 0 or math.isnan(constant))))
        else ""
        for constant, many in zip(constants, wide, strict=True)
    )


def _wide(output: Tensor) -> bool:
    rounds = ELEMENT_TYPES[output.dtype].family in ("float", "complex")
    return rounds and math.prod(output.shape) > 1


def _constant(file: Path, output: Tensor) -> float | None:
    """The number that the output is throughout, NaN where none is finite; None where it varies."""
    import numpy as np

    low, high = math.inf, -math.inf
    for start in range(0, tensors.length(output), tensors.PIECE):
        values = tensors.read(file, output, start)
        values = values[np.isfinite(values)]
        if values.size:
            low, high = min(low, float(values.min())), max(high, float(values.max()))
        if low < high:
            return None
    return low if math.isfinite(low) else math.nan


def _why(constant: float) -> str:
    if math.isnan(constant):
        return f"the reference has no finite number: {_ADVICE}"
    named = "all zero" if constant == 0 else f"{constant:g} throughout"
    same = "zeros" if constant == 0 else "that number"
    return f"the reference is {named}, so that any result of {same} would pass: {_ADVICE}"
