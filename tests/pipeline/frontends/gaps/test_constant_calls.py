"""Calls on constants that IREE has no lowering for are computed at the trace, and only those."""

from __future__ import annotations

from typing import Any

import pytest
from exported_functions import exported, operations

pytestmark = [
    pytest.mark.real,
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),  # torch's own
]


def quantile(x: Any) -> Any:
    import torch

    return x * torch.erfinv(torch.tensor([0.5, 0.9]) * 1) + torch.erfinv(torch.tensor(0.5)).exp()


def of_the_input(x: Any) -> Any:
    import torch

    return torch.erfinv(x * torch.tensor(0.5))


def drawn(x: Any) -> Any:
    import torch

    return torch.erfinv(torch.bernoulli(torch.tensor([0.0, 0.0]))) + x


def unwritten(x: Any) -> Any:
    import torch

    return torch.erfinv(torch.empty(2) * torch.tensor(0.5)) + x


def closed(function: Any, *leave: str) -> tuple[dict[str, Any], Any]:
    """(the program without its gaps, what was found)."""
    import torch

    from iree_pilot.pipeline.frontends.gaps import gaps

    return gaps.closed(exported(function, torch.tensor([0.25, -0.5])), leave)


def test_its_value_is_computed_where_the_compiler_has_no_lowering() -> None:
    import torch

    from iree_pilot.pipeline.frontends.pytorch import torch_export

    after, (found,) = closed(quantile)
    assert found.op == "aten.erfinv"
    assert found.reason.endswith("does not lower it")
    assert "computed at the trace" in found.price
    assert "aten.erfinv" not in operations(after)
    assert "aten.exp" in operations(after), "what the compiler can do is left to it"
    assert "erfinv" not in torch_export.to_mlir(after)
    x = torch.tensor([0.25, -0.5])
    assert torch.equal(after["main"].module()(x), quantile(x))


@pytest.mark.parametrize("function", [of_the_input, drawn, unwritten])
def test_what_inputs_or_chance_decide_is_left(function: Any) -> None:
    after, found = closed(function)
    assert found == ()
    assert "aten.erfinv" in operations(after)


def test_the_user_may_leave_it() -> None:
    after, found = closed(quantile, "aten.erfinv")
    assert found == ()
    assert "aten.erfinv" in operations(after)
