"""Evaluates functions with PyTorch, in a child process: see `pipeline.torch_dialect.evaluate`."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import msgspec
import torch
from iree.compiler import ir

from iree_pilot.pipeline.errors import UsageError
from iree_pilot.pipeline.frontends.reference import conversions, draws
from iree_pilot.pipeline.frontends.reference.choices import Choices
from iree_pilot.pipeline.frontends.reference.conversions import Conversions
from iree_pilot.pipeline.frontends.reference.reference import (
    EvaluatedOutputs,
    with_precise,
)
from iree_pilot.pipeline.frontends.reference.widening import NotEvaluable, Widening, rounding
from iree_pilot.pipeline.program import torch_tensors
from iree_pilot.pipeline.program.program import Reference, Tensor
from iree_pilot.pipeline.program.torch_tensors import TensorFiles
from iree_pilot.pipeline.torch_dialect.evaluate import (
    UNFINISHED,
    Evaluation,
    EvaluationWork,
    Stage,
    made_place,
    paired,
)
from iree_pilot.pipeline.torch_dialect.evaluator import How, Record, TorchModule

_EVALUATOR = f"torch {torch.__version__}, operation by operation"
Key = tuple[int, int]


def evaluated(works: list[EvaluationWork], directory: Path) -> Iterator[Stage]:
    """Evaluates functions one after the other; each stage of each outlives what ends the child."""
    warnings.simplefilter("ignore")
    for number, work in enumerate(works):
        with ir.Context():
            for evaluation in stages(work):
                yield Stage(number, evaluation)


def stages(work: EvaluationWork) -> Iterator[Evaluation]:
    """Evaluations of a function: first in its own dtypes, then with float64 as well."""
    place = made_place(work)
    wanted = None if work.values is None else set(work.values)
    inputs = [torch_tensors.mapped(Path(t.file), t.dtype, t.shape) for t in work.inputs]
    own: dict[Key, Tensor] = {}
    wide: dict[Key, Tensor] = {}
    skipped: dict[int, str] = {}
    choices = Choices()

    def recording(values: dict[Key, Tensor], name: str) -> Record:
        def record(op: int, result: int, value: torch.Tensor) -> None:
            if wanted is None or (op, result) in wanted:
                file = f"values/{op}.{result}.{name}.bin"
                values[op, result] = torch_tensors.save(value, place, file)

        return record

    files = TensorFiles(place, f"data/{work.function}.")

    def evaluate(widening: Widening | None, follow: Choices | None) -> EvaluatedOutputs:
        record = _ignore if wide else recording(wide, "precise")
        if widening is not None:
            widening.doubles = module.doubles
        how = How(widening, follow, {} if wanted is None else None)
        found = module.run(work.function, inputs, record, how)
        return EvaluatedOutputs(found.outputs, found.points, units)

    def again() -> list[torch.Tensor] | None:
        try:
            how = How(skipped={} if wanted is None else None)
            return module.run(work.function, inputs, _ignore, how).outputs
        except NotEvaluable:
            return None

    try:
        module = TorchModule(Path(work.mlir), work.archives)
        how = How(None, choices, skipped if wanted is None else None)
        with Conversions() as watched:
            found = module.run(work.function, inputs, recording(own, "out"), how)
        units = tuple(rounding(value.dtype) for value in found.outputs)
        reasons = list(map(draws.why, found.drawn))
        if watched.met:
            undefined = conversions.undefined(found.outputs, again)
            reasons = [a or b for a, b in zip(reasons, undefined, strict=True)]
        reference = Reference(
            outputs=files.save(found.outputs, "out"),
            evaluator=_EVALUATOR,
            note=UNFINISHED,
            incomparable=tuple(reasons) if any(reasons) else (),
        )
    except (NotEvaluable, UsageError) as fault:
        yield Evaluation(why=str(fault), values=paired(own, {}), skipped=tuple(skipped))
        return
    done = Evaluation(reference=reference, values=paired(own, {}), skipped=tuple(skipped))
    if skipped:
        done = msgspec.structs.replace(done, why=next(iter(skipped.values())))
    yield done
    try:
        reference = with_precise(
            reference, evaluate, files, found.points, choices, jitter=work.jitter
        )
    except (NotEvaluable, UsageError) as fault:
        note = f"no double-precision reference: {fault}"
        reference = msgspec.structs.replace(reference, note=note)
        yield msgspec.structs.replace(done, reference=reference)
        return
    yield msgspec.structs.replace(done, reference=reference, values=paired(own, wide))


def _ignore(op: int, result: int, value: torch.Tensor) -> None:
    """Keeps nothing of a value."""
