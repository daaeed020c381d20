"""Engines that compute a program's values; a caller does not know which one it has.

IREE runs a compiled module on a device. PyTorch, and numpy where that does not know the dialect,
carry a program out operation by operation.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import msgspec

from iree_pilot.pipeline.errors import UsageError
from iree_pilot.pipeline.evaluate import evaluation
from iree_pilot.pipeline.execution import runtime
from iree_pilot.pipeline.execution.runtime import Run
from iree_pilot.pipeline.failures.diagnostics import Failure
from iree_pilot.pipeline.processes.process import Limits
from iree_pilot.pipeline.program.program import Call, Tensor
from iree_pilot.pipeline.toolchain import compiler
from iree_pilot.pipeline.toolchain.compiler import Compile
from iree_pilot.pipeline.toolchain.context import Context
from iree_pilot.pipeline.torch_dialect import evaluate as torch_dialect

_TORCH = re.compile(rb"\baten\.[a-z_]|\bprims\.[a-z]")
#: Operations of dialects that PyTorch does not know, which functions may have beside torch's.
_OTHERS = re.compile(
    rb"\bonnx\.[A-Z]|\b(?:linalg|tensor|stablehlo|tosa|iree_linalg_ext|tm_tensor)\.(?!py\b)"
)


class Values(msgspec.Struct, frozen=True):
    """Results of a call, in its function's own types; files are absolute."""

    outputs: tuple[Tensor, ...]


class Unsupported(msgspec.Struct, frozen=True):
    """An engine cannot run the program, or not with these inputs: that says nothing of it."""

    why: str
    advice: str = ""

    def __str__(self) -> str:
        return f"{self.why}\n{self.advice}" if self.advice else self.why


class Engine(Protocol):
    """Runs a program with values."""

    def run(self, call: Call, directory: Path) -> Values | Failure | Unsupported:
        """Runs the call; files go to `directory`, which is created if it does not exist."""
        ...


def compiled(job: Compile, context: Context) -> Path | Failure:
    """The module (or IR) that a program is compiled to, in the context's directory."""
    context.directory.mkdir(parents=True, exist_ok=True)
    result = compiler.compile(job, context, confirm=False)
    if result.failure is not None:
        return result.failure
    assert result.output is not None
    return context.directory / result.output


@dataclass(frozen=True)
class Iree:
    """IREE's runtime: a module that programs were compiled to, on a device (a URI)."""

    module: Path
    device: str
    context: Context

    def run(self, call: Call, directory: Path) -> Values | Failure | Unsupported:
        job = Run(
            program=call.program,
            directory=call.directory,
            function=call.function,
            module=self.module,
            device=self.device,
        )
        try:
            ran = runtime.run(job, self.context.at(directory), latency_budget=0)
        except UsageError as fault:
            return Unsupported(fault.message, fault.advice)
        place = directory.absolute()
        return ran.failure or Values(tuple(output.placed(place) for output in ran.outputs))


@dataclass(frozen=True)
class Evaluating:
    """PyTorch or numpy, in a child: `function` is for `task.call`, from works to their `Stage`s.

    name: for the user. limits: of one question.
    """

    name: str
    function: str
    limits: Limits = field(default_factory=Limits)

    def run(self, call: Call, directory: Path) -> Values | Failure | Unsupported:
        work = torch_dialect.work(call, directory)
        (found,) = torch_dialect.evaluate([work], limits=self.limits, by=self.function)
        if found.reference is None:
            return Unsupported(found.why)
        return Values(found.reference.placed(directory.absolute()).outputs)


TORCH = Evaluating("PyTorch", torch_dialect.TORCH)
NUMPY = Evaluating("numpy", evaluation.NUMPY)


def evaluating(program: Path) -> Evaluating:
    """The one that knows the operations of a program, text or bytecode."""
    content = program.read_bytes()
    return TORCH if _TORCH.search(content) and not _OTHERS.search(content) else NUMPY
