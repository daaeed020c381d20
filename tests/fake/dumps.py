"""What `iree-run-module --dump_devices=` prints, for devices that are not here."""

from __future__ import annotations

_RULE = "# ===" + "-" * 70 + "==="
_FEATURES = (
    "bufferDeviceAddress",
    "storageBuffer8BitAccess",
    "storageBuffer16BitAccess",
    "shaderInt8",
    "shaderFloat16",
    "shaderIntegerDotProduct",
    "cooperativeMatrix",
)
NO_HIP = (
    "c/runtime/src/iree/hal/drivers/hip/dynamic_symbols.c:155: UNAVAILABLE; HIP runtime library "
    "'amdhip64.dll'/'libamdhip64.so' not available: please ensure installed and in dynamic "
    "library search path: \n  Tried: libamdhip64.so\n"
)
NO_CUDA = (
    "c/runtime/src/iree/hal/drivers/cuda/cuda_dynamic_symbols.c:66: UNAVAILABLE; CUDA driver "
    "library 'libcuda.so'/'nvcuda.dll' not available; please ensure installed and in dynamic "
    "library search path\n"
)
NO_VULKAN_DRIVER = (
    "c/runtime/src/iree/hal/drivers/vulkan/physical_device.c:441: UNAVAILABLE; "
    "[vkCreateInstance] VK_ERROR_INCOMPATIBLE_DRIVER\n"
)


def vulkan(
    name: str,
    *,
    uri: str = "vulkan://GPU-6d65736132352e302e372d327e627000",
    kind: str = "discrete-gpu",
    vendor: str = "0x1002",
    subgroup: tuple[int, int, int] = (64, 32, 64),
    control: bool = True,
    stages: int = 0x30,
    operations: int = 0x6FF,
    lacks: tuple[str, ...] = (),
    tier: str = "supported",
    silent: bool = False,
) -> str:
    """One device as runtimes from 3.12 on print it; `silent` as the older ones do.

    subgroup: its default, smallest and largest size. lacks: features that it does not have.
    """
    header = f"{_RULE}\n# --device={uri}\n#   {name}\n{_RULE}\n"
    if silent:
        return header
    told = " ".join(f"{f}={'no' if f in lacks else 'yes'}" for f in _FEATURES)
    missing = "  missing: Vulkan API 1.3\n  missing: timelineSemaphore\n"
    size, smallest, largest = subgroup
    return (
        f"{header}name: {name}\npath: {uri.partition('://')[2]}\napi: 1.3.255\ntype: {kind}\n"
        f"vendor_id: {vendor}\ndevice_id: 0x0000\ndriver: Mesa\ndriver_info: Mesa 25.0.7\n"
        f"feature_tier[vulkan-1.3]: {tier}\n{'' if tier == 'supported' else missing}"
        f"features: {told} subgroupSizeControl={'yes' if control else 'no'}\n"
        f"subgroup: size={size} operations=0x{operations:08x} quadOperationsInAllStages=no "
        f"minSubgroupSize={smallest} maxSubgroupSize={largest} "
        f"requiredSubgroupSizeStages=0x{stages:08x}\n"
        "queue_families: 1\n  [0] count=1 flags=graphics|compute timestampValidBits=64\n"
        "device_extensions: 1\n  VK_KHR_8bit_storage\n"
    )


def hip(name: str, arch: str, uri: str = "hip://GPU-0") -> str:
    """One AMD GPU."""
    return (
        f"{_RULE}\n# --device={uri}\n#   {name}\n{_RULE}\n\n"
        "- amdhip64_dylib_path: /opt/rocm/lib/libamdhip64.so\n- gpu-compute-capability: 9.4\n"
        f"- gpu-arch-name: {arch}\n\n- launch-max-block-dims: (1024, 1024, 1024)\n"
    )


def cuda(name: str, capability: str, uri: str = "cuda://GPU-0") -> str:
    """One NVIDIA GPU."""
    return (
        f"{_RULE}\n# --device={uri}\n#   {name}\n{_RULE}\n\n"
        f"- gpu-compute-capability: {capability}\n- driver-max-cuda-version: 12.8\n"
    )


def llvmpipe(width: int = 8) -> str:
    """Mesa's software driver on a processor with vectors of `width` floats."""
    return vulkan(
        f"llvmpipe (LLVM 15.0.6, {width * 32} bits)",
        kind="cpu",
        vendor="0x10005",
        subgroup=(width, width, width),
        lacks=("cooperativeMatrix",),
    )
