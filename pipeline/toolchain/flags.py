"""Flags of iree-compile that its user misspelt, found out before anything is traced."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Sequence
from difflib import get_close_matches

from iree_pilot.pipeline.errors import UsageError
from iree_pilot.pipeline.toolchain.toolchain import Toolchain, ask

_UNKNOWN = re.compile(r"Unknown command line argument '(-[^'=]*)")
#: Of options of LLVM, and of those that IREE reads by itself.
_REFUSED = re.compile(r"(?:for the|unknown custom value for) (-[^\s=]+).*")
_PRINTS = re.compile(r"--?mlir-print-ir-")
_WORDS = re.compile(r"(?:Too many|Not enough) positional arguments")


def check(toolchain: Toolchain, own: Sequence[str], flags: Sequence[str]) -> None:
    """Raises UsageError for `flags` that the compiler does not have, or not with such values.

    own: the flags that go before them.
    """
    if fault := refusal(toolchain, own, flags):
        raise fault


def refusal(toolchain: Toolchain, own: Sequence[str], flags: Sequence[str]) -> UsageError | None:
    """Error about the user's flags; None if the compiler takes them.

    The compiler itself is asked, without a program and up to its first phase: it alone knows what
    its flags take. What it says of flags that are not the user's is left to the compile.
    """
    if not flags:
        return None
    stop = f"--compile-to={toolchain.phases[0]}"
    # The user's come last: one that lacks its value would take the next word for it.
    answer = ask([toolchain.compiler, os.devnull, *own, stop, "-o", os.devnull, *flags])
    names = {_name(flag) for flag in flags}
    unknown = _of_user(_UNKNOWN.findall(answer.stderr), names)
    if unknown:
        close = get_close_matches(_name(unknown[0]), toolchain.flags, n=1, cutoff=0.6)
        return UsageError(
            f"iree-compile {toolchain.version} has no flag {', '.join(unknown)}",
            advice=f"Did you mean --{close[0]}?"
            if close
            else f"Its flags: {toolchain.compiler} --help-hidden",
        )
    for match in _REFUSED.finditer(answer.stderr):
        if given := [flag for flag in flags if _name(flag) == _name(match[1])]:
            return UsageError(
                f"iree-compile {toolchain.version} refuses its flags: {match[0]}",
                advice=f"Check {shlex.join(given)}.",
            )
    words = [flag for flag in flags if not flag.startswith("-")]
    if words and _WORDS.search(answer.stderr):
        return UsageError(
            f"{shlex.join(words)} is no flag of iree-compile, and SOURCE is one word",
            advice="Flags begin with dashes and come after --; options of iree-pilot before it.",
        )
    return None


def silent(flags: Sequence[str]) -> tuple[str, ...]:
    """Without those that say what IR is printed, where that is read."""
    return tuple(flag for flag in flags if not _PRINTS.match(flag))


def _of_user(found: Iterable[str], names: set[str]) -> list[str]:
    return [flag for flag in dict.fromkeys(found) if _name(flag) in names]


def _name(flag: str) -> str:
    return flag.lstrip("-").partition("=")[0]
