"""What a model changes besides its results, as outputs; what it draws, as inputs.

Buffers that a forward pass changes (running means, counters, caches), and arguments that it changes
in place, would else not be compared. Random numbers would be others on a device than in PyTorch.

Runs in the tracing child; imports torch.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import OutputKind, TensorArgument
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from iree_pilot.models.traceable import EntryFunction
from iree_pilot.pipeline.errors import UsageError
from iree_pilot.pipeline.frontends.reference import drawing, draws


class Explicit(torch.nn.Module):
    """A module that also takes what it draws, and returns what it changes.

    draws: number of keyword arguments `draw0`, `draw1`, ... buffers, arguments: names of tensors
    that are returned after the results, with their values after the call; extra: all of them.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        *,
        draws: int = 0,
        buffers: Sequence[str] = (),
        arguments: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.inner = module
        self.train(module.training)
        self.count, self.changed, self.written = draws, tuple(buffers), tuple(arguments)
        self.extra = (*self.changed, *self.written)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The module's results, and what it changed."""
        drawn = [kwargs.pop(f"draw{n}") for n in range(self.count)]
        with _Replay(drawn):
            result = self.inner(*args, **kwargs)
        if not self.extra:
            return result
        buffers = dict(self.inner.named_buffers())
        given = inspect.signature(self.inner.forward).bind(*args, **kwargs).arguments
        changed = [buffers[name] for name in self.changed]
        changed += [_argument(given, name) for name in self.written]
        return result, *changed


def _made(
    module: torch.nn.Module,
    *,
    count: int = 0,
    buffers: Sequence[str] = (),
    arguments: Sequence[str] = (),
) -> Explicit:
    """An explicit module whose `forward` says that it has the module's parameters and the draws:
    torch.export names the inputs by them."""
    own = [*inspect.signature(module.forward).parameters.values()]
    last = [one for one in own if one.kind is inspect.Parameter.VAR_KEYWORD]
    added = [inspect.Parameter(f"draw{n}", inspect.Parameter.KEYWORD_ONLY) for n in range(count)]
    me = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    rest = [one for one in own if one not in last]

    def forward(self: Explicit, *args: Any, **kwargs: Any) -> Any:
        return Explicit.forward(self, *args, **kwargs)

    signature = inspect.Signature([me, *rest, *added, *last])
    forward.__signature__ = signature  # type: ignore[attr-defined]
    kind = type("Explicit", (Explicit,), {"forward": forward})
    made: Explicit = kind(module, draws=count, buffers=buffers, arguments=arguments)
    return made


def _argument(given: Mapping[str, Any], name: str) -> torch.Tensor:
    value = given[name]
    assert isinstance(value, torch.Tensor)
    return value


def stateful(entry: EntryFunction, program: ExportedProgram) -> EntryFunction:
    """The entry with what its exported program changes as outputs; itself if that is nothing, or
    all of it is returned already."""
    signature = program.graph_signature
    prefix = "inner." if isinstance(entry.module, Explicit) else ""
    returned = {
        spec.arg.name
        for spec in signature.output_specs
        if spec.kind is OutputKind.USER_OUTPUT and isinstance(spec.arg, TensorArgument)
    }
    left = {n: name for n, name in signature.buffers_to_mutate.items() if n not in returned}
    buffers = [name.removeprefix(prefix) for name in left.values()]
    left = {n: name for n, name in signature.user_inputs_to_mutate.items() if n not in returned}
    named = inspect.signature(entry.module.forward).parameters
    arguments = [name for name in left.values() if name in named]
    if not buffers and not arguments:
        return entry
    inner: torch.nn.Module = entry.module
    count = 0
    if isinstance(entry.module, Explicit):
        inner, count = entry.module.inner, entry.module.count
    made = _made(inner, count=count, buffers=buffers, arguments=arguments)
    names = (*entry.output_names, *made.extra) if entry.output_names else ()
    return dataclasses.replace(entry, module=made, output_names=names)


def seeded(entry: EntryFunction) -> tuple[EntryFunction, list[str]]:
    """The entry with the random numbers that it draws as inputs, and the names of what drew them.

    They are drawn once, in a run of PyTorch. Raises UsageError for what cannot be an input.
    """
    record = _Record()
    args, kwargs = pytree.tree_map_only(torch.Tensor, torch.clone, (entry.args, dict(entry.kwargs)))
    with torch.no_grad(), record:
        draws.copied(entry.module)(*args, **kwargs)
    if not record.drawn:
        return entry, []
    made = _made(entry.module, count=len(record.drawn))
    given = {f"draw{n}": value for n, value in enumerate(record.drawn)}
    names = (*entry.input_names, *given) if entry.input_names else ()
    kwargs = {**entry.kwargs, **given}
    return dataclasses.replace(entry, module=made, kwargs=kwargs, input_names=names), record.names


def _name(function: Any) -> str:
    return str(getattr(function, "__name__", ""))


class _Record(TorchFunctionMode):
    """Keeps what functions draw."""

    def __init__(self) -> None:
        super().__init__()
        self.drawn: list[torch.Tensor] = []
        self.names: list[str] = []

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs, name = kwargs or {}, _name(function)
        if drop := _dropout(name, args, kwargs):
            mask = function(torch.ones_like(args[0]), drop.p, True)
            self._keep(name, mask)
            return drop.applied(args[0], mask)
        result = function(*args, **kwargs)
        if name in drawing.WRITE or name in drawing.RETURN:
            self._keep(name, result)
        return result

    def _keep(self, name: str, drawn: torch.Tensor) -> None:
        self.drawn.append(drawn.detach().clone())
        self.names.append(name)


class _Replay(TorchFunctionMode):
    """Gives what was drawn in place of drawing, in the same order."""

    def __init__(self, drawn: Sequence[torch.Tensor]) -> None:
        super().__init__()
        self._drawn = list(drawn)

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs, name = kwargs or {}, _name(function)
        if self._drawn:
            if drop := _dropout(name, args, kwargs):
                return drop.applied(args[0], self._drawn.pop(0))
            if name in drawing.WRITE:
                return args[0].copy_(self._drawn.pop(0))
            if name in drawing.RETURN:
                return self._drawn.pop(0).clone()
        return function(*args, **kwargs)


class _Dropout(NamedTuple):
    """A dropout by the probability p, maybe in place."""

    p: float
    in_place: bool

    def applied(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """x, dropped."""
        return x.mul_(mask) if self.in_place else x * mask


def _dropout(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> _Dropout | None:
    """The dropout that a call is; None if it is none, or drops nothing."""
    if name.removesuffix("_") not in drawing.MULTIPLY:
        return None
    given = {**dict(zip(("input", "p", "train"), args, strict=False)), **kwargs}
    trains = given.get("training", given.get("train", True))
    in_place = name.endswith("_") or bool(given.get("inplace"))
    return _Dropout(float(given["p"]), in_place) if trains and given["p"] else None


def refuse_left(program: ExportedProgram, source: str) -> None:
    """Raises UsageError if a program still draws random numbers."""
    left = {
        str(node.target).removesuffix(".default")
        for node in program.graph.nodes
        if node.op == "call_function" and draws.draws(node.target, node.args, node.kwargs)
    }
    if left:
        raise UsageError(
            f"--seeded: what {', '.join(sorted(left))} draws in {source} cannot be an input",
            advice="Leave --seeded out: what depends on it is then not compared.",
        )
