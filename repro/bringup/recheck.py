"""Drops from a recipe what the compiler at hand needs no more, one line after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from iree_pilot.pipeline import case
from iree_pilot.pipeline.case import CaseWatcher, Settings
from iree_pilot.pipeline.case_result import CaseResult
from iree_pilot.pipeline.errors import UsageError
from iree_pilot.pipeline.toolchain.context import Context
from iree_pilot.repro.bringup import applying
from iree_pilot.repro.bringup.recipe import RecipeStep
from iree_pilot.repro.workarounds.applied import Unchanged


def needed(
    steps: Sequence[RecipeStep],
    subject: Unchanged,
    context: Context,
    watcher: CaseWatcher,
    note: Callable[[str], None],
) -> tuple[list[RecipeStep], CaseResult]:
    """The steps without which the program fails, and its result with them.

    If it fails even with all of them, all are kept.
    """
    result = _run(steps, subject, context, watcher)
    kept = list(steps)
    if result is None or result.failure is not None:
        return kept, result or _plain(subject, context, watcher)
    for one in steps:
        without = [other for other in kept if other is not one]
        then = _run(without, subject, context, watcher)
        if then is not None and then.failure is None and then.status == result.status:
            note(f"{result.target}: needed no more: {one.name} ({one.answers})")
            kept, result = without, then
    return kept, result


def works(
    steps: Sequence[RecipeStep], subject: Unchanged, context: Context, watcher: CaseWatcher
) -> bool:
    """True if nothing fails with the steps applied."""
    result = _run(steps, subject, context, watcher)
    return result is not None and result.failure is None


def _plain(subject: Unchanged, context: Context, watcher: CaseWatcher) -> CaseResult:
    result = _run((), subject, context, watcher)
    assert result is not None, "nothing is applied that could not be"
    return result


def _run(
    steps: Sequence[RecipeStep], subject: Unchanged, context: Context, watcher: CaseWatcher
) -> CaseResult | None:
    """The case with steps applied; None where they cannot be."""
    try:
        made = applying.apply(steps, subject, context)
    except UsageError:
        return None
    settings = Settings(flags=made.flags, latency_budget=0)
    return case.run(made.loaded, made.plan, context, settings, watcher)
