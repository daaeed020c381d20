"""What a model changes besides its results, as outputs; what it draws, as inputs.

Buffers and parameters that a forward pass changes (running means, counters, caches), and arguments
that it changes in place, would else not be compared. Random numbers would be others on a device
than in PyTorch; what they are drawn with (the probabilities of `bernoulli`) is an output then, as
the numbers no longer tell of it.

Runs in the tracing child; imports torch.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind, TensorArgument
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from iree_pilot.models.traceable import EntryFunction
from iree_pilot.pipeline.errors import UsageError
from iree_pilot.pipeline.frontends.pytorch import output_paths
from iree_pilot.pipeline.frontends.reference import drawing, draws
from iree_pilot.pipeline.plural import count as counted

#: Names of the arguments, in order, whose values decide what is drawn; "": one that does not.
_DRAWN_WITH = {
    "bernoulli": ("p",),
    "bernoulli_": ("", "p"),
    "multinomial": ("probabilities",),
    "normal": ("mean", "std"),
    "poisson": ("rate",),
    "binomial": ("count", "prob"),
}


class Explicit(torch.nn.Module):
    """A module that also takes what it draws, and returns what it changes.

    draws: number of keyword arguments `draw0`, `draw1`, ... drawn_with: names of the tensors that
    these are drawn with (`draw0.p`); state: of buffers and parameters, arguments: of tensors among
    the arguments (`caches['k']`). All are returned after the results, state and arguments with
    their values after the call; extra: their names; labels: those for people.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        *,
        draws: int = 0,
        drawn_with: Sequence[str] = (),
        state: Sequence[str] = (),
        arguments: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.inner = module
        self.train(module.training)
        self.count, self.drawn_with = draws, tuple(drawn_with)
        self.state, self.written = tuple(state), tuple(arguments)
        self.changed = (*self.state, *self.written)
        self.extra = (*self.drawn_with, *self.changed)
        self.labels = (
            *(f"{name} (drawn with)" for name in self.drawn_with),
            *(f"{name} (changed)" for name in self.changed),
        )

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The module's results, what it drew with, and what it changed."""
        drawn = [kwargs.pop(f"draw{n}") for n in range(self.count)]
        given = _leaves(self.inner, args, kwargs) if self.written else {}
        with _Replay(drawn) as replay:
            result = self.inner(*args, **kwargs)
        if not self.extra:
            return result
        state = _state(self.inner)
        return (
            result,
            *(replay.drawn_with[name] for name in self.drawn_with),
            *(state[name] for name in self.state),
            *(given[name] for name in self.written),
        )


