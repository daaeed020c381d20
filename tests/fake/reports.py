"""A reproducer's report, of a failure and of as much else as a test names."""

from __future__ import annotations

from typing import Any

from iree_pilot.pipeline.failures.diagnostics import Failure
from iree_pilot.repro.reproducer.folder import bundle
from iree_pilot.repro.reproducer.folder.bundle import Level, Report

CPU = (
    "--iree-hal-target-device=local",
    "--iree-hal-local-target-device-backends=llvm-cpu",
    "--iree-llvmcpu-target-cpu=generic",
)


def report(failure: Failure, *levels: Level, **fields: Any) -> Report:
    """A report of a failure; fields: what it has in place of what is here."""
    known: dict[str, Any] = {
        "target": "llvm-cpu",
        "flags": (),
        "release": "9.9.0",
        "revision": "0" * 40,
        "source": "llama-fp8",
        "command": ("iree-compile", "/home/user/full.mlir", "-o", "module.vmfb"),
        "program": "/home/user/.cache/iree-pilot/program/1",
        "ops": 1,
        "op_names": ("torch.aten.matmul",),
        "oracle_calls": 5,
        "seconds": 1.5,
        "minimal": True,
        "verified": False,
        "time_limit": 20,
    }
    return Report(failure=failure, levels=levels or (bundle.level("mlir"),), **(known | fields))
