"""How durations and sizes are printed."""

from __future__ import annotations

import pytest

from iree_pilot.pipeline.cli.display import output


@pytest.mark.parametrize(
    ("value", "printed"),
    [
        (0.00021, "210 µs"),
        (0.0009996, "1 ms"),
        (0.045, "45 ms"),
        (0.9996, "1 s"),
        (1.236, "1.24 s"),
        (119.4, "119 s"),
        (119.6, "2 min 0 s"),
        (200.0, "3 min 20 s"),
        (359.6, "6 min 0 s"),
        (7205.0, "120 min 5 s"),
    ],
)
def test_durations_are_rounded_before_they_are_split(value: float, printed: str) -> None:
    assert output.seconds(value) == printed


@pytest.mark.parametrize(
    ("value", "printed"),
    [
        (512, "512 B"),
        (999.6, "1 kB"),
        (48_200, "48.2 kB"),
        (999_700, "1 MB"),
        (1_304_000_000, "1.3 GB"),
        (1_500_000_000_000, "1500 GB"),
    ],
)
def test_sizes_have_no_exponent(value: float, printed: str) -> None:
    assert output.size(value) == printed
