"""A duration or a size is written as it can be read again."""

from __future__ import annotations

import pytest

from iree_pilot.pipeline import quantities


@pytest.mark.parametrize(
    ("typed", "written"),
    [
        ("90s", "90s"),
        ("9min", "9min"),
        ("540", "9min"),
        ("2h", "2h"),
        ("1.5", "1.5s"),
        ("1234567", "1234567s"),
    ],
)
def test_a_duration(typed: str, written: str) -> None:
    assert quantities.duration_text(quantities.duration(typed)) == written
    assert quantities.duration(written) == quantities.duration(typed)


@pytest.mark.parametrize(
    ("typed", "written"),
    [("4GiB", "4GiB"), ("4GB", "4GB"), ("1.5GiB", "1536MiB"), ("500M", "500MB"), ("17B", "17B")],
)
def test_a_size(typed: str, written: str) -> None:
    assert quantities.size_text(quantities.size(typed)) == written
    assert quantities.size(written) == quantities.size(typed)
