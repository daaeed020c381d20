"""Functions as exported programs, for tests of what becomes of their operations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def exported(function: Callable[..., Any], *args: Any) -> dict[str, Any]:
    """The function as a program that iree-turbine's table has decomposed."""
    import torch
    from iree.turbine.aot.decompositions import current_aot_decompositions

    class Module(torch.nn.Module):
        def forward(self, *values: Any) -> Any:
            return function(*values)

    program = torch.export.export(Module(), args, strict=False)
    return {"main": program.run_decompositions(current_aot_decompositions())}


def operations(programs: dict[str, Any]) -> set[str]:
    from iree_pilot.pipeline.frontends.gaps import gaps

    return {gaps.name(op) for program in programs.values() for op in gaps._operations(program)}
