"""One side of a comparison: compiles what is made of the flow IR, runs it, keeps the values."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from iree_pilot.pipeline.errors import UsageError
from iree_pilot.pipeline.execution import engine
from iree_pilot.pipeline.execution.engine import Iree, Unsupported
from iree_pilot.pipeline.failures.diagnostics import Failure
from iree_pilot.pipeline.frontends.load import Loaded
from iree_pilot.pipeline.program.program import Call, Dim, Function, Tensor, TensorType
from iree_pilot.pipeline.targets.targets import Plan
from iree_pilot.pipeline.toolchain import compiler
from iree_pilot.pipeline.toolchain.compiler import Compile
from iree_pilot.pipeline.toolchain.context import Context
from iree_pilot.repro.differential.flow import FlowValue

FLOW_PHASE = "flow"


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """name: in the user's words. flags: of iree-compile: the target's, then the user's."""

    name: str
    plan: Plan
    flags: tuple[str, ...]

    @property
    def device(self) -> str:
        assert self.plan.device is not None, "checked before anything is compiled"
        return self.plan.device.uri

    def run(self, module: Path, call: Call, context: Context) -> tuple[Tensor, ...] | Failure:
        """Runs the module on the side's device; files go to the context's directory.

        Raises UsageError for inputs and weights that do not fit the program.
        """
        ran = Iree(module, self.device, context).run(call, context.directory)
        if isinstance(ran, Unsupported):
            raise UsageError(ran.why, advice=ran.advice)
        return ran if isinstance(ran, Failure) else ran.outputs


class Broken(Exception):
    """A side does not compile or run what the other side does."""

    def __init__(self, side: str, doing: str, failure: Failure) -> None:
        super().__init__(f"{side}: {doing}: {failure.kind}: {failure.message}")
        self.failure = failure


def check(sides: Sequence[Side]) -> None:
    """Raises UsageError for a side that cannot be run here."""
    for side in sides:
        if side.plan.device is None:
            raise UsageError(
                f"{side.name} cannot be compared: {side.plan.why_not_run}",
                advice=side.plan.advice or "Name a target that runs here (iree-pilot targets).",
            )


class Runner:
    """Compiles modules for one side, and runs their functions."""

    def __init__(self, side: Side, loaded: Loaded, context: Context) -> None:
        self.side = side
        self.compiles = self.runs = 0
        self._loaded = loaded
        self._context = context

    def compile(self, mlir: Path, name: str) -> Path:
        """The module of flow IR; one that was made of the same before is taken. Raises Broken."""
        place = self._context.directory / name
        module = place / compiler.MODULE
        done, digest = place / "done", hashlib.sha256(mlir.read_bytes()).hexdigest()
        if done.is_file() and module.is_file() and done.read_text(encoding="utf-8") == digest:
            return module
        shutil.rmtree(place, ignore_errors=True)
        job = Compile(mlir=mlir, flags=self.side.flags, resume=FLOW_PHASE)
        self.compiles += 1
        made = engine.compiled(job, self._context.at(place))
        shutil.rmtree(place / compiler.PHASES, ignore_errors=True)
        if isinstance(made, Failure):
            raise Broken(self.side.name, "its dispatches do not compile", made)
        done.write_text(digest, encoding="utf-8")
        return module

    def run(
        self,
        module: Path,
        function: str,
        inputs: Sequence[Tensor],
        outputs: Sequence[FlowValue],
        place: Path,
    ) -> dict[int, Tensor]:
        """The values that a function returns, by number, in files of `place`. Raises Broken."""
        described = Function(
            name=function,
            inputs=tuple(
                TensorType(name=f"in{i}", dtype=t.dtype, shape=t.shape)
                for i, t in enumerate(inputs)
            ),
            outputs=tuple(typed(value) for value in outputs),
            example=tuple(inputs),
        )
        self.runs += 1
        context = self._context.at(place)
        ran = self.side.run(module, self._loaded.call(described), context)
        if isinstance(ran, Failure):
            raise Broken(self.side.name, f"{function} does not run", ran)
        return {value.number: tensor for value, tensor in zip(outputs, ran, strict=True)}


def typed(value: FlowValue) -> TensorType:
    """A value as an output of a function."""
    shape = tuple(
        Dim(symbol=f"v{value.number}_{axis}") if size is None else size
        for axis, size in enumerate(value.shape)
    )
    return TensorType(name=f"v{value.number}", dtype=value.dtype, shape=shape)


def pick(numbers: Sequence[int], values: Mapping[int, Tensor]) -> list[Tensor]:
    return [values[number] for number in numbers]
