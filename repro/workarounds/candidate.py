"""One thing that may get a program past a failure, and in which order such things are tried."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Literal

import msgspec

from iree_pilot.pipeline.failures.diagnostics import Failure

#: Cost of a candidate: none; time or space at run time; precision, or different numbers;
#: the program's signature; inputs that it takes no more.
Price = Literal["free", "slower", "precision", "signature", "inputs"]
PRICES: tuple[Price, ...] = ("free", "slower", "precision", "signature", "inputs")
Group = Literal["target", "rewrite", "optimization", "types", "fusion", "codegen", "host"]
#: The edits of `repro.workarounds.edit_ir`.
Edit = Literal[
    "attention",
    "fnuz",
    "f16-in-f32",
    "fp8-subnormals",
    "matmul-in-f32",
    "narrow-in-i32",
    "prelu",
]

#: Until here, what acts later in the compiler cannot matter. In later phases constants are
#: compiled and run, which goes through all of the phases.
_EARLY = ("start", "input", "abi", "preprocessing")


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """One thing to try. reason: in one line, why it may help and what it costs.

    name: unique, short, for people. flags: for iree-compile, with their values. arch: compile for
    this architecture of the same backend. edit: rewrite the program so. fields: of a zoo model.
    inline: weights in the program as constants, or out of it. backends: empty for all. early: it
    acts before global optimisation; what does not cannot help against a failure there. helps: a
    pattern of the failures that it is known or made for, in signature, operation and message.
    """

    name: str
    reason: str
    group: Group
    price: Price = "free"
    flags: tuple[str, ...] = ()
    arch: str = ""
    edit: Edit | None = None
    fields: dict[str, str] = {}
    inline: bool | None = None
    backends: tuple[str, ...] = ()
    early: bool = False
    helps: str = ""

    @property
    def flag_names(self) -> frozenset[str]:
        """The flags' names, without dashes and values."""
        return frozenset(name(flag) for flag in self.flags)

    def goes_with(self, other: Candidate) -> bool:
        """True if both can be tried together: they do not decide the same thing."""
        return (
            not self.flag_names & other.flag_names
            and not (self.arch and other.arch)
            and not (self.edit and self.edit == other.edit)
            and not self.fields.keys() & other.fields.keys()
            and (self.inline is None or other.inline is None)
        )


def name(flag: str) -> str:
    """A flag's name: `--a-b=c` -> `a-b`."""
    return flag.lstrip("-").partition("=")[0]


def usable(found: Sequence[Candidate], backend: str, known: Collection[str]) -> list[Candidate]:
    """Candidates that can be tried for a backend with a release that lists the flags `known`."""
    return [
        one
        for one in found
        if (not one.backends or backend in one.backends) and one.flag_names <= set(known)
    ]


def ordered(found: Sequence[Candidate], failure: Failure) -> list[Candidate]:
    """Candidates that can help against a failure: those made for it first, then the cheap ones.

    Those that the compiler's own message names come before all others. Of those made for the
    failure, rewrites and targets come before flags, which mostly keep the operation at fault.
    """
    can = [one for one in found if one.early or failure.phase not in _EARLY]

    def key(one: Candidate) -> tuple[bool, bool, bool, int]:
        named = any(f"--{flag}" in failure.message for flag in one.flag_names)
        fits = made_for(one, failure)
        flags = fits and one.group not in ("rewrite", "target")
        return (not named, not fits, flags, PRICES.index(one.price))

    return sorted(can, key=key)


def made_for(one: Candidate, failure: Failure) -> bool:
    """True if a candidate is known or made for such a failure."""
    text = " ".join(filter(None, (failure.signature, failure.op, failure.pass_, failure.message)))
    return bool(one.helps) and re.search(one.helps, text) is not None
