"""Asks both sides of a program: are the results still different?"""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec

from iree_pilot.pipeline.errors import UsageError
from iree_pilot.pipeline.execution import runtime
from iree_pilot.pipeline.execution.runtime import Run
from iree_pilot.pipeline.failures.diagnostics import Failure
from iree_pilot.pipeline.frontends import mlir
from iree_pilot.pipeline.frontends.job import Job, TraceFailed
from iree_pilot.pipeline.frontends.source import Source
from iree_pilot.pipeline.numerics import numerics
from iree_pilot.pipeline.numerics.numerics import Comparison
from iree_pilot.pipeline.program.program import Call, Function, Program, Reference, Tensor
from iree_pilot.pipeline.toolchain.compiler import MODULE, Compile
from iree_pilot.pipeline.toolchain.context import Context
from iree_pilot.repro.differential.side import Side
from iree_pilot.repro.oracles.oracle import NotAProgram, RememberingOracle


class BothSides(msgspec.Struct, frozen=True, kw_only=True):
    """A program that was run on both sides: its only function, with what it was called with (files
    relative to `directory`), what the side held against returned, and how far the other is off.
    """

    function: Function
    directory: str
    expected: tuple[Tensor, ...]
    comparison: Comparison

    @property
    def differs(self) -> bool:
        return self.comparison.verdict == "mismatch"


class SidesOracle(RememberingOracle):
    """Compiles a candidate for both sides, runs it on both with the same inputs and compares.

    A candidate that takes what `inputs` are is run with these; any other with values that are made
    up. In which way results differ is not asked: they may hang on what is in memory by chance.
    """

    def __init__(
        self,
        context: Context,
        side: Side,
        against: Side,
        wanted: Failure,
        *,
        inputs: tuple[Tensor, ...] = (),
        width: int = 1,
    ) -> None:
        super().__init__(context, side.flags, wanted, width=width)
        self._side, self._against = side, against
        self._inputs = inputs

    def _failure(self, candidate: Path, digest: str) -> Failure | None:
        place = self._scratch / digest[:16]
        try:
            asked = self.asked(candidate, place)
        except SideFailed as failed:
            return failed.failure
        finally:
            shutil.rmtree(place, ignore_errors=True)
        if not asked.differs:
            return None
        failure = numerics.to_failure(asked.comparison)
        return msgspec.structs.replace(failure, signature=self.wanted.signature)

    def asked(
        self, candidate: Path, place: Path, inputs: tuple[Tensor, ...] | None = None
    ) -> BothSides:
        """Asks of a program anew; files go to `place`. inputs: in place of those it would get.

        Raises NotAProgram for what cannot be run, Failed for what fails in another way.
        """
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        program = self._described(candidate, place)
        function = program.functions[0]
        given = inputs or self._fitting(function)
        if given is not None:
            function = msgspec.structs.replace(function, example=given)
        expected = self._ran(self._against, candidate, program, function, place / "against")
        got = self._ran(self._side, candidate, program, function, place / "side")
        reference = Reference(outputs=expected, evaluator=self._against.name)
        call = Call(program=program, directory=place, function=function).expecting(reference)
        comparison = numerics.compare(got, call, outputs_directory=place)
        return BothSides(
            function=function, directory=str(place), expected=expected, comparison=comparison
        )

    def _described(self, candidate: Path, place: Path) -> Program:
        source = Source(text=candidate.name, kind="mlir", path=str(candidate))
        try:
            program = mlir.build(Job(source=source), self.context.at(place))
        except (UsageError, TraceFailed) as fault:
            raise NotAProgram(str(fault)) from fault
        if len(program.functions) != 1:
            raise NotAProgram(f"{candidate} has not one function that takes and returns tensors")
        return program

    def _fitting(self, function: Function) -> tuple[Tensor, ...] | None:
        wanted = [(t.dtype, t.shape) for t in function.inputs]
        fits = wanted == [(t.dtype, t.shape) for t in self._inputs]
        return self._inputs if fits else None

    def _ran(
        self, side: Side, candidate: Path, program: Program, function: Function, place: Path
    ) -> tuple[Tensor, ...]:
        place.mkdir()
        module = place / MODULE
        job = Compile(mlir=candidate, flags=side.flags)
        command = job.command(self.context.toolchain, str(module), dumps=None)
        failure = self._compile(command, candidate, f"{place.parent.name}-{place.name}", None)
        if failure is not None:
            raise SideFailed(failure)
        run = Run(
            program=program,
            directory=place.parent,
            function=function,
            module=module,
            device=side.device,
        )
        ran = runtime.run(run, self.context.at(place), latency_budget=0)
        if ran.failure is not None:
            raise SideFailed(ran.failure)
        return tuple(msgspec.structs.replace(t, file=f"{place.name}/{t.file}") for t in ran.outputs)


class SideFailed(Exception):
    """A side fails in another way than by different results."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure
