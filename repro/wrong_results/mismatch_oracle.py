"""Oracle for wrong numbers: are a candidate's compiled results wrong, given correct inputs?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from iree_pilot.pipeline.execution.engine import Iree, Unsupported
from iree_pilot.pipeline.failures.diagnostics import Failure
from iree_pilot.pipeline.numerics import numerics
from iree_pilot.pipeline.numerics.numerics import Comparison, OutputComparison
from iree_pilot.pipeline.program.program import ELEMENT_TYPES, Call, Tensor
from iree_pilot.pipeline.toolchain.compiler import MODULE
from iree_pilot.pipeline.toolchain.context import Context
from iree_pilot.repro.oracles.oracle import LOST, Answer, NotAProgram, Off
from iree_pilot.repro.oracles.oracle_run import Running, RunOracle
from iree_pilot.repro.reducer import kept
from iree_pilot.repro.wrong_results import conditioning
from iree_pilot.repro.wrong_results.references import EvaluatedCall
from iree_pilot.repro.wrong_results.values import PartValues


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """Result of one function of a candidate. why: it could not be judged.

    outputs: of the device; their files are absolute.
    """

    function: str
    outputs: tuple[Tensor, ...] = ()
    comparison: Comparison | None = None
    failure: Failure | None = None
    why: str = ""


class MismatchOracle(RunOracle):
    """Compiles and runs a candidate, and compares it with what is right for the same inputs.

    Any wrong number is the same failure, if its error is `least` or more: a smaller one may come
    of another fault in the same part. An error that the last bits of the
    inputs can explain is none, and where there is no reference in float64 nothing can be said.
    """

    def __init__(
        self,
        context: Context,
        flags: tuple[str, ...],
        wanted: Failure,
        running: Running,
        *,
        width: int = 1,
    ) -> None:
        super().__init__(context, flags, wanted, running, width=width)
        self.values = PartValues(
            running.loaded, running.function, context.directory / "values", context.limits
        )
        self.least = 0.0
        self._evaluated: dict[str, list[EvaluatedCall] | NotAProgram] = {}
        self._off: dict[str, Off] = {}

    def ask(self, candidates: Sequence[Path]) -> list[Answer]:
        answers = super().ask(candidates)
        for candidate, answer in zip(candidates, answers, strict=True):
            if answer.off is not None:
                self.values.worst[self._digest(candidate)] = answer.off
        return [self._enough(answer) for answer in answers]

    def again(self, program: Path) -> Failure | None:
        failure = super().again(program)
        self._off.pop(self._digest(program), None)
        return failure

    def close(self) -> None:
        self.values.evaluator.close()

    @property
    def hidden(self) -> bool:
        """True if the whole program cannot show that it is wrong."""
        return self.wanted.signature.split("/")[1] == numerics.HIDDEN

    @property
    def error(self) -> float:
        """Error of the whole program, as it was compared at first."""
        comparison = self._running.comparison
        return max((_off(o).error for o in comparison.outputs), default=0.0) if comparison else 0.0

    def _enough(self, answer: Answer) -> Answer:
        little = answer.off is not None and answer.off.error < self.least
        return msgspec.structs.replace(answer, verdict="different") if little else answer

    def errors(self, module: Path) -> dict[str, tuple[float, ...]]:
        """Errors of the outputs of a module's functions, by function; 0 if an output is correct.

        Functions that nothing is known of are left out.
        """
        digest = self._digest(module)
        file = self._scratch.with_name(f"errors-{digest[:16]}.json")
        before = kept.recall(file, dict[str, tuple[float, ...]])
        if before is not None:
            return before
        self.calls += 1
        self._prepare({digest: module}, jitters=0)
        try:
            failure, judged = self._judged(module, digest)
        except NotAProgram:
            return {}
        if failure is not None:
            return {}
        found = {
            one.function: tuple(_off(output).error for output in one.comparison.outputs)
            for one in judged
            if one.comparison is not None
        }
        kept.keep(file, found)
        return found

    def compiled(self, candidate: Path, place: Path) -> Path:
        """The candidate's module, in the directory `place`.

        Raises NotAProgram where it does not compile.
        """
        self.calls += 1
        module = place / MODULE
        failure = self._module(candidate, self._digest(candidate), module)
        if failure is not None:
            raise NotAProgram(failure.message)
        return module

    def judge(self, evaluated: EvaluatedCall, module: Path, work: Path) -> Judged:
        """Judges one call; the outputs of the device stay in the new directory `work`."""
        if why := _unreliable(evaluated):
            return Judged(function=evaluated.call.function.name, why=why)
        return self._run(evaluated, module, work)

    def enough(self, judged: Judged) -> bool:
        """True if a call is wrong, by an error large enough for the wanted failure."""
        comparison = judged.comparison
        if judged.failure is None or comparison is None:
            return False
        return max((_off(o).error for o in comparison.outputs), default=0.0) >= self.least

    def _digest(self, candidate: Path) -> str:
        return self.values.digest(candidate)

    def shows(self, failure: Failure | None) -> bool:
        """True for any kind of mismatch: uninitialised memory is NaN in some runs only."""
        return failure is not None and failure.kind == "mismatch"

    def _is_wanted(self, failure: Failure) -> bool:
        return {failure.kind, *(other.kind for other in failure.also)} == {"mismatch"}

    def _judge(self, candidate: Path, digest: str) -> Answer:
        answer = super()._judge(candidate, digest)
        return msgspec.structs.replace(answer, off=self._off.pop(digest, None))

    def _prepare(self, fresh: Mapping[str, Path], jitters: int = 2) -> None:
        """The references of all of them are made by one child."""
        calls: list[Call] = []
        asked: dict[str, range] = {}
        for digest, candidate in fresh.items():
            if candidate == self.values.whole:
                continue
            try:
                made = self.values.calls(candidate)
            except NotAProgram as why:
                self._evaluated[digest] = why
                continue
            asked[digest] = range(len(calls), len(calls) + len(made))
            calls += made
        if not calls:
            return
        first = next(iter(asked))
        place = self._scratch / f"{first[:16]}.references"
        found = self.values.evaluator.evaluate(calls, place, jitters=jitters)
        for digest, numbers in asked.items():
            self._evaluated[digest] = [found[n] for n in numbers]

    def _failure(self, candidate: Path, digest: str) -> Failure | None:
        failure, judged = self._judged(candidate, digest)
        if failure is not None:
            return failure
        wrong = [one for one in judged if one.failure is not None]
        said = self._scratch / f"{digest[:16]}.stderr.txt"
        with said.open("a") as file:
            file.writelines(f"wrong numbers on function {one.function}\n" for one in wrong)
        if not wrong:
            unknown = [one.why for one in judged if one.why]
            if unknown:
                raise NotAProgram(unknown[0])
            return None
        first, *others = (one.failure for one in wrong if one.failure is not None)
        offs = [
            _off(output)
            for one in wrong
            if one.comparison is not None
            for output in one.comparison.outputs
        ]
        if offs:
            self._off[digest] = max(offs, key=lambda off: off.error)
        return msgspec.structs.replace(first, also=(*first.also, *others))

    def _judged(self, candidate: Path, digest: str) -> tuple[Failure | None, list[Judged]]:
        """(the failure to compile, what came of each function)."""
        with self._place(digest) as place:
            known = self._known_calls(candidate, digest)
            module, work = place / MODULE, place / "run"
            failure = self._module(candidate, digest, module)
            if failure is not None:
                return failure, []
            judge = self._run if candidate == self.values.whole else self.judge
            return None, [judge(one, module, work) for one in known]

    def _known_calls(self, candidate: Path, digest: str) -> list[EvaluatedCall]:
        """Calls with their references; the whole program's own reference is taken as reliable."""
        if candidate == self.values.whole:
            return [EvaluatedCall(call=call) for call in self.values.calls(candidate)]
        found = self._evaluated[digest]
        if isinstance(found, NotAProgram):
            raise found
        return found

    def _run(self, evaluated: EvaluatedCall, module: Path, work: Path) -> Judged:
        call, name = evaluated.call, evaluated.call.function.name
        ran = Iree(module, self._running.device, self.context).run(call, work)
        if isinstance(ran, Unsupported):
            return Judged(function=name, why=str(ran))
        if isinstance(ran, Failure):
            return Judged(function=name, failure=ran)
        first = numerics.compare(ran.outputs, call)
        if first.verdict == "not-compared" and not any(map(_right, first.outputs)):
            return Judged(function=name, why=first.why)
        reference = call.function.reference
        if first.differs and reference is not None and evaluated.jittered:
            mended = conditioning.forgiven(
                ran.outputs, reference, evaluated.jittered, work / "forgiven"
            )
            if not numerics.compare(mended, call).differs:
                why = "a change in the last bits of its inputs explains its error"
                return Judged(function=name, why=why)
        failure = numerics.to_failure(first) if first.differs else None
        return Judged(function=name, comparison=first, failure=failure, outputs=ran.outputs)


def _right(output: OutputComparison) -> bool:
    """Integers that agree are right, also where all are 0, which proves little of a program."""
    exact = ELEMENT_TYPES[output.dtype].family in ("int", "bool")
    return output.ok or (exact and numerics.agrees(output))


def _unreliable(evaluated: EvaluatedCall) -> str:
    """Reason that a reference is not reliable; empty if it is."""
    reference = evaluated.call.function.reference
    if reference is None:
        return f"it cannot be evaluated: {evaluated.why}"
    rounded = any(ELEMENT_TYPES[t.dtype].family in ("float", "complex") for t in reference.outputs)
    if rounded and not reference.precise:
        return f"it cannot be evaluated in float64: {reference.note}"
    return ""


def _off(output: OutputComparison) -> Off:
    if not output.differs:
        return Off(error=0.0)
    index = output.worst.index if output.worst else ()
    exact = ELEMENT_TYPES[output.dtype].family in ("int", "bool")
    strange = output.nan != output.reference_nan or output.inf != output.reference_inf
    error = LOST if exact or strange or not output.compared else output.max_rel
    return Off(error=error, shape=output.shape, index=index)
