"""Recording of a run in PyTorch: the inputs of each module, and the operations that it runs.

Runs in the tracing child; imports torch.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from iree_pilot.pipeline.torch_dialect import text as python

#: Operations that compute nothing, and of which no reader needs to hear.
_MOVES = ("aten.detach.default", "aten.alias.default")


@dataclass(frozen=True)
class Given:
    """The arguments of a call: all by position, or all by name where that can be.

    kept: those that torch.export takes no part of for an input, such as a cache of one's own.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)
    kept: dict[str, Any] = field(default_factory=dict)


class BoundModule(torch.nn.Module):
    """A module with those of its arguments that cannot be inputs."""

    def __init__(self, module: torch.nn.Module, kept: dict[str, Any]) -> None:
        super().__init__()
        self.module = module
        self.kept = kept

    def forward(self, **given: Any) -> Any:
        return self.module(**given, **self.kept)


class Recording:
    """given: the arguments of each module's first call, by the module's path."""

    def __init__(self) -> None:
        self.given: dict[str, Given] = {}

    def alone(self, root: torch.nn.Module, path: str) -> torch.nn.Module:
        """The module at `path` as it can be traced."""
        module, kept = root.get_submodule(path), self.given[path].kept
        return BoundModule(module, copy.deepcopy(kept)) if kept else module

    def run(self, entry: Any) -> None:
        """Runs the model once, with its example inputs; whatever it raises passes through."""
        with contextlib.ExitStack() as hooks, torch.no_grad():
            for path, module in entry.module.named_modules():

                def keep(module: Any, args: Any, kwargs: Any, path: str = path) -> None:
                    self.given.setdefault(path, _bound(module, args, kwargs))

                handle = module.register_forward_pre_hook(keep, with_kwargs=True)
                hooks.callback(handle.remove)
            entry.module(*entry.args, **entry.kwargs)

    def inside(self, root: torch.nn.Module, path: str) -> Iterator[str]:
        """The paths of the outermost modules in a module that were called; one of each kind."""
        seen = set()
        for found in self._called(root, path):
            like = self._likeness(root.get_submodule(found), found)
            if like not in seen:
                seen.add(like)
                yield found

    def _called(self, root: torch.nn.Module, path: str) -> Iterator[str]:
        for name, _ in root.get_submodule(path).named_children():
            inner = f"{path}.{name}" if path else name
            if inner in self.given:
                yield inner
            else:
                yield from self._called(root, inner)

    def _likeness(self, module: torch.nn.Module, path: str) -> tuple[str, ...]:
        """Key that is equal for modules that trace alike."""
        held = [*module.named_parameters(), *module.named_buffers()]
        types = [f"{name} {t.dtype} {tuple(t.shape)}" for name, t in held]
        given = self.given[path]
        return (repr(module), _types([given.args, given.kwargs, given.kept]), *types)

    def shapes(self, path: str, entry: Any) -> str:
        """An expression for the dynamic shapes of a module in a model that has some.

        A dimension is taken for dynamic where its size is that of a dynamic one of the model's
        inputs. Empty where there is none.
        """
        bound = inspect.signature(entry.module.forward).bind(*entry.args, **entry.kwargs)
        spec = entry.dynamic_shapes
        values = bound.arguments if isinstance(spec, Mapping) else entry.args
        dims = {size: dim for size, dim in _dynamic_sizes(spec, values) if size > 1}
        given = self.given[path]
        text = "" if given.kept else _shapes(given.kwargs or given.args, dims)
        return text if "Dim" in text else ""

    def operations(self, root: torch.nn.Module, path: str) -> tuple[str, ...]:
        """The operations that PyTorch runs in a module, up to where it cannot go on."""
        ran = _Operations()
        if path in self.given:
            given, module = self.given[path], self.alone(root, path)
            with contextlib.suppress(Exception, SystemExit), torch.no_grad(), ran:
                module(*given.args, **given.kwargs)
        return tuple(ran.names)


class _Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if str(func) not in _MOVES:
            self.names.append(f"torch.{func}".removesuffix(".default"))
        return func(*args, **(kwargs or {}))


def _bound(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Given:
    if not kwargs and _is_input(args):
        return Given(args)
    parameters = inspect.signature(module.forward).parameters
    kinds = {p.kind for p in parameters.values()}
    if kinds & {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.POSITIONAL_ONLY}:
        return Given(args, kwargs)
    named = dict(zip(parameters, args, strict=False)) | kwargs
    kept = {name: value for name, value in named.items() if not _is_input(value)}
    inputs = {name: value for name, value in named.items() if name not in kept}
    return Given((), inputs, copy.deepcopy(kept))  # the model may go on to change it


def _is_input(value: Any) -> bool:
    """True if torch.export can flatten it into tensors and numbers."""
    leaves = pytree.tree_leaves(value)
    return all(v is None or isinstance(v, torch.Tensor | bool | int | float | str) for v in leaves)


def _types(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"{value.dtype} {tuple(value.shape)}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_types, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{k}: {_types(v)}' for k, v in value.items())}}}"
    plain = value is None or isinstance(value, bool | int | float | str)
    return repr(value) if plain else type(value).__name__


def _dynamic_sizes(spec: Any, value: Any) -> Iterator[tuple[int, str]]:
    """(size in the example, expression for the dimension) of each dynamic dimension."""
    if spec is None:
        return
    if isinstance(value, torch.Tensor):
        pairs = spec.items() if isinstance(spec, Mapping) else enumerate(spec)
        yield from ((int(value.shape[i]), _dim(d)) for i, d in pairs if _is_dynamic(d))
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _dynamic_sizes(spec.get(name), inner)
    elif isinstance(value, list | tuple):
        for one, inner in zip(spec, value, strict=False):
            yield from _dynamic_sizes(one, inner)


def _is_dynamic(dim: Any) -> bool:
    return dim is not None and not isinstance(dim, int) and dim is not torch.export.Dim.STATIC


def _dim(dim: Any) -> str:
    if type(dim) is not torch.export.Dim:  # a hint, or computed from another one
        known = "DYNAMIC" if dim is torch.export.Dim.DYNAMIC else "AUTO"
        return f"torch.export.Dim.{known}"
    return python.Dimension(
        dim.__name__, dim.min, dim.max if isinstance(dim.max, int) else None
    ).made


def _shapes(value: Any, dims: Mapping[int, str]) -> str:
    if isinstance(value, torch.Tensor):
        own = [f"{i}: {dims[int(n)]}" for i, n in enumerate(value.shape) if int(n) in dims]
        return f"{{{', '.join(own)}}}"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{k!r}: {_shapes(v, dims)}' for k, v in value.items())}}}"
    if isinstance(value, list | tuple):
        inner = ", ".join(_shapes(v, dims) for v in value)
        return f"[{inner}]" if isinstance(value, list) else f"({inner}{',' * (len(value) == 1)})"
    return "None"
