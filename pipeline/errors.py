"""Errors that a user can cause or meet; each carries what to do next and an exit code.

A program that fails to trace, compile or run is not an error of ours: it is a `Failure` value (see
`pipeline.failures.diagnostics`) inside a result. These exceptions are for wrong usage and for an
environment that does not let the tool work. Only `pipeline.cli` prints them and exits.
"""

from __future__ import annotations

from typing import ClassVar


class PilotError(Exception):
    """An expected error: `message` says what was done, what went wrong and on what.

    `advice` says what to do next, in one sentence; it may be empty only where the message
    leaves one possibility.
    """

    exit_code: ClassVar[int] = 3

    def __init__(self, message: str, *, advice: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.advice = advice

    def __str__(self) -> str:
        return f"{self.message}\n{self.advice}" if self.advice else self.message


class UsageError(PilotError):
    """The command names something that does not exist or does not fit (exit code 2)."""

    exit_code: ClassVar[int] = 2


class EnvironmentFault(PilotError):
    """The machine or an installed tool does not let the work be done (exit code 3)."""

    exit_code: ClassVar[int] = 3


def nearest(name: str, known: list[str]) -> str:
    """Advice that lists the closest of `known` to a misspelt `name`, or all of them."""
    import difflib

    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if close:
        return f"Did you mean {' or '.join(close)}?"
    return f"Known: {', '.join(known)}." if known else ""
