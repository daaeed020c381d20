"""Map from arguments of a part to values of its program: plain data, kept beside it.

A part that is run needs inputs, and those that show what the whole program showed are the values
that it was computed from there. `repro.ir.edit` writes this for everything that it makes.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

#: Stands for a function's arguments in place of an operation's position.
ARGUMENT = -1


class FedValue(msgspec.Struct, frozen=True, order=True):
    """A value of a function: the result `number` of the operation at position `op` of its body,
    or its argument `number`, where `op` is ARGUMENT."""

    op: int
    number: int


class Feeds(msgspec.Struct, frozen=True, kw_only=True):
    """Inputs of a function of a program that was made from another one (`base`).

    function: its name. origin: that of the function of `base` that it was made of. values: what of
    that one each argument stands for. types, results: of arguments and results, as MLIR prints
    them; where a type is not that of the value, a part of that is meant.
    """

    function: str
    base: str
    origin: str
    values: tuple[FedValue, ...]
    types: tuple[str, ...]
    results: tuple[str, ...]


def place(program: Path) -> Path:
    """Path of the feeds of a program in a file: `tuple[Feeds, ...]`, one for each function."""
    return program.with_suffix(".feeds.json")


def of(program: Path) -> tuple[Feeds, ...]:
    """The feeds of a program that was made of another; nothing where it was not."""
    file = place(program)
    if not file.is_file():
        return ()
    return msgspec.json.decode(file.read_bytes(), type=tuple[Feeds, ...])


def write(program: Path, feeds: tuple[Feeds, ...]) -> None:
    place(program).write_bytes(msgspec.json.encode(feeds))
