"""What a model changes is an output, and with `--seeded` what it draws is an input."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from iree_pilot.pipeline.errors import UsageError

pytestmark = [
    pytest.mark.real,
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),  # torch's own
]


def entry(function: Callable[..., Any], *args: Any, module: Any = None) -> Any:
    import torch

    from iree_pilot.models.traceable import EntryFunction

    class Module(torch.nn.Module):
        def forward(self, x: Any, scale: float = 2.0) -> Any:
            return function(x, scale)

    return EntryFunction(name="main", module=module or Module(), args=args)


def drawing(x: Any, scale: float) -> Any:
    import torch

    x = torch.nn.functional.dropout2d(x, 0.5, True) + torch.randn_like(x) * scale
    return torch.nn.functional.dropout(x, 0.5, inplace=True) + torch.empty_like(x).uniform_()


class TestSeeded:
    def test_the_same_draws_give_the_same_numbers_and_others_do_not(self) -> None:
        import torch

        from iree_pilot.pipeline.frontends.pytorch import explicit, exporting, torch_export

        x = torch.randn(2, 3, 4, 4)
        made, names = explicit.seeded(entry(drawing, x))
        assert names == ["dropout2d", "randn_like", "dropout", "uniform_"]
        assert list(made.kwargs) == ["draw0", "draw1", "draw2", "draw3"]
        program = exporting.export(made).program
        explicit.refuse_left(program, "net.py")
        inputs, _ = torch_export._signature(program, made)
        assert [one.name for one in inputs] == ["x", "draw0", "draw1", "draw2", "draw3"]
        once = program.module()(x, **made.kwargs)
        torch.manual_seed(7)
        assert torch.equal(once, made.module(x, **made.kwargs))
        other = {**made.kwargs, "draw1": made.kwargs["draw1"] + 1}
        assert not torch.equal(once, program.module()(x, **other))

    def test_what_draws_nothing_stays_as_it_is(self) -> None:
        import torch

        from iree_pilot.pipeline.frontends.pytorch import explicit

        plain = entry(lambda x, _: torch.nn.functional.dropout(x, 0.5, training=False), x_of(2))
        assert explicit.seeded(plain) == (plain, [])

    def test_what_cannot_be_an_input_is_refused(self) -> None:
        import torch

        from iree_pilot.pipeline.frontends.pytorch import explicit, exporting

        made, names = explicit.seeded(
            entry(lambda x, _: torch.nn.functional.rrelu(x, training=True), x_of(3))
        )
        assert names == []
        program = exporting.export(made).program
        with pytest.raises(UsageError, match="rrelu") as refused:
            explicit.refuse_left(program, "net.py")
        assert "Leave --seeded out" in refused.value.advice


class TestChanged:
    @pytest.fixture
    def counting(self) -> Any:
        import torch

        class Counting(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.register_buffer("count", torch.zeros(2))
                self.register_buffer("constant", torch.ones(2))

            def forward(self, x: Any, y: Any) -> Any:
                self.count += x.sum()
                x.mul_(2)
                return {"sum": x + y + self.constant, "y": y}

        return Counting().eval()

    def test_buffers_and_arguments_are_outputs_with_their_values_after_the_call(
        self, counting: Any
    ) -> None:
        import torch

        from iree_pilot.pipeline.frontends.pytorch import explicit, exporting, torch_export

        before = entry(drawing, x_of(2), x_of(2), module=counting)
        program = exporting.export(before).program
        made = explicit.stateful(before, program)
        assert made.module.extra == ("count", "x")
        program = exporting.export(made).program
        inputs, outputs = torch_export._signature(program, made)
        assert [one.name for one in inputs] == ["x", "y"]
        assert [one.path for one in outputs] == ["sum", "y", "count (changed)", "x (changed)"]
        x = x_of(2)
        result, count, changed = copy.deepcopy(made.module)(x.clone(), x)
        assert torch.equal(count, x.sum().expand(2))
        assert torch.equal(changed, 2 * x)
        assert torch.equal(result["sum"], 2 * x + x + 1)
        assert torch.equal(counting.count, torch.zeros(2)), "a copy changes its own state"

    def test_what_changes_nothing_stays_as_it_is(self) -> None:
        from iree_pilot.pipeline.frontends.pytorch import explicit, exporting

        plain = entry(lambda x, scale: x * scale, x_of(2))
        assert explicit.stateful(plain, exporting.export(plain)[0]) is plain


def x_of(size: int) -> Any:
    import torch

    return torch.arange(1.0, size + 1)
