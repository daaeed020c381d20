"""References for parts of a program, computed by its engine, many at once.

Beside the reference itself it is measured how far the precise results move when the inputs do,
by less than a computation resolves, and when the steps of sums and norms are rounded to 16 bits:
an error that is no larger says nothing about the compiler.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from iree_pilot.pipeline.execution.engine import Evaluating
from iree_pilot.pipeline.processes import process, task
from iree_pilot.pipeline.program import tensors
from iree_pilot.pipeline.program.program import Call, Jitter, Tensor
from iree_pilot.pipeline.torch_dialect import evaluate as torch_dialect
from iree_pilot.pipeline.torch_dialect.evaluate import Evaluation, EvaluationWork, Stage
from iree_pilot.repro.ir.feeds import FedValue

#: An evaluation may take longer than a compile: it is done in float64 as well.
_LEAST_SECONDS = 600.0
#: Inputs of these types are moved to see what that changes.
_MOVED = ("f32", "f64")


class EvaluatedCall(msgspec.Struct, frozen=True, kw_only=True):
    """A call with the reference that was made for it. jittered: the precise results for inputs
    moved to the next number, once for each time that was done. why: there is no reference."""

    call: Call
    jittered: tuple[tuple[Tensor, ...], ...] = ()
    why: str = ""


class Inside(msgspec.Struct, frozen=True, kw_only=True):
    """The tensors that a function computes, in their own types.

    skipped: its operations that cannot be evaluated, by position; what depends on them is not
    there. why: the reason, of the first of them or of all.
    """

    values: Mapping[FedValue, Tensor]
    skipped: tuple[int, ...] = ()
    why: str = ""


class Evaluator:
    """Evaluates calls by an engine; `limits` are of one question. Close it."""

    def __init__(self, limits: process.Limits, engine: Evaluating) -> None:
        self.engine = engine
        self._seconds = max(limits.seconds or _LEAST_SECONDS, _LEAST_SECONDS)
        self._worker = task.Worker(engine.function)

    def close(self) -> None:
        self._worker.close()

    def evaluate(
        self, calls: Sequence[Call], directory: Path, *, jitters: int = 2
    ) -> list[EvaluatedCall]:
        """References for the calls, in their order; files go to the new `directory`."""
        shutil.rmtree(directory, ignore_errors=True)
        works: list[EvaluationWork] = []
        spans: list[range] = []
        for number, call in enumerate(calls):
            place = directory / str(number)
            place.mkdir(parents=True)
            first = len(works)
            steps: Jitter = "sums" if jitters else "none"
            works.append(torch_dialect.work(call, place, jitter=steps))
            if any(t.dtype in _MOVED for t in call.inputs):
                for seed in range(jitters):
                    moved = place / f"moved{seed}"
                    other = call.given(_moved(call.inputs, seed, moved))
                    works.append(torch_dialect.work(other, moved))
            spans.append(range(first, len(works)))
        found = self._done(works, directory)
        each = ([found[index] for index in span] for span in spans)
        return [_evaluated(call, results) for call, results in zip(calls, each, strict=True)]

    def inside(self, call: Call, directory: Path) -> Inside:
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        (found,) = self._done([torch_dialect.work(call, directory, values=None)], directory)
        values = {FedValue(one.op, one.result): one.own for one in found.values}
        return Inside(values=values, skipped=found.skipped, why=found.why)

    def _done(self, works: Sequence[EvaluationWork], directory: Path) -> list[Evaluation]:
        """Evaluations of the works, with absolute paths. One that crashes the engine says so."""

        def ask(left: list[EvaluationWork]) -> task.Done[Stage]:
            place = directory / f"asked{len(works) - len(left)}"
            return self._worker.call(left, Stage, place, seconds=self._seconds)

        found = torch_dialect.settled(works, ask)
        return [_placed(one, Path(work.place)) for one, work in zip(found, works, strict=True)]


def _evaluated(call: Call, found: Sequence[Evaluation]) -> EvaluatedCall:
    first, *others = found
    jittered = (one.reference.precise for one in others if one.reference is not None)
    return EvaluatedCall(
        call=call.expecting(first.reference),
        jittered=tuple(outputs for outputs in jittered if outputs),
        why=first.why,
    )


def _placed(found: Evaluation, place: Path) -> Evaluation:
    """Evaluation with absolute paths."""
    reference = None if found.reference is None else found.reference.placed(place)
    values = tuple(
        msgspec.structs.replace(value, own=value.own.placed(place)) for value in found.values
    )
    return msgspec.structs.replace(found, reference=reference, values=values)


def _moved(inputs: Sequence[Tensor], seed: int, place: Path) -> tuple[Tensor, ...]:
    """The inputs with each element of a type that is computed in moved to a number next to it.

    So what is equal is not equal any more. In narrower types the next number is far away.
    """
    import numpy as np

    place.mkdir()
    generator = np.random.default_rng(seed)
    made = []
    for number, tensor in enumerate(inputs):
        if tensor.dtype not in _MOVED:
            made.append(tensor)
            continue
        values = tensors.load(Path(), tensor)
        up = generator.choice((-np.inf, np.inf), values.shape).astype(values.dtype)
        file = place / f"input{number}.bin"
        file.write_bytes(np.nextafter(values, up).tobytes())
        made.append(msgspec.structs.replace(tensor, file=str(file)))
    return tuple(made)
