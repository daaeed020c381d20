"""Recipe: what gets a source past what IREE cannot do, as a TOML file that people read and edit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import tomlkit

from iree_pilot.pipeline import toml_tables
from iree_pilot.pipeline.errors import UsageError
from iree_pilot.pipeline.program.program import Decomposed
from iree_pilot.pipeline.store import outputs
from iree_pilot.pipeline.targets.backends import BACKENDS
from iree_pilot.repro.trust import flags as flag_doors
from iree_pilot.repro.workarounds.candidate import Candidate, Edit, Price
from iree_pilot.repro.workarounds.table import TABLE

#: Flags that `bringup` itself tries.
_TRIED = frozenset(flag for one in TABLE for flag in one.flags)
_DOCS = "docs/bring-up-a-model.md"
_ADVICE = "Name a recipe: the TOML file that `iree-pilot bringup` wrote of what a model needs."
_HEAD = """\
How to get {source} past what IREE cannot do, found with iree-compile {iree}.
Use it: iree-pilot run {source} -t TARGET --recipe {name}
Drop what a release needs no more: iree-pilot bringup {source} -t TARGET --recheck {name}\
"""


class _Table(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """A table of the file."""


class RecipeStep(_Table, frozen=True, kw_only=True):
    """One thing that gets past a failure on a backend; backend "": at the trace, for all of them.

    answers: signature of that failure; operation: what it is about. reason, price: as a candidate
    has them. flags, arch, edit, fields, inline: what it does, one of them.
    """

    name: str
    answers: str
    backend: str = ""
    operation: str = ""
    reason: str = ""
    price: Price = "free"
    flags: tuple[str, ...] = ()
    arch: str = ""
    edit: Edit | None = None
    fields: dict[str, str] = {}
    inline: bool | None = None

    def candidate(self) -> Candidate:
        """The step as a candidate for a workaround."""
        return Candidate(
            name=self.name,
            reason=self.reason,
            group="rewrite",
            price=self.price,
            flags=self.flags,
            arch=self.arch,
            edit=self.edit,
            fields=self.fields,
            inline=self.inline,
        )


class Gap(_Table, frozen=True, kw_only=True):
    """An operation that each trace decomposes if the compiler still refuses it; to be read only."""

    op: str
    by: str
    reason: str
    price: str = ""


class Recipe(_Table, frozen=True, kw_only=True):
    """Steps that get a source past its failures. iree: release of the compiler that had them."""

    source: str
    iree: str
    decomposed: tuple[Gap, ...] = ()
    step: tuple[RecipeStep, ...] = ()

    @property
    def settings(self) -> dict[str, str]:
        """Fields to set at the trace, whatever the target."""
        return {k: v for one in self.step if not one.backend for k, v in one.fields.items()}

    def of(self, backend: str) -> tuple[RecipeStep, ...]:
        """The steps for a backend, in the order in which they are applied."""
        return tuple(one for one in self.step if one.backend == backend)


def step(candidate: Candidate, backend: str, answers: str, operation: str) -> RecipeStep:
    """A candidate that got past a failure, as a recipe keeps it."""
    return RecipeStep(
        name=candidate.name,
        backend=backend,
        answers=answers,
        operation=operation,
        reason=candidate.reason,
        price=candidate.price,
        flags=candidate.flags,
        arch=candidate.arch,
        edit=candidate.edit,
        fields=candidate.fields,
        inline=candidate.inline,
    )


def gaps(decomposed: Sequence[Decomposed]) -> tuple[Gap, ...]:
    """Decompositions of a program's trace, as a recipe keeps them."""
    return tuple(Gap(op=d.op, by=d.by, reason=d.reason, price=d.price) for d in decomposed)


def read(path: Path, *, trust: bool = False) -> Recipe:
    """The recipe in a file.

    Raises UsageError for one that is none, for an unknown backend, and for flags that do more than
    compile, unless the user says `trust`.
    """
    recipe = toml_tables.read(path, Recipe, _DOCS, _ADVICE)
    for number, one in enumerate(recipe.step):
        where = toml_tables.place(path, "step", number, "backend")
        if one.backend not in ("", *BACKENDS):
            raise UsageError(
                f"{where}: there is no backend {one.backend!r}",
                advice=f"Known: {', '.join(BACKENDS)}.",
            )
        for flag in one.flags:
            does = flag_doors.refused(flag)
            if does and flag not in _TRIED and not trust:
                raise UsageError(
                    f"{toml_tables.place(path, 'step', number, 'flags')}: {flag} {does}",
                    advice="If you trust the file, say so: --trust.",
                )
    return recipe


def write(recipe: Recipe, path: Path) -> None:
    """Writes the recipe, whole or not at all."""
    document = tomlkit.document()
    head = _HEAD.format(source=recipe.source, iree=recipe.iree, name=path)
    for line in head.splitlines():
        document.add(tomlkit.comment(line))
    tables: dict[str, Any] = msgspec.to_builtins(recipe)
    for key, value in tables.items():
        if key in ("decomposed", "step"):
            array = tomlkit.aot()
            for one in value:
                array.append(tomlkit.item(one))
            if value:
                document.add(key, array)
        else:
            document.add(key, value)
    outputs.write(path, tomlkit.dumps(document))
