"""The independent check tells right numbers from wrong ones, and verdicts that disagree."""

from __future__ import annotations

from typing import Any

import independent
import numpy as np
import pytest
from independent import Numbers

VALUES = np.random.default_rng(0).standard_normal((8, 16))


@pytest.mark.parametrize(
    ("found", "numbers"),
    [
        (VALUES.astype(np.float32), "right"),
        (VALUES * 1.001, "unclear"),
        (VALUES * 1.2, "wrong"),
        (np.where(np.arange(16) == 3, VALUES + 5, VALUES), "wrong"),
        (np.where(np.arange(16) == 3, np.nan, VALUES), "wrong"),
        (VALUES[:4], "wrong"),
        (VALUES.round(), "wrong"),
    ],
)
def test_numbers_are_judged_by_fixed_limits(found: Any, numbers: Numbers) -> None:
    assert independent.judged(found, VALUES) == numbers


def test_integers_that_differ_are_for_a_person() -> None:
    whole = np.arange(4)
    assert independent.judged(whole, whole) == "right"
    assert independent.judged(whole + 1, whole) == "unclear"


@pytest.mark.parametrize(
    ("status", "kind", "numbers", "said"),
    [
        ("ok", "", ["right", "right"], "agrees"),
        ("ok", "", ["right", "wrong"], "FALSE OK"),
        ("ok", "", ["unclear"], "by hand: unclear"),
        ("failed", "mismatch", ["right"], "FALSE ACCUSATION"),
        ("failed", "mismatch", ["right", "unclear"], "agrees"),
        ("ran", "", [], "by hand: nothing to compare"),
    ],
)
def test_verdicts_that_disagree_are_false(
    status: str, kind: str, numbers: list[Numbers], said: str
) -> None:
    assert independent.verdict(status, kind, numbers) == said
