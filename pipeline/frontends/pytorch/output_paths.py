"""Names of a model's outputs, as its users write them: `logits`, `hidden_states[0]`."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Iterator
from typing import Any

from torch.utils import _pytree as pytree

_DICTS = (dict, OrderedDict, defaultdict)
#: Start of the path to an output if the model's result has no names at the top.
_ROOT = "output"


def paths(spec: pytree.TreeSpec) -> list[str]:
    """Path of each leaf of a model's result; all empty for one tensor, and for a flat sequence of
    tensors, whose numbers say as much.
    """
    beside = spec.type in (list, tuple) and all(child.is_leaf() for child in spec.children())
    if spec.is_leaf() or beside:
        return [""] * spec.num_leaves
    return [*_below(spec, "")]


def _below(spec: pytree.TreeSpec, path: str) -> Iterator[str]:
    if spec.is_leaf():
        yield path
        return
    for key, child in zip(_keys(spec), spec.children(), strict=True):
        yield from _below(child, _step(path, key, named=spec.type not in _DICTS))


def _step(path: str, key: Any, *, named: bool) -> str:
    """named: strings are attributes, not the keys of a dictionary."""
    if isinstance(key, str) and key.isidentifier() and (named or not path):
        return f"{path}.{key}" if path else key
    return f"{path or _ROOT}[{key!r}]"


def _keys(spec: pytree.TreeSpec) -> list[Any]:
    """Name of each part, which depends on the container's kind of context."""
    context, count = spec.context, spec.num_children
    if hasattr(context, "_fields"):  # a named tuple's class
        return [*context._fields]
    if spec.type is defaultdict:  # (what makes its values, its keys)
        return [*context[1]]
    for names in (context, context[0] if isinstance(context, list | tuple) and context else ()):
        # A dictionary's keys, a ModelOutput's; or a dataclass's (names, names of those that are
        # None).
        whole = isinstance(names, list | tuple) and len(names) == count
        if whole and (spec.type in _DICTS or all(isinstance(name, str) for name in names)):
            return [*names]
    return [*range(count)]
