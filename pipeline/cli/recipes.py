"""A recipe of `iree-pilot bringup` as an option of other commands."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from iree_pilot.pipeline.cli.display import output as out
from iree_pilot.pipeline.cli.failures import following
from iree_pilot.pipeline.cli.options import SourceOptions
from iree_pilot.pipeline.cli.session import Session
from iree_pilot.pipeline.errors import UsageError
from iree_pilot.pipeline.frontends.load import Loaded
from iree_pilot.pipeline.targets.targets import Plan

if TYPE_CHECKING:
    from iree_pilot.repro.bringup.recipe import Recipe
    from iree_pilot.repro.workarounds.applied import Applied, Unchanged


class Cooking(msgspec.Struct, frozen=True, kw_only=True):
    """A source with its options, and a recipe for it; None: there is none.

    flags: the user's for iree-compile. device: as the user named it.
    """

    source: str
    chosen: SourceOptions
    flags: tuple[str, ...] = ()
    device: str | None = None
    recipe: Recipe | None = None

    def unchanged(self, session: Session, loaded: Loaded, plan: Plan) -> Unchanged:
        """The case before the recipe is applied."""
        from iree_pilot.repro.workarounds.applied import Unchanged

        chosen = self.chosen
        return Unchanged(
            loaded=loaded,
            job=session.job_with_inputs(self.source, chosen),
            settings=chosen.settings | ({"dtype": chosen.dtype} if chosen.dtype else {}),
            plan=plan,
            flags=self.flags,
            device=self.device,
        )

    def names(self, plan: Plan) -> tuple[str, ...]:
        """Names of the recipe's steps for a target, those at the trace first."""
        if self.recipe is None:
            return ()
        steps = (*self.recipe.of(""), *self.recipe.of(plan.target.backend))
        return tuple(one.name for one in steps)

    def summary(self, target: str, plan: Plan) -> str:
        """Line that says what the recipe does for a target; empty without a recipe."""
        if self.recipe is None:
            return ""
        said, backend = list(self.names(plan)), plan.target.backend
        others = any(one.backend for one in self.recipe.step)
        if others and not self.recipe.of(backend):
            words = following.source_words(self.source, self.chosen)
            again = out.command(("iree-pilot", "bringup", *words, "-t", target))
            said.append(f"no step for {backend}; {again}")
        return f"{target}: recipe: {', '.join(said)}"

    def document(self, plans: Sequence[tuple[str, Plan]]) -> dict[str, Any]:
        """The key of `--json` that says so: `recipe`, the names for each target; {} without one."""
        if self.recipe is None:
            return {}
        return {"recipe": {target: self.names(plan) for target, plan in plans}}

    def applied(self, session: Session, loaded: Loaded, plan: Plan) -> Applied:
        """The program, the plan and the flags for a target, changed as the recipe says, and with
        what the program gets by itself.

        Raises UsageError where the recipe does not fit.
        """
        from iree_pilot.repro.bringup import applying

        steps = self.recipe.of(plan.target.backend) if self.recipe else ()
        return applying.apply(steps, self.unchanged(session, loaded, plan), session.context)


def read(file: str | None, chosen: SourceOptions) -> tuple[Recipe | None, SourceOptions]:
    """(the recipe, the source's options with what it sets at the trace).

    Raises UsageError for a file that is no recipe, and where the user sets the same otherwise.
    """
    if file is None:
        return None, chosen
    from iree_pilot.repro.bringup import recipe as recipes

    recipe = recipes.read(Path(file), trust=chosen.trust)
    for key, value in recipe.settings.items():
        if chosen.settings.get(key, value) != value:
            raise UsageError(
                f"--set {key}={chosen.settings[key]}, but {file} sets {key}={value}",
                advice="Leave one of them out.",
            )
    settings = {**recipe.settings, **chosen.settings}
    return recipe, msgspec.structs.replace(chosen, settings=settings)
