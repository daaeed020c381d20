"""Kinds of the public functions' arguments, by name: what is of another kind is refused at once."""

from __future__ import annotations

import functools
import inspect
import math
import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, ParamSpec, TypeVar

from iree_pilot.pipeline.case_result import CaseResult
from iree_pilot.pipeline.errors import UsageError
from iree_pilot.pipeline.frontends.load import Loaded

P = ParamSpec("P")
T = TypeVar("T")


class _Kind(NamedTuple):
    """fits: a value of it; text: in words, with an example where one helps."""

    fits: Callable[[Any], bool]
    text: str


def _of(*kinds: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))


def _each(*kinds: type) -> Callable[[Any], bool]:
    return lambda value: (
        isinstance(value, tuple | list) and all(isinstance(one, kinds) for one in value)
    )


def _positive(value: Any) -> bool:
    return _of(int, float)(value) and 0 < value < math.inf


def _bytes(value: Any) -> bool:
    return _of(int)(value) and value >= _LEAST_BYTES


#: Below this no compiler starts.
_LEAST_BYTES = 2**26
_PATH = _Kind(_of(str, os.PathLike), "a path")
_TEXT = _Kind(_of(str), "a string")
_TEXTS = _Kind(_each(str), 'a list of strings: ["..."]')
_SWITCH = _Kind(_of(bool), "True or False")
_FIELDS = _Kind(_of(Mapping), "a dict by name")
_KINDS: Mapping[str, _Kind] = {
    "args": _Kind(_of(tuple, list), "a tuple of the module's inputs: (x,)"),
    "kwargs": _FIELDS,
    "device": _TEXT,
    "directory": _PATH,
    "dtype": _TEXT,
    "everything": _SWITCH,
    "flags": _TEXTS,
    "fresh": _SWITCH,
    "function": _TEXT,
    "inline_parameters": _SWITCH,
    "inputs": _TEXTS,
    "leave": _TEXTS,
    "memory_limit": _Kind(_bytes, f"a number of bytes from {_LEAST_BYTES}"),
    "outputs": _Kind(_of(tuple, list), "a list of the function's outputs, in their order"),
    "program": _Kind(_of(Loaded), "a program, which iree_pilot.trace returns"),
    "recipe": _PATH,
    "release": _TEXT,
    "result": _Kind(_of(CaseResult), "a result, which iree_pilot.run or compile returns"),
    "seed": _Kind(lambda value: _of(int)(value) and 0 <= value < 2**63, "a whole number from 0"),
    "seeded": _SWITCH,
    "settings": _FIELDS,
    "target": _Kind(_of(str), "the name of one target: llvm-cpu"),
    "time_limit": _Kind(_positive, "a number of seconds above 0"),
    "to": _TEXT,
    "trust": _SWITCH,
    "weights": _Kind(_each(str, os.PathLike), "a list of paths"),
}


def checked(function: Callable[P, T]) -> Callable[P, T]:
    """The function, which raises UsageError for an argument of another kind than its name's.

    None is taken where it is the default.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        for name, value in signature.bind(*args, **kwargs).arguments.items():
            kind = _KINDS.get(name)
            if kind is None or (value is None and signature.parameters[name].default is None):
                continue
            if not kind.fits(value):
                raise UsageError(
                    f"{function.__name__}: {name} is {_shown(value)}",
                    advice=f"Give {kind.text}.",
                )
        return function(*args, **kwargs)

    return call


def _shown(value: Any) -> str:
    """A value in a message: small ones themselves, others by their type."""
    small = value is None or isinstance(value, str | int | float)
    return repr(value)[:60] if small else f"a {type(value).__name__}"
