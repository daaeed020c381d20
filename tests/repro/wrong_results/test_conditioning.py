"""What nobody computes right is no fault: what the inputs' last bits explain is forgiven."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from iree_pilot.pipeline.program import tensors
from iree_pilot.pipeline.program.program import Reference, Tensor
from iree_pilot.repro.wrong_results.conditioning import forgiven


@pytest.fixture
def saved(tmp_path: Path) -> object:
    def save(name: str, values: list[float], dtype: str = "float32") -> Tensor:
        made = tensors.save(np.array(values, dtype), tmp_path, name)
        return Tensor(dtype=made.dtype, shape=made.shape, file=str(tmp_path / name))

    return save


def after(saved: object, tmp_path: Path, got: list[float], moved: list[float]) -> list[float]:
    """What is left of the device's numbers where [1, 1, 1] is right and inputs lead to `moved`."""
    assert callable(saved)
    own = saved("own", [1, 1, 1])
    precise = saved("precise", [1, 1, 1], "float64")
    outputs = [saved("got", got)]
    jittered = [[saved("moved", moved, "float64")]]
    reference = Reference(outputs=(own,), precise=(precise,), precise_dtype="f64")
    (left,) = forgiven(outputs, reference, jittered, tmp_path / "forgiven")
    values: list[float] = tensors.load(Path(), left).tolist()
    return values


def test_an_error_as_large_as_the_inputs_last_bits_make_is_forgiven(
    saved: object, tmp_path: Path
) -> None:
    assert after(saved, tmp_path, [1.5, 1, 1], [0.9, 1, 1]) == [1, 1, 1]


def test_an_error_far_beyond_that_is_not(saved: object, tmp_path: Path) -> None:
    assert after(saved, tmp_path, [2.0, 1, 1], [0.9, 1, 1]) == [2.0, 1, 1]


def test_an_error_where_nothing_moves_is_not(saved: object, tmp_path: Path) -> None:
    assert after(saved, tmp_path, [1, 1.01, 1], [0.9, 1, 1]) == [1, np.float32(1.01), 1]


def test_nan_is_forgiven_only_where_the_inputs_last_bits_can_make_it(
    saved: object, tmp_path: Path
) -> None:
    nan = float("nan")
    assert after(saved, tmp_path, [nan, 1, 1], [nan, 1, 1]) == [1, 1, 1]
    left = after(saved, tmp_path, [1, nan, 1], [nan, 1, 1])
    assert np.isnan(left[1])
