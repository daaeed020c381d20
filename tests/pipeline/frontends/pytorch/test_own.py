"""Decompositions of iree-pilot's own compute what PyTorch does, for the calls they are made for."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = [
    pytest.mark.real,
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),  # torch's own
]


def applied(op: str, *args: Any) -> Any:
    """What a decomposition makes of such a call; None where there is none for it."""
    from iree_pilot.pipeline.frontends.pytorch import gaps

    own = gaps._made_for(op, args, {})
    return own.decompose(*args) if own else None


def test_the_largest_in_any_order_are_sorted() -> None:
    import torch

    x = torch.randn(3, 9)
    for largest in (True, False):
        made = applied("aten.topk", x, 4, -1, largest, False)
        for one, own in zip(made, torch.topk(x, 4, -1, largest, True), strict=True):
            assert torch.equal(one, own)
    assert applied("aten.topk", x, 4) is None
