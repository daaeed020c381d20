"""Applies the steps of a recipe to a case."""

from __future__ import annotations

from collections.abc import Sequence

from iree_pilot.pipeline.errors import UsageError
from iree_pilot.pipeline.store.store import data_directory
from iree_pilot.pipeline.toolchain.context import Context
from iree_pilot.repro.bringup.recipe import RecipeStep
from iree_pilot.repro.workarounds import applied
from iree_pilot.repro.workarounds.applied import Applied, Unchanged
from iree_pilot.repro.workarounds.rewrites import Unusable


def apply(steps: Sequence[RecipeStep], case: Unchanged, context: Context) -> Applied:
    """The case with steps applied, in their order.

    Raises UsageError where one of them cannot be.
    """
    place = data_directory() / "recipes" / context.toolchain.revision[:12]
    try:
        return applied.apply([one.candidate() for one in steps], case, context.at(place))
    except Unusable as fault:
        source = case.loaded.program.source
        raise UsageError(
            f"the recipe does not fit {source}: {fault}",
            advice=f"Make it anew: iree-pilot bringup {source} -t {case.plan.target.spec}",
        ) from fault
