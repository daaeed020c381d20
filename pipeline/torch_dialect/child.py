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
    own: dict[Key, Tensor] = {}
    skipped: dict[int, str] = {}
    try:
        module = Module(Path(work.mlir), work.archives)
        outputs = _evaluated(module, work, None, own, skipped)
    except (NotEvaluable, UsageError) as fault:
        yield Evaluation(why=str(fault), values=_paired(own, {}), skipped=tuple(skipped))
        return
    reference = Reference(outputs=outputs, evaluator=_EVALUATOR, note=UNFINISHED)
    done = Evaluation(reference=reference, values=_paired(own, {}), skipped=tuple(skipped))
    if skipped:
        done = msgspec.structs.replace(done, why=next(iter(skipped.values())))
    yield done
    widening = Widening()
    wide: dict[Key, Tensor] = {}
    try:
        precise = _evaluated(module, work, widening, wide, {})
        perturbed: tuple[Tensor, ...] = ()
        if widening.rounded:
            moved = Widening(perturbed=True)
            unwatched = msgspec.structs.replace(work, values=())
            perturbed = _evaluated(module, unwatched, moved, {}, {}, name="perturbed")
    except (NotEvaluable, UsageError) as fault:
        note = f"no double-precision reference: {fault}"
        reference = msgspec.structs.replace(reference, note=note)
        yield msgspec.structs.replace(done, reference=reference)
        return
    reference = msgspec.structs.replace(
        reference, precise=precise, precise_dtype="f64", perturbed=perturbed, note=""
    )
    yield msgspec.structs.replace(done, reference=reference, values=_paired(own, wide))


def _evaluated(
    module: Module,
    work: Work,
    widening: Widening | None,
    values: dict[Key, Tensor],
    skipped: dict[int, str],
    name: str = "",
) -> tuple[Tensor, ...]:
    """The function's outputs, in files of this name; `values` gets the values that are wanted.

    Where all of them are, `skipped` gets what cannot be evaluated.
    """
    place = Path(work.place)
    name = name or ("out" if widening is None else "precise")
    wanted = None if work.values is None else set(work.values)

    def record(op: int, result: int, value: torch.Tensor) -> None:
        if wanted is None or (op, result) in wanted:
            file = f"values/{op}.{result}.{name}.bin"
            values[op, result] = torch_tensors.save(value, place, file)

    inputs = [torch_tensors.mapped(Path(t.file), t.dtype, t.shape) for t in work.inputs]
    passed = skipped if wanted is None else None
    return tuple(
        torch_tensors.save(value, place, f"data/{work.function}.{name}{index}.bin")
        for index, value in enumerate(module.run(work.function, inputs, widening, record, passed))
    )


def _paired(own: dict[Key, Tensor], precise: dict[Key, Tensor]) -> tuple[Value, ...]:
    return tuple(
        Value(op=key[0], result=key[1], own=value, precise=precise.get(key))
        for key, value in own.items()
    )


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
