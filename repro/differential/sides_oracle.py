"""Oracle for two sides: are the results of a program still different?"""

from __future__ import annotations

from pathlib import Path

import msgspec

from iree_pilot.pipeline.failures.diagnostics import Failure
from iree_pilot.pipeline.numerics import numerics
from iree_pilot.pipeline.numerics.numerics import Comparison
from iree_pilot.pipeline.program.program import Call, Function, Reference, Tensor
from iree_pilot.pipeline.toolchain.compiler import MODULE
from iree_pilot.pipeline.toolchain.context import Context
from iree_pilot.repro.differential.side import Side
from iree_pilot.repro.oracles.oracle import NotAProgram, RememberingOracle
from iree_pilot.repro.oracles.oracle_run import describe


class BothSides(msgspec.Struct, frozen=True, kw_only=True):
    """A program that was run on both sides: the call of its only function, which expects what the
    side held against returned, and how far the other is off. All files are absolute.
    """

    call: Call
    comparison: Comparison

    @property
    def differs(self) -> bool:
        return self.comparison.verdict == "mismatch"

    @property
    def expected(self) -> tuple[Tensor, ...]:
        reference = self.call.function.reference
        return reference.outputs if reference else ()


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
        with self._place(digest) as place:
            try:
                asked = self.asked(candidate, place)
            except SideFailed as failed:
                return failed.failure
        if not asked.differs:
            return None
        failure = numerics.to_failure(asked.comparison)
        return msgspec.structs.replace(failure, signature=self.wanted.signature)

    def asked(
        self, candidate: Path, place: Path, inputs: tuple[Tensor, ...] | None = None
    ) -> BothSides:
        """Runs a program on both sides, with files in `place`. inputs: to use in place of its own.

        Raises NotAProgram for what cannot be run, SideFailed for what fails in another way.
        """
        loaded = describe(candidate, None, self.context.at(place))
        if len(loaded.program.functions) != 1:
            raise NotAProgram(f"{candidate} has not one function that takes and returns tensors")
        call = loaded.call(loaded.program.functions[0])
        if given := inputs or self._fitting(call.function):
            call = call.given(given)
        expected = self._ran(self._against, candidate, call, place / "against")
        got = self._ran(self._side, candidate, call, place / "side")
        call = call.expecting(Reference(outputs=expected, evaluator=self._against.name))
        return BothSides(call=call, comparison=numerics.compare(got, call))

    def _fitting(self, function: Function) -> tuple[Tensor, ...] | None:
        wanted = [(t.dtype, t.shape) for t in function.inputs]
        fits = wanted == [(t.dtype, t.shape) for t in self._inputs]
        return self._inputs if fits else None

    def _ran(self, side: Side, candidate: Path, call: Call, place: Path) -> tuple[Tensor, ...]:
        place.mkdir()
        module = place / MODULE
        name = f"{place.parent.name}-{place.name}"
        failed = self._module(candidate, name, module, side.flags)
        ran = failed or side.run(module, call, self.context.at(place))
        if isinstance(ran, Failure):
            raise SideFailed(ran)
        return ran


class SideFailed(Exception):
    """A side fails in another way than by different results."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure
