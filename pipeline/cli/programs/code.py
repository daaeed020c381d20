"""Output of `run` and `compile` on generated code: kernels of AMD GPUs, shaders of Vulkan."""

from __future__ import annotations

from typing import Any

from rich.markup import escape

from iree_pilot.pipeline.case_result import CaseResult
from iree_pilot.pipeline.cli.display import output as out
from iree_pilot.pipeline.inspect.amdgpu import Kernel
from iree_pilot.pipeline.inspect.spirv import Checked

_SHOWN = 3
_WHOSE = "IREE's, not the model's: drivers may take it or refuse it; the verdict is that of the run"


def tell(console: Any, result: CaseResult, *, verbose: bool) -> None:
    """Kernels that spill or do not fill their SIMDs, worst first (verbose: all of them), and
    shaders that are not valid.
    """
    if result.kernels:
        _tell_kernels(console, result.kernels, verbose)
    if result.spirv:
        _tell_shaders(console, result.spirv, verbose)


def _tell_kernels(console: Any, kernels: tuple[Kernel, ...], verbose: bool) -> None:
    worst = sorted(kernels, key=_worth)
    wanting = [k for k in worst if k.spills or (k.occupancy and k.occupancy.idle)]
    shown = worst if verbose else wanting[:_SHOWN]
    count = out.count(len(kernels), "kernel")
    spilling = sum(bool(k.spills) for k in kernels)
    summary = f"{spilling} with spilled registers" if spilling else "no register is spilled"
    unknown = sorted({k.chip or "unknown" for k in kernels if k.occupancy is None})
    if unknown:
        summary += f"; occupancy unknown for {', '.join(unknown)}"
    elif not wanting:
        summary += ", every SIMD can be filled"
    console.print(f"  {count}: {summary}")
    for kernel in shown:
        console.print(f"    {escape(_described(kernel))}", soft_wrap=True)
    left = len(wanting) - len(shown)
    if left > 0:
        console.print(f"    and {left} more that spill or leave room for more waves (-v)")


def _worth(kernel: Kernel) -> tuple[int, float, str]:
    """Spills first, then low occupancy."""
    held = kernel.occupancy
    return -kernel.spills, held.waves / held.most if held else 1.0, kernel.name


def _described(kernel: Kernel) -> str:
    held = kernel.occupancy
    waves = f"{held.waves} of {held.most} waves" if held else "waves unknown"
    if held and held.limited_by:
        waves += f" (by {', '.join(held.limited_by)})"
    facts = [waves, f"{kernel.vgprs} VGPRs", f"{kernel.sgprs} SGPRs"]
    if kernel.spills:
        facts.append(f"{kernel.spills} spilled ({kernel.scratch_bytes} B of scratch)")
    if kernel.lds_bytes:
        facts.append(f"{out.size(kernel.lds_bytes)} LDS")
    return f"{kernel.name}: {', '.join(facts)}"


def _tell_shaders(console: Any, checked: Checked, verbose: bool) -> None:
    for complaint in checked.invalid:
        count = f"{len(complaint.shaders)} of {checked.shaders} shaders"
        console.print(
            f"  [yellow]warning:[/yellow] {count} not valid SPIR-V: {escape(complaint.message)} "
            f"(spirv-val {checked.validator})",
            soft_wrap=True,
        )
        for name in complaint.shaders if verbose else ():
            console.print(f"    {escape(name)}", soft_wrap=True)
    if checked.invalid:
        console.print(f"    {_WHOSE}", soft_wrap=True)
    for complaint in checked.unknown:
        count = f"{len(complaint.shaders)} of {checked.shaders} shaders"
        console.print(
            f"  {count} too new for spirv-val {checked.validator}: {escape(complaint.message)}",
            soft_wrap=True,
        )
