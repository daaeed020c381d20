"""Sources whose model is an `aot.CompiledModule`: turbine writes the MLIR, which is then a program.

Runs in the tracing child; imports torch and turbine.
"""

from __future__ import annotations

import importlib.metadata
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
from iree.turbine import aot

from iree_pilot.pipeline.frontends.job import Job
from iree_pilot.pipeline.frontends.mlir import mlir
from iree_pilot.pipeline.frontends.pytorch.torch_sources import HoldsCompiledModule
from iree_pilot.pipeline.frontends.reference import reference
from iree_pilot.pipeline.program import program as programs
from iree_pilot.pipeline.program import torch_tensors
from iree_pilot.pipeline.program.program import Program, Tensor
from iree_pilot.pipeline.toolchain import releases
from iree_pilot.pipeline.toolchain.context import Context

_WRITTEN = "written"
_DESCRIBED = "described"


def build(
    made: HoldsCompiledModule, job: Job, directory: Path, doing: Callable[[str], None]
) -> Program:
    """Writes the module's MLIR and describes it in `directory`, as that of an MLIR file.

    The source's `inputs()` are the example inputs where it has them. Whatever turbine raises
    passes through.
    """
    doing("writing the aot.CompiledModule")
    place = directory / _WRITTEN
    place.mkdir()
    file = place / programs.MLIR
    if isinstance(made.module, type):
        module = aot.export(made.module).mlir_module
    else:
        module = aot.CompiledModule.get_mlir_module(made.module)
    file.write_text(str(module.get_asm(enable_debug_info=False)))
    inputs = job.inputs
    if inputs is None and made.inputs is not None:
        inputs = _saved(made, place)
    source = msgspec.structs.replace(job.source, kind="mlir", path=str(file))
    own = msgspec.structs.replace(job, source=source, inputs=inputs)
    doing("describing the aot.CompiledModule")
    described = directory / _DESCRIBED
    described.mkdir()  # scratch files are named alike there and here
    program = mlir.build(own, Context(toolchain=releases.find(None), directory=described))
    for entry in described.iterdir():
        entry.rename(directory / entry.name)
    described.rmdir()
    shutil.rmtree(place)
    return msgspec.structs.replace(
        program, origin={n: importlib.metadata.version(n) for n in ("torch", "iree-turbine")}
    )


def _saved(made: HoldsCompiledModule, place: Path) -> tuple[Tensor, ...]:
    saved = (
        torch_tensors.save(value, place, f"input{index}.bin")
        for index, value in enumerate(reference.tensors(made.inputs))
    )
    return tuple(one.placed(place) for one in saved)
