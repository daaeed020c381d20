"""Indices that a device chose: right where what they point to is equal, or equal but for rounding.

Which of equal values a sort or a top-k names first is nobody's promise. numpy is imported when
something is judged.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iree_pilot.pipeline.numerics import noise
from iree_pilot.pipeline.numerics.deviations import absolute
from iree_pilot.pipeline.numerics.noise import Noise
from iree_pilot.pipeline.program import tensors
from iree_pilot.pipeline.program.program import ELEMENT_TYPES, Indexed, Tensor

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Mask = NDArray[np.bool_]


def wrong(indexed: Indexed, directory: Path, got: Any, own: Any, program: Noise) -> Mask:
    """Mask of the wrong indices.

    got, own: the device's and PyTorch's, flattened. Where PyTorch names different elements of a
    row, so must the device, and the same one where PyTorch does.
    """
    import numpy as np

    rows = tensors.load(directory, indexed.rows).reshape(-1)
    length = indexed.values.shape[-1]
    inside = (got >= 0) & (got < length)
    at, wanted = rows + np.where(inside, got, 0).astype(np.int64), rows + own.astype(np.int64)
    values = _read(directory, indexed.values)
    right = _same(values[at], values[wanted])
    if indexed.precise is not None and not indexed.exact:
        precise = _read(directory, indexed.precise)
        allowed = 2 * _allowed(indexed, values, precise, program)
        with np.errstate(invalid="ignore"):
            right |= np.abs(precise[at] - precise[wanted]) <= allowed[wanted]
    return np.asarray(~(inside & right & _paired(at, wanted)))


def _read(directory: Path, tensor: Tensor) -> Any:
    import numpy as np

    values = tensors.load(directory, tensor).reshape(-1)
    exact = ELEMENT_TYPES[tensor.dtype].family in ("int", "bool")
    return values if exact else values.astype(np.float64)


def _same(values: Any, others: Any) -> Mask:
    import numpy as np

    same = values == others
    if values.dtype != np.float64:
        return np.asarray(same)
    small = noise.smallest("f32")
    both_small = (np.abs(values) < small) & (np.abs(others) < small)
    return np.asarray(same | (np.isnan(values) & np.isnan(others)) | both_small)


def _allowed(indexed: Indexed, values: Any, precise: Any, program: Noise) -> Any:
    """Largest error of a value that a correct result may point to."""
    import numpy as np

    dtype = indexed.values.dtype
    finite = precise[np.isfinite(precise)]
    root = math.sqrt(float(np.square(finite).mean())) if finite.size else 1.0
    step, size = tensors.step(precise, dtype), np.abs(precise) + root
    error = absolute(values, precise)
    with np.errstate(divide="ignore", invalid="ignore"):  # of zeros throughout
        own_excess = float(np.nan_to_num((error - step / 2) / size).max(initial=0.0))
    norm = root * math.sqrt(max(finite.size, 1))
    own_error = math.sqrt(float(np.square(error).sum())) / norm if norm else 0.0
    limit = noise.limits(dtype, values.size, program, own_error, max(own_excess, 0.0)).excess
    return min(limit, noise.most(program, dtype)) * size + step


def _paired(at: Any, wanted: Any) -> Mask:
    """Mask of indices that correspond one to one to those of PyTorch."""
    import numpy as np

    fine = np.ones(at.shape, bool)
    for one, other in ((at, wanted), (wanted, at)):
        order = np.lexsort((other, one))
        clash = (np.diff(one[order]) == 0) & (np.diff(other[order]) != 0)
        fine[order[1:][clash]] = False
        fine[order[:-1][clash]] = False
    return fine
