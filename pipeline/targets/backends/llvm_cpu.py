"""The host's processor and its kin: `llvm-cpu:host`."""

from __future__ import annotations

import re

from iree_pilot.pipeline.targets.architectures import Assumptions
from iree_pilot.pipeline.targets.backend import DEVICE_FLAG, Backend, FlagWorkaround, Plan, Planner
from iree_pilot.pipeline.targets.devices import LOCAL

_LOCAL_FLAG = "iree-hal-local-target-device-backends"
#: Flags of vmvx, which interprets a program on the same device.
INTERPRETER = (f"--{DEVICE_FLAG}=local", f"--{_LOCAL_FLAG}=vmvx")
_ALWAYS = ("host", "generic")
#: CPU features with instructions that kernels use; not those of the operating system (`pku`), which
#: virtual machines often hide.
_KERNEL_FEATURES = re.compile(
    r"avx|amx|s?sse|fma|f16c|bmi|lzcnt|popcnt|movbe|adx|gfni|vaes|vpclmul"
    r"|neon|sve|sme|dotprod|i8mm|bf16|fullfp16|lse|zv|v$"
)


def _plan(named: str | None, planner: Planner) -> Plan:
    arch = named or "host"
    device = planner.found.devices[0]
    warnings: tuple[str, ...] = ()
    if arch not in _ALWAYS:
        wanted = planner.probe(arch).assumptions
        host = planner.probe("host", host=device.fingerprint).assumptions
        lacking = missing_features(wanted, host) if wanted and host else []
        if lacking:
            warnings = (
                f"llvm-cpu:{arch} may use what this processor ({device.name}) lacks, and then ends "
                f"with an illegal instruction: {', '.join(lacking)}",
            )
    return planner.plan(arch, device, warnings=warnings)


def missing_features(wanted: Assumptions, host: Assumptions) -> list[str]:
    """CPU features that kernels for `wanted` may use and the host lacks."""
    lacking = set(wanted.features) - set(host.features)
    return sorted(f for f in lacking if _KERNEL_FEATURES.match(f))


BACKEND = Backend(
    name="llvm-cpu",
    title="CPU",
    takes="host (default), generic, or a CPU that LLVM knows (znver4, neoverse-v2)",
    architectures=_ALWAYS,
    always=_ALWAYS,
    otherwise="llvm-cpu:host and llvm-cpu:generic always work.",
    hal_backends=("llvm-cpu", "vmvx"),
    hal_device="local",
    arch_flags=("iree-llvmcpu-target-cpu",),
    more_flags=(f"--{_LOCAL_FLAG}=llvm-cpu",),
    drivers=LOCAL,
    plan=_plan,
    neighbours=("llvm-cpu:generic", "llvm-cpu:host", "vulkan"),
    plain_pipelines=(
        ("#iree_cpu.pipeline<Default>", "#iree_cpu.pipeline<"),
        ("CPUDefault", "= CPU"),
    ),
    alternatives=("generic", "x86-64-v4", "x86-64-v3", "x86-64-v2"),
    level_flag="iree-llvmcpu-mlir-opt-level",
    workarounds=(
        FlagWorkaround(
            "iree-llvmcpu-enable-ukernels=none",
            "no hand-written kernels: all code comes from the compiler",
            r"ukernel|mmt4d|matmul",
        ),
        FlagWorkaround(
            "iree-llvmcpu-enable-ukernels=all",
            "hand-written kernels wherever there is one, in place of code that fails to lower",
            r"mmt4d|matmul|contract|extf",
            price="free",
        ),
        FlagWorkaround(
            "iree-llvmcpu-disable-vector-peeling",
            "no separate loop for the remainder of a vector",
            r"vector|mismatch",
        ),
        FlagWorkaround(
            "iree-llvmcpu-vector-pproc-strategy=none",
            "sizes that are not a multiple of a vector are neither peeled nor masked",
            r"vector|mask|peel",
        ),
        FlagWorkaround(
            "iree-llvmcpu-vector-pproc-strategy=mask",
            "the remainder of a vector is masked",
            r"vector|mask|peel",
        ),
        FlagWorkaround(
            "iree-llvmcpu-max-allowed-number-of-native-vectors=1",
            "small vectors: less to unroll",
            r"large vector|vector|timeout|stack",
        ),
        FlagWorkaround(
            "iree-llvmcpu-target-vector-width-in-bytes=16", "short vectors", r"vector|mismatch"
        ),
        FlagWorkaround(
            "iree-llvmcpu-disable-distribution",
            "no distribution over threads",
            r"computeTileSizes|tile|distribut|SIGFPE",
        ),
        FlagWorkaround(
            "iree-llvmcpu-stack-allocation-limit=1048576",
            "lets a dispatch use 1 MiB of stack instead of 32 KiB; threads need that much",
            r"stack",
            price="free",
        ),
        FlagWorkaround(
            "iree-llvmcpu-fail-on-out-of-bounds-stack-allocation=false",
            "stack whose size is not known is allowed",
            r"stack|allocation",
            price="free",
        ),
        FlagWorkaround(
            "iree-llvmcpu-reassociate-fp-reductions=false",
            "floating-point sums keep their order",
            r"mismatch/values|nan|inf",
        ),
        FlagWorkaround(
            "iree-llvmcpu-skip-intermediate-roundings=false",
            "sums in f16 are rounded after each step, as the program says",
            r"mismatch/values",
        ),
        FlagWorkaround(
            "iree-llvmcpu-use-fast-min-max-ops",
            "min and max without NaN semantics",
            r"max|min|nan",
            price="precision",
        ),
        FlagWorkaround(
            "iree-llvmcpu-use-decompose-softmax-fuse=false",
            "softmax's loops are not fused",
            r"softmax|Softmax",
        ),
        FlagWorkaround(
            "iree-llvmcpu-slp-vectorization=false",
            "LLVM does not vectorise straight-line code",
            r"llvm|LLVM|mismatch",
        ),
        FlagWorkaround(
            "iree-llvmcpu-loop-vectorization=false",
            "LLVM does not vectorise loops",
            r"llvm|LLVM|mismatch",
        ),
        FlagWorkaround(
            "iree-llvmcpu-link-embedded=false",
            "code is linked by the system's linker, with its C library",
            r"link|undefined symbol|lld",
            price="free",
        ),
    ),
)
