"""Apple's GPUs through Metal: `metal:macos`.

Off macOS a module holds the source of its shaders, which the device's driver compiles.
"""

from __future__ import annotations

from iree_pilot.pipeline.targets.backend import Backend, Plan, Planner


def _plan(named: str | None, planner: Planner) -> Plan:
    found = planner.found
    device = next(iter(found.devices), None)
    return planner.plan(named or "macos", device, why_not_run=found.why, advice=found.advice)


BACKEND = Backend(
    name="metal",
    title="Metal",
    takes="macos (default), ios, ios-simulator",
    architectures=("macos", "ios", "ios-simulator"),
    hal_backends=("metal-spirv",),
    hal_device="metal",
    arch_flags=("iree-metal-target-platform",),
    drivers=("metal",),
    plan=_plan,
    neighbours=("llvm-cpu", "vulkan"),
)
