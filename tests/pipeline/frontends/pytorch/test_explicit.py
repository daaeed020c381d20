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

    def test_what_it_draws_with_is_an_output(self) -> None:
        import torch

        from iree_pilot.pipeline.frontends.pytorch import explicit, exporting, torch_export

        def drawing_by_values(x: Any, scale: float) -> Any:
            noise = torch.normal(x * scale, std=x + 1) + torch.bernoulli(x, 0.5)
            y = torch.zeros_like(x).bernoulli_(x / 4)
            rate = x + 2
            drawn = torch.poisson(rate)
            rate.zero_()
            return noise + y + drawn + torch.bernoulli(input=x / 8)

        x = x_of(3)
        made, names = explicit.seeded(entry(drawing_by_values, x))
        assert names == ["normal", "bernoulli", "bernoulli_", "poisson", "bernoulli"]
        operands = ["draw0.mean", "draw0.std", "draw2.p", "draw3.rate", "draw4.p"]
        assert sorted(made.module.extra) == operands
        program = exporting.export(made).program
        _, outputs = torch_export._signature(program, made)
        assert sorted(one.path for one in outputs)[1:] == [f"{n} (drawn with)" for n in operands]
        _, *given = program.module()(x, **made.kwargs)
        found = dict(zip(made.module.extra, given, strict=True))
        assert torch.equal(found["draw0.mean"], 2 * x)
        assert torch.equal(found["draw0.std"], x + 1)
        assert torch.equal(found["draw2.p"], x / 4)
        assert torch.equal(found["draw3.rate"], x + 2), "as it was when it was drawn with"
        assert torch.equal(found["draw4.p"], x / 8)

    def test_what_draws_and_changes_returns_both(self) -> None:
        import torch

        from iree_pilot.pipeline.frontends.pytorch import explicit, exporting

        def changing(x: Any, scale: float) -> Any:
            drawn = torch.bernoulli(x / 4)
            x.mul_(scale)
            return drawn

        made, _ = explicit.seeded(entry(changing, x_of(3)))
        made = explicit.stateful(made, exporting.export(made).program)
        _, p, x = exporting.export(made).program.module()(x_of(3), **made.kwargs)
        assert made.module.labels == ("draw0.p (drawn with)", "x (changed)")
        assert torch.equal(p, x_of(3) / 4)
        assert torch.equal(x, x_of(3) * 2)

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
        assert explicit.unreturned(before, program) == ("count", "x")
        program = exporting.export(made).program
        inputs, outputs = torch_export._signature(program, made)
        assert [one.name for one in inputs] == ["x", "y"]
        assert [one.path for one in outputs] == ["sum", "y", "count (changed)", "x (changed)"]
        assert explicit.unreturned(made, program) == ()
        x = x_of(2)
        result, count, changed = copy.deepcopy(made.module)(x.clone(), x)
        assert torch.equal(count, x.sum().expand(2))
        assert torch.equal(changed, 2 * x)
        assert torch.equal(result["sum"], 2 * x + x + 1)
        assert torch.equal(counting.count, torch.zeros(2)), "a copy changes its own state"

    @pytest.mark.parametrize("strict", [False, True])
    def test_a_parameter_and_tensors_in_containers_are_outputs_too(self, strict: bool) -> None:
        import dataclasses

        import torch

        from iree_pilot.pipeline.frontends.pytorch import explicit, exporting, torch_export

        class Caching(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.w = torch.nn.Parameter(torch.ones(2), requires_grad=False)

            def forward(self, x: Any, caches: Any, *more: Any, **named: Any) -> Any:
                self.w.add_(1)
                caches["k"][1][:, 1] = x
                more[1].mul_(2)
                named["mask"].mul_(3)
                return x * self.w

        def given() -> tuple[Any, ...]:
            caches = {"v": torch.ones(1), "k": [torch.ones(1), torch.ones(2, 3)]}
            return (x_of(2), caches, x_of(1), x_of(1)), {"other": x_of(1), "mask": x_of(1)}

        args, kwargs = given()
        before = dataclasses.replace(
            entry(drawing, *args, module=Caching()), kwargs=kwargs, strict=strict
        )
        made = explicit.stateful(before, exporting.export(before).program)
        assert made.module.extra == ("w", "caches['k'][1]", "more[1]", "mask")
        exported = exporting.export(made)
        assert exported.strict is strict
        assert explicit.unreturned(made, exported.program) == ()
        _, outputs = torch_export._signature(exported.program, made)
        assert [one.path for one in outputs][1:] == [f"{n} (changed)" for n in made.module.extra]
        args, kwargs = given()
        _, w, cache, more, mask = exported.program.module()(*args, **kwargs)
        assert w.tolist() == [2, 2]
        assert cache.tolist() == [[1, 1, 1], [1, 2, 1]]
        assert (more.tolist(), mask.tolist()) == ([2], [3])

    def test_what_changes_nothing_stays_as_it_is(self) -> None:
        from iree_pilot.pipeline.frontends.pytorch import explicit, exporting

        plain = entry(lambda x, scale: x * scale, x_of(2))
        assert explicit.stateful(plain, exporting.export(plain)[0]) is plain


def x_of(size: int) -> Any:
    import torch

    return torch.arange(1.0, size + 1)
