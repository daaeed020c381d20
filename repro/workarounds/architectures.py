"""Other architectures of a target's backend that fit the machine at hand, as candidates."""

from __future__ import annotations

from collections.abc import Sequence

from iree_pilot.pipeline.errors import PilotError
from iree_pilot.pipeline.targets import targets
from iree_pilot.pipeline.targets.architectures import GENERIC_VULKAN
from iree_pilot.pipeline.targets.targets import Backend, Plan, Target
from iree_pilot.pipeline.toolchain.toolchain import Toolchain
from iree_pilot.repro.workarounds.candidate import Candidate

#: Processors that code is compiled for in place of the one at hand, the modest ones last.
_PROCESSORS = ("generic", "x86-64-v4", "x86-64-v3", "x86-64-v2")


def fitting(plan: Plan, device: str | None, toolchain: Toolchain) -> list[Candidate]:
    """Other architectures of the target's backend that fit the device at hand."""
    target = plan.target
    if target.backend == "hip" or not target.arch:
        return []
    names: Sequence[str] = _PROCESSORS
    if target.backend == "vulkan":
        names = (_best(target.backend, device, toolchain), *GENERIC_VULKAN)
    found = []
    for arch in dict.fromkeys(names):
        if not arch or arch == target.arch:
            continue
        other = Target(spec=f"{target.backend}:{arch}", backend=target.backend, arch=arch)
        try:
            other_plan = targets.plan(other, toolchain, device)
        except PilotError:
            continue
        if other_plan.warnings:
            continue
        what = "its device" if target.backend == "vulkan" else "this processor"
        found.append(
            Candidate(
                name=f"-t {other.spec}",
                reason=f"fits {what}: another choice of types, vector widths and lowerings",
                group="target",
                price="free" if target.backend == "vulkan" else "slower",
                arch=arch,
                helps=".",
            )
        )
    return found


def _best(backend: Backend, device: str | None, toolchain: Toolchain) -> str:
    """The architecture that fits the device best, as a target without one is planned."""
    try:
        plan = targets.plan(Target(spec=backend, backend=backend), toolchain, device)
    except PilotError:
        return ""
    return plan.target.arch or ""
