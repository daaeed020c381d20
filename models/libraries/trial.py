"""The first configuration and inputs of a library's model that PyTorch runs; imports torch."""

from __future__ import annotations

import contextlib
import inspect
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from iree_pilot.models.traceable import seeded
from iree_pilot.pipeline.errors import PilotError

#: A configuration with more parameters is not small, and not tried.
MOST_PARAMETERS = 100_000_000


@dataclass(frozen=True)
class ModelTrial:
    """A model, made; inputs: what to try with it, in order, as keyword arguments. mode: that its
    parameters live in, where they have no memory."""

    model: nn.Module
    inputs: Iterable[dict[str, Any]]
    mode: FakeTensorMode | None = None


@dataclass(frozen=True)
class RunningModel:
    """A model that PyTorch runs with these keyword arguments."""

    model: nn.Module
    inputs: dict[str, Any]
    mode: FakeTensorMode | None = None


class NothingRuns(Exception):
    """None of the configurations and inputs runs; the message is PyTorch's about the first."""


def first_that_runs(
    attempts: Iterable[Callable[[], ModelTrial]], seed: int, given: Sequence[torch.Tensor] = ()
) -> RunningModel:
    """The first of the attempts whose model runs with one of its inputs, all of the same seed.

    given: the user's inputs, instead of as many of the model's own. Raises NothingRuns.
    """
    said: list[str] = []
    for attempt in attempts:
        with seeded(seed):
            try:
                made = attempt()
            except PilotError:
                raise
            except Exception as fault:  # noqa: BLE001 - a library's constructor may raise anything
                said.append(_said(fault))
                continue
            for inputs in _inputs(made, given, said):
                with made.mode or contextlib.nullcontext():
                    if why := _why_not(made.model, inputs):
                        said.append(why)
                    else:
                        return RunningModel(made.model, inputs, made.mode)
    raise NothingRuns(said[0] if said else "it has no inputs to try")


def _inputs(
    made: ModelTrial, given: Sequence[torch.Tensor], said: list[str]
) -> Iterator[dict[str, Any]]:
    """The candidates, with tensors of their dtypes; or what the user gives by their names."""
    dtype = next((p.dtype for p in made.model.parameters() if p.is_floating_point()), None)
    candidates = iter(made.inputs)
    order = list(inspect.signature(made.model.forward).parameters)
    while True:
        try:
            one = next(candidates)
        except StopIteration:
            break
        except Exception as fault:  # noqa: BLE001 - how many tokens an image becomes is asked of the model
            said.append(_said(fault))
            break
        one = dict(
            sorted(one.items(), key=lambda pair: order.index(pair[0]) if pair[0] in order else 0)
        )
        if not given:
            yield {n: _cast(v, dtype) for n, v in one.items()}
            continue
        named = [n for n, v in one.items() if not isinstance(_first(v), int | tuple)]
        if len(named) == len(given):
            yield one | dict(zip(named, given, strict=True))
    if given:
        yield dict(zip(order, given, strict=False))


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, list) else value


def _cast(value: Any, dtype: torch.dtype | None) -> Any:
    if isinstance(value, list):
        return [_cast(one, dtype) for one in value]
    return (
        value.to(dtype) if isinstance(value, torch.Tensor) and value.is_floating_point() else value
    )


def _why_not(model: nn.Module, inputs: dict[str, Any]) -> str:
    """PyTorch's error where the model does not run; "" where it does."""
    try:
        with torch.no_grad(), _quiet():
            model(**inputs)
    except Exception as fault:  # noqa: BLE001 - a model may raise anything
        return _said(fault)
    return ""


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):  # noqa: PTH123
        yield


def _said(fault: Exception) -> str:
    return f"{type(fault).__name__}: {' '.join(str(fault).split())[:300]}"
