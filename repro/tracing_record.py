"""What each module of a model is given, and which operations it runs, when PyTorch runs it.

Runs in the tracing child; imports torch.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

#: Operations that compute nothing, and of which no reader needs to hear.
_MOVES = ("aten.detach.default", "aten.alias.default")
_DYNAMIC = "torch.export.Dim.AUTO"


class Recording:
    """given: the arguments of each module's first call, by the module's path."""

    def __init__(self) -> None:
        self.given: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {}

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
        """What tells modules apart that trace alike."""
        held = [*module.named_parameters(), *module.named_buffers()]
        types = [f"{name} {t.dtype} {tuple(t.shape)}" for name, t in held]
        return (repr(module), _types(self.given[path]), *types)

    def shapes(self, path: str, entry: Any) -> str:
        """An expression for the dynamic shapes of a module in a model that has some.

        A dimension is taken for dynamic where its size is that of a dynamic one of the model's
        inputs. Empty where there is none.
        """
        bound = inspect.signature(entry.module.forward).bind(*entry.args, **entry.kwargs)
        spec = entry.dynamic_shapes
        values = bound.arguments if isinstance(spec, Mapping) else entry.args
        sizes = {size for size in _dynamic_sizes(spec, values) if size > 1}
        args, kwargs = self.given[path]
        text = _shapes(kwargs or args, sizes)
        return text if _DYNAMIC in text else ""

    def operations(self, module: torch.nn.Module, path: str) -> tuple[str, ...]:
        """The operations that PyTorch runs in a module, up to where it cannot go on."""
        args, kwargs = self.given.get(path, ((), {}))
        ran = _Operations()
        with contextlib.suppress(Exception, SystemExit), torch.no_grad(), ran:
            module(*args, **kwargs)
        return tuple(ran.names)


class _Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if str(func) not in _MOVES:
            self.names.append(f"torch.{func}".removesuffix(".default"))
        return func(*args, **(kwargs or {}))


def _bound(
    module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments all by position, or else all by name where they can be."""
    if not kwargs:
        return args, {}
    bound = inspect.signature(module.forward).bind(*args, **kwargs)
    kinds = {p.kind for p in inspect.signature(module.forward).parameters.values()}
    if kinds & {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.POSITIONAL_ONLY}:
        return args, kwargs
    named: dict[str, Any] = {}
    for name, value in bound.arguments.items():
        keywords = inspect.signature(module.forward).parameters[name].kind
        named |= value if keywords is inspect.Parameter.VAR_KEYWORD else {name: value}
    return (), named


def _types(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"{value.dtype} {tuple(value.shape)}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_types, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{k}: {_types(v)}' for k, v in value.items())}}}"
    plain = value is None or isinstance(value, bool | int | float | str)
    return repr(value) if plain else type(value).__name__


def _dynamic_sizes(spec: Any, value: Any) -> Iterator[int]:
    if spec is None:
        return
    if isinstance(value, torch.Tensor):
        pairs = spec.items() if isinstance(spec, Mapping) else enumerate(spec)
        yield from (int(value.shape[i]) for i, dim in pairs if dim is not None)
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _dynamic_sizes(spec.get(name), inner)
    elif isinstance(value, list | tuple):
        for one, inner in zip(spec, value, strict=False):
            yield from _dynamic_sizes(one, inner)


def _shapes(value: Any, sizes: set[int]) -> str:
    if isinstance(value, torch.Tensor):
        dims = [f"{i}: {_DYNAMIC}" for i, size in enumerate(value.shape) if int(size) in sizes]
        return f"{{{', '.join(dims)}}}"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{k!r}: {_shapes(v, sizes)}' for k, v in value.items())}}}"
    if isinstance(value, list | tuple):
        inner = "".join(f"{_shapes(v, sizes)}, " for v in value)
        return f"[{inner}]" if isinstance(value, list) else f"({inner})"
    return "None"
