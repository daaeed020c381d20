"""The evaluating child: `python -m pipeline.torch_dialect.child DIRECTORY` does the work there.

What came of number N is written to `N.json` as soon as it is known: it outlives a child that dies
of the next.
"""

from __future__ import annotations

import faulthandler
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import msgspec
import torch
from iree.compiler import ir

from pipeline import torch_tensors
from pipeline.errors import UsageError
from pipeline.frontends.reference import NotEvaluable, Widening
from pipeline.program import Reference, Tensor
from pipeline.torch_dialect.evaluate import JOB, UNFINISHED, Evaluation, Value, Work
from pipeline.torch_dialect.evaluator import Module

_EVALUATOR = f"torch {torch.__version__}, operation by operation"
Key = tuple[int, int]


def main(scratch: Path) -> int:
    faulthandler.enable()
    warnings.simplefilter("ignore")
    works = msgspec.json.decode((scratch / JOB).read_bytes(), type=list[Work])
    for number, work in enumerate(works):
        with ir.Context():
            for found in stages(work):
                (scratch / f"{number}.json").write_bytes(msgspec.json.encode(found))
    return 0


def stages(work: Work) -> Iterator[Evaluation]:
    """What is known of a function after each evaluation of it: in its own dtypes, in float64, and
    perturbed if it rounds to 8-bit floats."""
    place = Path(work.place)
    for name in ("data", *(["values"] if work.values != () else [])):
        (place / name).mkdir(parents=True, exist_ok=True)
    try:
        module = Module(Path(work.mlir), work.archives)
        outputs, own = _evaluated(module, work, "out", None)
    except (NotEvaluable, UsageError) as fault:
        yield Evaluation(why=str(fault))
        return
    reference = Reference(outputs=outputs, evaluator=_EVALUATOR, note=UNFINISHED)
    yield Evaluation(reference=reference, values=_paired(own, {}))
    widening = Widening()
    try:
        precise, wide = _evaluated(module, work, "precise", widening)
        perturbed: tuple[Tensor, ...] = ()
        if widening.rounded:
            moved = Widening(perturbed=True)
            unwatched = msgspec.structs.replace(work, values=())
            perturbed, _ = _evaluated(module, unwatched, "perturbed", moved)
    except (NotEvaluable, UsageError) as fault:
        note = f"no double-precision reference: {fault}"
        reference = msgspec.structs.replace(reference, note=note)
        yield Evaluation(reference=reference, values=_paired(own, {}))
        return
    reference = msgspec.structs.replace(
        reference, precise=precise, precise_dtype="f64", perturbed=perturbed, note=""
    )
    yield Evaluation(reference=reference, values=_paired(own, wide))


def _evaluated(
    module: Module, work: Work, name: str, widening: Widening | None
) -> tuple[tuple[Tensor, ...], dict[Key, Tensor]]:
    """(the function's outputs, the values wanted), in files of this name."""
    place = Path(work.place)
    wanted = None if work.values is None else set(work.values)
    values: dict[Key, Tensor] = {}

    def record(op: int, result: int, value: torch.Tensor) -> None:
        if wanted is None or (op, result) in wanted:
            file = f"values/{op}.{result}.{name}.bin"
            values[op, result] = torch_tensors.save(value, place, file)

    inputs = [torch_tensors.mapped(Path(t.file), t.dtype, t.shape) for t in work.inputs]
    outputs = tuple(
        torch_tensors.save(value, place, f"data/{work.function}.{name}{index}.bin")
        for index, value in enumerate(module.run(work.function, inputs, widening, record))
    )
    return outputs, values


def _paired(own: dict[Key, Tensor], precise: dict[Key, Tensor]) -> tuple[Value, ...]:
    return tuple(
        Value(op=key[0], result=key[1], own=value, precise=precise.get(key))
        for key, value in own.items()
    )


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
