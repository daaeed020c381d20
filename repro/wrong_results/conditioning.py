"""Test for ill-conditioned programs, whose errors say nothing about the compiler.

Where the precise result moves by as much as the error when the inputs are moved by less than their
own type resolves, no implementation can be blamed for it.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import msgspec

from iree_pilot.pipeline.program import tensors
from iree_pilot.pipeline.program.program import ELEMENT_TYPES, Reference, Tensor

#: An error so many times what the inputs' last bits move the result by is not theirs.
_MOVED = 8.0


def forgiven(
    outputs: Sequence[Tensor],
    reference: Reference,
    jittered: Sequence[Sequence[Tensor]],
    directory: Path,
) -> tuple[Tensor, ...]:
    """The outputs with what may be the inputs' last bits put right, in files in `directory`.

    outputs: what the device gave; jittered: precise results for inputs that were moved. Files are
    absolute.
    """
    import numpy as np

    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    made = []
    for index, got in enumerate(outputs):
        own = reference.outputs[index]
        fits = (got.dtype, got.shape) == (own.dtype, own.shape)
        if not fits or not jittered or ELEMENT_TYPES[own.dtype].family == "complex":
            made.append(got)
            continue
        values = tensors.load(Path(), got)
        right = tensors.load(Path(), own)
        centre = tensors.load(Path(), reference.precise[index]).astype(np.float64)
        moved = np.zeros(own.shape)
        with np.errstate(invalid="ignore", over="ignore"):
            for once in jittered:
                other = tensors.load(Path(), once[index]).astype(np.float64)
                same = (other == centre) | (np.isnan(other) & np.isnan(centre))
                step = np.abs(other - centre)
                # What becomes or stops being a number may be anything.
                step = np.where(np.isfinite(step), step, np.inf)
                moved = np.maximum(moved, np.where(same, 0.0, step))
            error = np.abs(values.astype(np.float64) - centre)
            within = (moved > 0) & (np.where(np.isfinite(error), error, np.inf) <= _MOVED * moved)
        mended = np.where(within, right, values)
        file = directory / f"{index}.bin"
        file.write_bytes(mended.astype(values.dtype).tobytes())
        made.append(msgspec.structs.replace(got, file=str(file.absolute())))
    return tuple(made)
