"""Common parts of GPU targets: the device that runs code for an architecture, LLVMGPU's flags."""

from __future__ import annotations

import operator
from collections.abc import Callable

from iree_pilot.pipeline.targets.backend import FlagWorkaround, Plan, Planner
from iree_pilot.pipeline.targets.devices import Device


def plan(
    named: str | None,
    planner: Planner,
    default: str,
    own: Callable[[Device], str],
    runs: Callable[[str, str], bool] = operator.eq,
) -> Plan:
    """The first device that runs code for the named architecture, or else for that of a device.

    default: what is compiled for where there is no device. own: a device's architecture, "" where
    the runtime does not tell it. runs: whether code for the first runs on a device of the second.
    """
    title, present = planner.backend.title, planner.found.devices
    warnings: tuple[str, ...] = ()
    if named:
        assumed = planner.probe(named).assumptions
        arch, wanted = named, (assumed.arch if assumed else "") or named
    else:
        arch = wanted = next(filter(None, map(own, present)), default)
        if not present:
            warnings = (f"no {title} device to ask: compiling for {arch}",)
    for device in present:
        if not own(device) or runs(wanted, own(device)):
            return planner.plan(arch, device, warnings=warnings)
    if not present:
        found = planner.found
        return planner.plan(arch, why_not_run=found.why, advice=found.advice, warnings=warnings)
    others = ", ".join(dict.fromkeys(map(own, present)))
    return planner.plan(
        arch,
        why_not_run=f"no {wanted} {title} device, only {others}",
        advice=f"Compile for what is there: {planner.backend.name}:{own(present[0])}.",
        warnings=warnings,
    )


#: Workarounds of the code generator for AMD's and NVIDIA's GPUs.
LLVMGPU = (
    FlagWorkaround(
        "iree-llvmgpu-enable-small-float-emulation",
        "FP8 and FP4 that the chip lacks are emulated: exact, and slow",
        r"F8E|f8E|FP8|fp8|small-float",
    ),
    FlagWorkaround(
        "iree-codegen-llvmgpu-use-vector-distribution=false",
        "another way to distribute vectors over threads",
        r"vector|contract|timeout|layout",
    ),
    FlagWorkaround(
        "iree-codegen-llvmgpu-use-reduction-vector-distribution=false",
        "another way to lower reductions",
        r"timeout|out-of-memory|shared memory|stack|workgroup|allocation|reduc|softmax|vector",
    ),
    FlagWorkaround(
        "iree-codegen-llvmgpu-use-tile-and-fuse-matmul",
        "another way to lower matmuls",
        r"matmul|contract|mma",
        price="free",
    ),
    FlagWorkaround(
        "iree-codegen-llvmgpu-vectorize-pipeline",
        "the older way to lower matmuls",
        r"matmul|contract|vector",
    ),
    FlagWorkaround(
        "iree-codegen-llvmgpu-use-igemm=false",
        "convolutions are not lowered as matmuls",
        r"conv|im2col",
    ),
    FlagWorkaround(
        "iree-llvmgpu-prefetch-num-stages=0",
        "no prefetching into shared memory",
        r"shared memory|prefetch",
    ),
)
