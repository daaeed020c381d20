"""NVIDIA's GPUs through CUDA: `cuda:sm_80`.

A module holds PTX, which drivers translate for the GPU at hand and for all newer ones.
"""

from __future__ import annotations

from iree_pilot.pipeline.targets import gpu
from iree_pilot.pipeline.targets.backend import Backend, Plan, Planner
from iree_pilot.pipeline.targets.devices import Device

#: Architecture if there is no NVIDIA GPU to ask: A100.
_DEFAULT = "sm_80"
#: Architectures that LLVM knows, by age; IREE knows fewer (3.13.0 neither `sm_90` nor `sm_100`).
_CAPABILITIES = (
    *("sm_60", "sm_61", "sm_62", "sm_70", "sm_72", "sm_75", "sm_80", "sm_86", "sm_87", "sm_89"),
    *("sm_90", "sm_100", "sm_103", "sm_110", "sm_120", "sm_121"),
)


def _plan(named: str | None, planner: Planner) -> Plan:
    def own(device: Device) -> str:
        """The newest architecture that the compiler knows and the device runs."""
        has = device.properties.get("gpu-compute-capability", "").replace(".", "")
        older = (sm for sm in reversed(_CAPABILITIES) if has and _runs(sm, f"sm_{has}"))
        return next((sm for sm in older if not planner.probe(sm).rejected), "")

    return gpu.plan(named, planner, _DEFAULT, own, _runs)


def _runs(code: str, device: str) -> bool:
    return _number(code) <= _number(device)


def _number(sm: str) -> int:
    return int(sm.removeprefix("sm_").rstrip("af")) if sm.startswith("sm_") else 0


BACKEND = Backend(
    name="cuda",
    title="CUDA",
    takes="asks the device (default), or sm_80, ampere, a100, rtx4090 ...",
    # `normalizeNVIDIAGPUTarget` in IREE's KnownTargets.cpp has more products.
    architectures=(*_CAPABILITIES, "turing", "ampere", "ada", "a100", "rtx3090", "rtx4090"),
    otherwise="PTX for an older GPU runs on newer ones.",
    hal_backends=("cuda",),
    hal_device="cuda",
    arch_flags=("iree-cuda-target",),
    drivers=("cuda",),
    no_device=(("libcuda.so", "libcuda.so is not installed: an NVIDIA GPU needs its driver."),),
    plan=_plan,
    neighbours=("llvm-cpu", "vulkan"),
    workarounds=gpu.LLVMGPU,
)