def _state(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The module's buffers and parameters by all of their names."""
    return {
        **dict(module.named_parameters(remove_duplicate=False)),
        **dict(module.named_buffers(remove_duplicate=False)),
    }


def _leaves(module: torch.nn.Module, args: Any, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """What the arguments of a call hold, by where: `x`, `xs[1]`, `caches['k']`."""
    signature = inspect.signature(module.forward)
    given = dict(signature.bind(*args, **kwargs).arguments)
    for name, parameter in signature.parameters.items():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            given |= given.pop(name, {})
    values, spec = pytree.tree_flatten(given)
    return dict(zip(output_paths.paths(spec), values, strict=True))


def _made(
    module: torch.nn.Module,
    *,
    count: int = 0,
    drawn_with: Sequence[str] = (),
    state: Sequence[str] = (),
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
    made: Explicit = kind(
        module, draws=count, drawn_with=drawn_with, state=state, arguments=arguments
    )
    return made


class _Changes(NamedTuple):
    """What a program changes and does not return: buffers and parameters; leaves of arguments."""

    state: list[str]
    arguments: list[str]


def _changes(entry: EntryFunction, program: ExportedProgram) -> _Changes:
    signature = program.graph_signature
    prefix = "inner." if isinstance(entry.module, Explicit) else ""
    returned = {
        spec.arg.name
        for spec in signature.output_specs
        if spec.kind is OutputKind.USER_OUTPUT and isinstance(spec.arg, TensorArgument)
    }
    changed = {**signature.buffers_to_mutate, **signature.parameters_to_mutate}
    state = [name.removeprefix(prefix) for n, name in changed.items() if n not in returned]
    left = [name for n, name in signature.user_inputs_to_mutate.items() if n not in returned]
    if not left:
        return _Changes(state, [])
    given = [s.arg.name for s in signature.input_specs if s.kind is InputKind.USER_INPUT]
    args, kwargs = pytree.tree_unflatten(given, program.call_spec.in_spec)
    places = {node: place for place, node in _leaves(entry.module, args, kwargs).items()}
    return _Changes(state, [places[name] for name in left])


def stateful(entry: EntryFunction, program: ExportedProgram) -> EntryFunction:
    """The entry with what its exported program changes as outputs; itself if that is nothing, or
    all of it is returned already."""
    changes = _changes(entry, program)
    if not any(changes):
        return entry
    inner: torch.nn.Module = entry.module
    count, drawn_with = 0, tuple[str, ...]()
    if isinstance(entry.module, Explicit):
        inner, count = entry.module.inner, entry.module.count
        drawn_with = entry.module.drawn_with
    made = _made(inner, count=count, drawn_with=drawn_with, **changes._asdict())
    names = (*entry.output_names, *made.changed) if entry.output_names else ()
    return dataclasses.replace(entry, module=made, output_names=names, labels=made.labels)


def unreturned(entry: EntryFunction, program: ExportedProgram) -> tuple[str, ...]:
    """Names of what a program changes and no output of it holds."""
    held = entry.module.changed if isinstance(entry.module, Explicit) else ()
    state, arguments = _changes(entry, program)
    return tuple(name for name in (*state, *arguments) if name not in held)


def replaced(
    entry: EntryFunction, args: Any, kwargs: Mapping[str, Any], known: Sequence[torch.Tensor]
) -> tuple[str, ...]:
    """Names of the tensors that a call put into containers among its arguments (`caches["k"] = k`),
    which no export sees.

    known: those that were there before, or that it returned.
    """
    ids = {id(tensor) for tensor in known}

    def new(value: Any) -> bool:
        return isinstance(value, torch.Tensor) and id(value) not in ids

    if not any(map(new, pytree.tree_leaves((args, kwargs)))):
        return ()
    return tuple(name for name, value in _leaves(entry.module, args, kwargs).items() if new(value))


def seeded(entry: EntryFunction) -> tuple[EntryFunction, list[str]]:
    """The entry with the random numbers that it draws as inputs, the tensors that they are drawn
    with as outputs, and the names of what drew them.

    They are drawn once, in a run of PyTorch. Raises UsageError for what cannot be an input.
    """
    record = _Record()
    args, kwargs = pytree.tree_map_only(torch.Tensor, torch.clone, (entry.args, dict(entry.kwargs)))
    with torch.no_grad(), record:
        draws.copied(entry.module)(*args, **kwargs)
    if not record.drawn:
        return entry, []
    made = _made(entry.module, count=len(record.drawn), drawn_with=record.drawn_with)
    given = {f"draw{n}": value for n, value in enumerate(record.drawn)}
    names = (*entry.input_names, *given) if entry.input_names else ()
    results = (*entry.output_names, *made.extra) if entry.output_names else ()
    made_entry = dataclasses.replace(
        entry,
        module=made,
        kwargs={**entry.kwargs, **given},
        input_names=names,
        output_names=results,
        labels=made.labels,
    )
    return made_entry, record.names


def notes(entries: Sequence[EntryFunction], drawn: Sequence[str]) -> list[str]:
    """Lines for the user on inputs and outputs that the model's own signature does not have.

    drawn: names of the functions that it drew from.
    """
    notes = []
    if drawn:
        names = ", ".join(dict.fromkeys(drawn))
        notes.append(f"{counted(len(drawn), 'more input')} for what it draws ({names}): draw0, ...")
    made = [e.module for e in entries if isinstance(e.module, Explicit)]
    if operands := [name for module in made for name in module.drawn_with]:
        notes.append(f"what it draws with is compared, too: {', '.join(operands)}")
    if changed := [name for module in made for name in module.changed]:
        notes.append(f"what the model changes is compared, too: {', '.join(changed)}")
    return notes


def _name(function: Any) -> str:
    return str(getattr(function, "__name__", ""))


def _operands(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """The tensors by whose values a call draws."""
    names = _DRAWN_WITH.get(name, ())
    if name == "bernoulli" and (len(args) > 1 or "p" in kwargs):
        names = ("", "p")  # its first argument says no more than how many
    renamed = {"input": names[0]} if names else {}
    given = {renamed.get(key, key): value for key, value in kwargs.items()}
    given |= dict(zip(names, args, strict=False))
    return {n: v for n, v in given.items() if n and n in names and isinstance(v, torch.Tensor)}


class _Record(TorchFunctionMode):
    """Keeps what functions draw."""

    def __init__(self) -> None:
        super().__init__()
        self.drawn: list[torch.Tensor] = []
        self.drawn_with: list[str] = []
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
            number = len(self.drawn)
            self.drawn_with += [f"draw{number}.{one}" for one in _operands(name, args, kwargs)]
            self._keep(name, result)
        return result

    def _keep(self, name: str, drawn: torch.Tensor) -> None:
        self.drawn.append(drawn.detach().clone())
        self.names.append(name)


class _Replay(TorchFunctionMode):
    """Gives what was drawn in place of drawing, in the same order.

    drawn_with: the tensors that would have decided what is drawn, by name.
    """

    def __init__(self, drawn: Sequence[torch.Tensor]) -> None:
        super().__init__()
        self.drawn_with: dict[str, torch.Tensor] = {}
        self._drawn, self._next = tuple(drawn), 0

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs, name = kwargs or {}, _name(function)
        if self._next < len(self._drawn):
            if drop := _dropout(name, args, kwargs):
                return drop.applied(args[0], self._taken())
            if name in drawing.WRITE or name in drawing.RETURN:
                for one, value in _operands(name, args, kwargs).items():
                    # What it is now: it may be changed in place.
                    self.drawn_with[f"draw{self._next}.{one}"] = value.clone()
                drawn = self._taken()
                return args[0].copy_(drawn) if name in drawing.WRITE else drawn.clone()
        return function(*args, **kwargs)

    def _taken(self) -> torch.Tensor:
        self._next += 1
        return self._drawn[self._next - 1]


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
            advice="Leave --seeded out: what depends on it is then not compared. "
            "Or have the model draw nothing there: .eval(), or a dropout of 0.",
        )
