"""Other architectures of a target's backend that fit the machine at hand, as candidates."""

from __future__ import annotations

from iree_pilot.pipeline.errors import PilotError
from iree_pilot.pipeline.targets import targets
from iree_pilot.pipeline.targets.targets import BACKENDS, Plan, Target
from iree_pilot.pipeline.toolchain.toolchain import Toolchain
from iree_pilot.repro.workarounds.candidate import Candidate


def fitting(plan: Plan, device: str | None, toolchain: Toolchain) -> list[Candidate]:
    """Other architectures of the target's backend that fit the device at hand."""
    target = plan.target
    if not target.arch:
        return []
    backend = BACKENDS[target.backend]
    names = (arch or _best(target.backend, device, toolchain) for arch in backend.alternatives)
    found = []
    for arch in dict.fromkeys(names):
        if not arch or arch == target.arch:
            continue
        other = backend.target(arch)
        try:
            other_plan = targets.plan(other, toolchain, device)
        except PilotError:
            continue
        if other_plan.warnings:
            continue
        what = "this processor" if backend.on_host else "its device"
        found.append(
            Candidate(
                name=f"-t {other.spec}",
                reason=f"fits {what}: another choice of types, vector widths and lowerings",
                group="target",
                price="slower" if backend.on_host else "free",
                arch=arch,
                helps=".",
            )
        )
    return found


def _best(backend: str, device: str | None, toolchain: Toolchain) -> str:
    """The architecture that fits the device best, as a target without one is planned."""
    try:
        plan = targets.plan(Target(spec=backend, backend=backend), toolchain, device)
    except PilotError:
        return ""
    return plan.target.arch or ""
