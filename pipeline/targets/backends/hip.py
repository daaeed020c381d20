"""AMD's GPUs through HIP: `hip:gfx942`."""

from __future__ import annotations

from iree_pilot.pipeline.targets import gpu
from iree_pilot.pipeline.targets.backend import Backend, FlagWorkaround, Plan, Planner
from iree_pilot.pipeline.targets.devices import Device

#: Architecture if there is no AMD GPU to ask: MI300.
_DEFAULT = "gfx942"


def _gfx(device: Device) -> str:
    """A device's architecture without its feature suffixes (`gfx942:sramecc+:xnack-`)."""
    return device.properties.get("gpu-arch-name", "").partition(":")[0]


def _plan(named: str | None, planner: Planner) -> Plan:
    return gpu.plan(named, planner, _DEFAULT, _gfx)


BACKEND = Backend(
    name="hip",
    title="HIP",
    takes="asks the device (default), or gfx942, gfx1100, mi300x ...",
    # `normalizeAMDGPUTarget` in IREE's KnownTargets.cpp has the products besides.
    architectures=(
        *("gfx942", "gfx950", "gfx90a", "gfx908", "gfx1100", "gfx1101", "gfx1103", "gfx1150"),
        *("gfx1151", "gfx1200", "gfx1201", "gfx1250", "mi300x", "mi355x", "rx7900xtx", "rx9070xt"),
    ),
    hal_backends=("rocm",),
    hal_device="hip",
    arch_flags=("iree-rocm-target", "iree-hip-target"),  # the second in releases up to 3.11
    drivers=("hip",),
    no_device=(
        ("amdhip64", "libamdhip64.so is not installed: an AMD GPU needs ROCm's HIP runtime."),
    ),
    plan=_plan,
    code="amdgpu",
    neighbours=("llvm-cpu", "vulkan"),
    workarounds=(
        *gpu.LLVMGPU,
        FlagWorkaround(
            "iree-rocm-enable-ukernels=none", "no hand-written kernels", r"ukernel|argmax"
        ),
        FlagWorkaround(
            "iree-hip-enable-ukernels=none",
            "no hand-written kernels (the flag's name up to 3.11)",
            r"ukernel|argmax",
        ),
        FlagWorkaround(
            "iree-rocdl-enable-buffer-instructions=false",
            "plain loads and stores in place of buffer instructions",
            r"buffer|rsrc",
        ),
        FlagWorkaround(
            "iree-rocm-llvm-global-isel",
            "LLVM's other instruction selector",
            r"cannot-select|Cannot select|ISel",
        ),
    ),
)
