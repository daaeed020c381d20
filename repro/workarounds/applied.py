"""What candidates make of a case: another program, another plan, more flags."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from iree_pilot.pipeline.frontends.job import Job
from iree_pilot.pipeline.frontends.load import Loaded
from iree_pilot.pipeline.targets import targets
from iree_pilot.pipeline.targets.targets import Plan
from iree_pilot.pipeline.toolchain.context import Context
from iree_pilot.repro.workarounds import by_itself
from iree_pilot.repro.workarounds.candidate import Candidate, name


class Unchanged(msgspec.Struct, frozen=True, kw_only=True):
    """A case before anything is applied to it.

    job, settings: what the program was made of, and the fields among it that the user set. plan:
    what the target means. flags: the user's for iree-compile. device: as the user named it.
    """

    loaded: Loaded
    job: Job
    settings: dict[str, str]
    plan: Plan
    flags: tuple[str, ...]
    device: str | None


class Applied(msgspec.Struct, frozen=True, kw_only=True):
    """A case after something was applied to it; flags: the user's and those of the candidates."""

    loaded: Loaded
    plan: Plan
    flags: tuple[str, ...]


def apply(combination: Sequence[Candidate], case: Unchanged, context: Context) -> Applied:
    """The case with candidates applied, and with what its program gets by itself for the target.

    context.directory: for programs that candidates edit. Raises Unusable where there is no such
    program.
    """
    plan, loaded = plan_of(combination, case, context), case.loaded
    if combination:
        from iree_pilot.repro.workarounds import rewrites  # what edits, most cases do not need

        loaded = rewrites.traced(loaded, case.job, case.settings, combination, context)
    loaded = by_itself.apply(loaded, plan, context)
    if combination:
        done = by_itself.edits(loaded)
        more = [one for one in combination if one.edit not in done]
        loaded = rewrites.edited(loaded, more, context)
    return Applied(loaded=loaded, plan=plan, flags=flags_of(combination, case))


def plan_of(combination: Sequence[Candidate], case: Unchanged, context: Context) -> Plan:
    """The target's plan with the combination's architecture, if it names one."""
    arch = next((one.arch for one in combination if one.arch), "")
    if not arch:
        return case.plan
    target = targets.BACKENDS[case.plan.target.backend].target(arch)
    flags = flags_of(combination, case)
    return targets.plan(target, context.toolchain, case.device, user_flags=flags)


def flags_of(combination: Sequence[Candidate], case: Unchanged) -> tuple[str, ...]:
    """The user's flags, those of the combination in place of the user's of the same name."""
    own = [flag for one in combination for flag in one.flags]
    named = {name(flag) for flag in own}
    if any(one.arch for one in combination):
        named |= {*targets.BACKENDS[case.plan.target.backend].arch_flags}
    return (*(f for f in case.flags if name(f) not in named), *own)
