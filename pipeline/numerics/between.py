"""Compares what the targets of one run give with each other, where there is no reference.

Agreement proves little, as all targets share most of the compiler, so that a case stays `ran`; but
of two targets that differ one is wrong. Tolerances are those of `pipeline.numerics.numerics` where
there is no precise reference, and of f32 at least: the compiler turns f64 into f32 unless a
flag forbids it. What a program draws at random may differ, so that a program that draws is not
compared.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import msgspec

from iree_pilot.pipeline.case import kept
from iree_pilot.pipeline.case_result import CaseResult, ComparedTarget, FunctionResult
from iree_pilot.pipeline.evaluate import references
from iree_pilot.pipeline.failures import diagnostics
from iree_pilot.pipeline.frontends.load import Loaded
from iree_pilot.pipeline.numerics import noise, numerics
from iree_pilot.pipeline.numerics.noise import Noise
from iree_pilot.pipeline.numerics.numerics import Comparison, OutputComparison
from iree_pilot.pipeline.program.program import Function, Reference, Tensor

#: Kind of mismatch in the signature of such a failure.
DIFFER = "targets-differ"


class TargetOutputs:
    """The targets of one run of a program. directory: an empty one, for what they give."""

    def __init__(self, loaded: Loaded, directory: Path) -> None:
        self._loaded, self._directory = loaded, directory
        self._ran: list[tuple[str, Path]] = []
        open_ = [f.name for f in loaded.program.functions if f.reference is None and not f.signals]
        self._open = () if open_ and _draws(loaded.mlir) else tuple(open_)
        self._noise: Noise | None = None

    def place(self, target: str) -> str:
        """Directory of a case's outputs (`Settings.keep`); "" if nothing is compared."""
        return str(self._directory / f"{len(self._ran)}-{target.replace('/', '-')}") * bool(
            self._open
        )

    def compared(self, result: CaseResult) -> CaseResult:
        """The result of the next target, compared with those of the targets before it."""
        place = Path(self.place(result.target))
        functions = tuple(self._function(one, result.target, place) for one in result.functions)
        self._ran.append((result.target, place))
        failed = next((f.failure for f in functions if f.failure), None)
        result = msgspec.structs.replace(result, functions=functions)
        if failed is None or result.failure is not None:
            return _with_agreement(result, [a for f in functions for a in f.against])
        others = dict.fromkeys(
            a.target for f in functions for a in f.against if a.comparison.differs
        )
        steps = tuple(
            msgspec.structs.replace(s, status="failed", why="") if s.name == "compare" else s
            for s in result.steps
        )
        why = f"runs, but differs from {' and '.join(others)}"
        return msgspec.structs.replace(
            result, status="failed", why=why, steps=steps, failure=failed
        )

    def _function(self, one: FunctionResult, target: str, place: Path) -> FunctionResult:
        if one.name not in self._open or one.failure is not None:
            return one
        function = self._loaded.program.function(one.name)
        own = kept(place, one.name)
        found: list[ComparedTarget] = []
        for other, there in self._ran:
            theirs = kept(there, one.name)
            if own is not None and theirs is not None:
                comparison = self._compare(function, own, theirs)
                found.append(ComparedTarget(target=other, comparison=comparison))
        wrong = next((a for a in found if a.comparison.differs), None)
        failure = None
        if wrong is not None:
            message = _difference(wrong.comparison, target, wrong.target)
            if len(self._loaded.program.functions) > 1:
                message = f"{one.name}: {message}"
            message += f"; bisect with -t {target} --against {wrong.target} finds the dispatch"
            failure = diagnostics.mismatch(message, what=DIFFER)
        return msgspec.structs.replace(one, against=tuple(found), failure=failure)

    def _compare(
        self, function: Function, own: tuple[Tensor, ...], theirs: tuple[Tensor, ...]
    ) -> Comparison:
        if self._noise is None:
            self._noise = noise.scan(self._loaded.mlir)
            if noise.unit(self._noise.computes) < noise.unit("f32"):
                self._noise = msgspec.structs.replace(self._noise, computes="f32")
        call = self._loaded.call(function).expecting(Reference(outputs=theirs))
        return numerics.compare(own, call, program_noise=self._noise)


def agreed(results: Sequence[CaseResult]) -> list[CaseResult]:
    """The results of one run, each with what the targets after it said of it, too."""
    found: dict[str, list[ComparedTarget]] = {}
    for result in results:
        for function in result.functions:
            for one in function.against:
                mine = msgspec.structs.replace(one, target=result.target)
                found.setdefault(one.target, []).append(mine)
    return [_with_agreement(result, found.get(result.target, ())) for result in results]


def _with_agreement(result: CaseResult, others: Sequence[ComparedTarget]) -> CaseResult:
    """A result that was not compared with a reference, with what the other targets say of it."""
    if result.status != "ran" or not others:
        return result
    differ = dict.fromkeys(a.target for a in others if a.comparison.differs)
    agree = [
        t for t in dict.fromkeys(a.target for a in others if a.comparison.ok) if t not in differ
    ]
    said = [f"agrees with {' and '.join(agree)}"] * bool(agree)
    said += [f"{' and '.join(differ)} {'differs' if len(differ) == 1 else 'differ'}"] * bool(differ)
    why = result.why.replace("ran, ", ", ".join(["ran", *said, ""]), 1) if said else result.why
    return msgspec.structs.replace(result, why=why)


def _difference(comparison: Comparison, target: str, other: str) -> str:
    """Description of the output in which two targets differ, and of the largest difference."""
    if comparison.output is None or not comparison.outputs:
        return f"{target} returns another number of outputs than {other}"
    output = comparison.outputs[comparison.output]
    size = "x".join(map(str, output.shape)) or "a number"
    what = f"output {output.index} ({output.label}, {size}) of {target} and of {other} differ"
    return (
        f"{what}{_how(output, target, other)}; without a reference it is not known which is right"
    )


def _how(output: OutputComparison, target: str, other: str) -> str:
    if not output.compared:
        return f": {output.why}"
    count = math.prod(output.shape)
    how = f": {output.mismatched} of {count} elements" if output.mismatched else ""
    how = how or f": relative L2 distance {output.rel_l2:.3g}, {output.tolerance:.3g} is allowed"
    if output.worst is None:
        return how
    at = ", ".join(map(str, output.worst.index))
    return f"{how}, most at [{at}]: {output.worst.got} and {output.worst.expected}"


def _draws(mlir: Path) -> bool:
    return references.DRAWS.search(mlir.read_text(errors="replace")) is not None
