"""What draws random numbers is found, with the outputs that depend on it, and nothing else is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from iree_pilot.pipeline.frontends.pytorch import exporting  # noqa: E402
from iree_pilot.pipeline.frontends.reference import draws  # noqa: E402

pytestmark = [
    pytest.mark.real,
    pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning"),  # torch's own
]


class Function(torch.nn.Module):  # type: ignore[misc, name-defined]
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function
        self.eval()

    def forward(self, *args: Any) -> Any:
        return self.function(*args)


def sources(function: Callable[..., Any], *args: Any) -> list[tuple[str, ...]]:
    from iree_pilot.models.traceable import EntryFunction

    made = exporting.export(EntryFunction(name="main", module=Function(function), args=args))
    return draws.sources(made.program)


X = torch.linspace(-1, 1, 32).reshape(4, 8)


def dropped(x: Any, p: float = 0.5, training: bool = True) -> Any:
    return torch.nn.functional.dropout(x, p, training)


def test_what_draws_is_named() -> None:
    attend = torch.nn.functional.scaled_dot_product_attention
    found = sources(
        lambda x: (
            x + torch.randn_like(x),
            x * torch.rand(4, 8),
            torch.bernoulli(x.sigmoid()),
            torch.multinomial(x.softmax(-1), 2),
            x[torch.randperm(4)],
            torch.normal(x, x.exp()),
            dropped(x),
            attend(x, x, x, dropout_p=0.3),
        ),
        X,
    )
    assert [name for name, *_ in found if name.startswith("aten.")] == [n for n, *_ in found]


def test_what_is_random_by_its_name_only_draws_nothing() -> None:
    attend = torch.nn.functional.scaled_dot_product_attention
    found = sources(
        lambda x: (
            dropped(x, p=0.0),
            dropped(x, training=False),
            attend(x, x, x),
            torch.nn.functional.rrelu(x, training=False),
            x.sort(-1).values,
        ),
        X,
    )
    assert found == [()] * 5


def test_outputs_are_told_apart_by_what_they_depend_on() -> None:
    def function(x: Any) -> Any:
        mean, deviation = x.exp(), x.abs()
        noisy = mean + deviation * torch.randn_like(mean)
        buffer = torch.zeros(4, 8)
        buffer[1:] = noisy[1:]
        return mean, noisy.sum(), deviation, buffer

    assert sources(function, X) == [(), ("aten.randn_like",), (), ("aten.randn_like",)]


def test_control_flow_draws_where_a_branch_does() -> None:
    def function(x: Any) -> Any:
        chosen = torch.cond(x.sum() > 0, lambda x: x + torch.rand_like(x), lambda x: x - 1, (x,))
        return chosen * 2, x * 2

    first, second = sources(function, X)
    assert first == ("aten.rand_like",)
    assert second == ()


class Keeping(torch.nn.Module):  # type: ignore[misc, name-defined]
    """Counts its calls, in a buffer and beside one."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))
        self.more = 0.0

    def forward(self, x: Any) -> Any:
        self.calls += 1
        self.more += 1
        return x * self.calls + self.more


def again(module: Any, *args: Any) -> list[bool]:
    copy = draws.copied(module)
    once = module(*args)
    once = once if isinstance(once, tuple) else (once,)
    return draws.differing(once, draws.run(copy, args, {}, seed=7))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x * float(np.random.rand()),
        lambda x: x + torch.randn(()),
        lambda x: x + torch.empty(4, 8),
        lambda x: torch.randint(0, 1000, (16,)),
    ],
)
def test_a_second_run_shows_what_the_graph_does_not(function: Any) -> None:
    assert again(Function(function), X) == [True]


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x @ x.T,
        lambda x: torch.empty(4, 8).copy_(x),
        lambda x: (x * torch.nan, x / 0, x > 0, x.long()),
        lambda x: x[:0],
    ],
)
def test_a_second_run_of_what_is_certain_is_alike(function: Any) -> None:
    assert not any(again(Function(function), X))


def test_a_second_run_starts_from_the_same_state() -> None:
    module = Keeping().eval()
    assert again(module, X) == [False]
    assert module.calls == 1


def test_the_generators_settings_are_as_before() -> None:
    draws.run(Function(lambda x: x), (X,), {}, seed=7)
    assert not torch.are_deterministic_algorithms_enabled()


class Mixed(torch.nn.Module):  # type: ignore[misc, name-defined]
    def __init__(self) -> None:
        super().__init__()
        self.drop = torch.nn.Dropout(0.5)

    def forward(self, x: Any) -> Any:
        return self.drop(x), torch.randint(0, 9, (3,)), x + torch.randn_like(x), torch.randperm(5)


def test_training_mode_is_named_for_what_it_causes_only() -> None:
    from iree_pilot.models.traceable import EntryFunction

    program = exporting.export(EntryFunction(name="main", module=Mixed(), args=(X,))).program
    dropped_, *others = draws.reasons(program, [True] * 4, training=True)
    assert dropped_.startswith("it draws random numbers: aten.")
    assert dropped_.endswith(f"dropout ({draws.TRAINING})")
    assert len(others) == 3
    assert all(why.startswith("it draws random numbers: aten.rand") for why in others)
    assert not any(draws.TRAINING in why for why in others)


@pytest.mark.parametrize(
    ("module", "told"),
    [
        (torch.nn.Dropout(0.1), True),
        (torch.nn.Dropout(0.0), False),
        (torch.nn.BatchNorm1d(8), True),
        (torch.nn.BatchNorm1d(8, track_running_stats=False), False),
        (torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.ReLU()), False),
        (torch.nn.LSTM(8, 8, 2, dropout=0.2), True),
        (torch.nn.Dropout(0.1).eval(), False),
    ],
)
def test_training_mode_is_told_where_it_matters(module: Any, told: bool) -> None:
    assert draws.trains(module) is told
