"""The compile targets, one file each; here in the order in which they are listed."""

from __future__ import annotations

from iree_pilot.pipeline.targets.backend import Backend, table
from iree_pilot.pipeline.targets.backends import cuda, hip, llvm_cpu, metal, vulkan

BACKENDS: dict[str, Backend] = table(
    *(module.BACKEND for module in (llvm_cpu, vulkan, hip, cuda, metal))
)
