"""Check that a family can be traced with the installed library release, before the trace.

A family depends on more than a release's number: on functions whose arguments have changed before
(rotary embeddings that take `(q, k, cos, sin)` in one release and `(q, freqs)` in another). Both
are compared with what the family's spec says before its model is made.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import msgspec

from iree_pilot.pipeline.errors import EnvironmentFault
from iree_pilot.pipeline.frontends import libraries


class Signature(msgspec.Struct, frozen=True, kw_only=True):
    """A function of the family's library that it calls, and how it must take its arguments.

    function: `module:qualified.name`. parameters: the first ones in order, without `self`; what
    follows must have defaults. release: one that has the function so.
    """

    function: str
    parameters: tuple[str, ...]
    release: str


def check(family: str, library: str, releases: str, needs: Sequence[Signature]) -> None:
    """Raises EnvironmentFault unless the library that a family is made by is installed as it needs.

    releases: the range it was traced with, as pip writes it. The message names the range and the
    release found; or the function, the signature expected, the one found, and the release that has
    the expected one; or why the library cannot be imported.
    """
    from packaging.specifiers import SpecifierSet

    install = f'pip install "{library}{releases}"'
    try:
        found = version(library)
    except PackageNotFoundError as fault:
        raise EnvironmentFault(
            f"{family} is made by {library}, which is not installed",
            advice=install,
        ) from fault
    if not SpecifierSet(releases).contains(found, prereleases=True):
        raise EnvironmentFault(
            f"{family} was traced with {library} {releases}; {found} is installed",
            advice=install,
        )
    for need in needs:
        try:
            has = signature(need.function)
        except Exception as raised:  # whatever a broken library raises
            if broken := libraries.fault(raised):
                raise broken from raised
            raise
        if has is None or not _takes(has, need.parameters):
            raise EnvironmentFault(
                f"{family} relies on {_written(need.function)}: expected "
                f"({', '.join(need.parameters)}), found "
                f"{_parameters(has) if has else 'no such function'} in {library} {found}",
                advice=f"{library} {need.release} has it as expected: "
                f'pip install "{library}=={need.release}.*"',
            )


def signature(function: str) -> list[inspect.Parameter] | None:
    """The parameters of `module:qualified.name` without `self`, or None where there is no such.

    Raises what importing the module raises, where it is there.
    """
    module, _, name = function.partition(":")
    try:
        value: Any = importlib.import_module(module)
    except ModuleNotFoundError as fault:
        if fault.name and f"{module}.".startswith(f"{fault.name}."):
            return None
        raise
    try:
        for part in name.split("."):
            value = getattr(value, part)
    except AttributeError:
        return None
    return [p for p in inspect.signature(value).parameters.values() if p.name != "self"]


def _takes(has: list[inspect.Parameter], wanted: tuple[str, ...]) -> bool:
    """True if it accepts a call with the wanted arguments, by position or by name."""
    first, rest = has[: len(wanted)], has[len(wanted) :]
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return tuple(p.name for p in first) == wanted and all(
        p.default is not p.empty or p.kind in variadic for p in rest
    )


def _parameters(has: list[inspect.Parameter]) -> str:
    return f"({', '.join(str(p.replace(annotation=p.empty)) for p in has)})"


def _written(function: str) -> str:
    return function.replace(":", ".")
