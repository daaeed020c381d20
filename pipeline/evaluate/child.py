"""The evaluating child: `python -m pipeline.evaluate.child DIRECTORY` does the work there.

What came of number N is written to `N.json` as soon as it is known: it outlives a child that dies
of the next.
"""

from __future__ import annotations

import faulthandler
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np

from pipeline import tensors
from pipeline.evaluate.interpreter import Array, Module, Unknown
from pipeline.program import ELEMENT_TYPES, Reference, Tensor
from pipeline.torch_dialect.evaluate import JOB, UNFINISHED, Evaluation, Value, Work

EVALUATOR = f"numpy {np.__version__}, operation by operation"
Key = tuple[int, int]


def main(scratch: Path) -> int:
    faulthandler.enable()
    works = msgspec.json.decode((scratch / JOB).read_bytes(), type=list[Work])
    for number, work in enumerate(works):
        for found in stages(work):
            (scratch / f"{number}.json").write_bytes(msgspec.json.encode(found))
    return 0


def stages(work: Work) -> Iterator[Evaluation]:
    """What is known of a function after each evaluation of it: in its own types, in float64, and
    perturbed if it rounds to 8-bit floats."""
    place = Path(work.place)
    for name in ("data", *(["values"] if work.values != () else [])):
        (place / name).mkdir(parents=True, exist_ok=True)
    try:
        module = Module(Path(work.mlir))
        outputs, own = _evaluated(module, work, "out")
    except Unknown as why:
        yield Evaluation(why=str(why))
        return
    reference = Reference(outputs=outputs, evaluator=EVALUATOR, note=UNFINISHED)
    yield Evaluation(reference=reference, values=_paired(own, {}))
    try:
        precise, wide = _evaluated(module, work, "precise")
    except Unknown as why:
        note = f"no double-precision reference: {why}"
        reference = msgspec.structs.replace(reference, note=note)
        yield Evaluation(reference=reference, values=_paired(own, {}))
        return
    reference = msgspec.structs.replace(reference, precise=precise, precise_dtype="f64", note="")
    yield Evaluation(reference=reference, values=_paired(own, wide))


def _evaluated(
    module: Module, work: Work, name: str
) -> tuple[tuple[Tensor, ...], dict[Key, Tensor]]:
    """(the function's outputs, the values wanted), in files of this name."""
    place = Path(work.place)
    wanted = None if work.values is None else set(work.values)
    values: dict[Key, Tensor] = {}

    def record(op: int, result: int, value: Array) -> None:
        if wanted is None or (op, result) in wanted:
            values[op, result] = tensors.save(value, place, f"values/{op}.{result}.{name}.bin")

    given = [tensors.load(Path(), tensor) for tensor in work.inputs]
    made = module.run(work.function, given, wide=name != "out", record=record)
    outputs = tuple(
        tensors.save(_signed(value, dtype), place, f"data/{work.function}.{name}{index}.bin")
        for index, (value, dtype) in enumerate(
            zip(made, work.outputs or (None,) * len(made), strict=True)
        )
    )
    return outputs, values


def _signed(value: Array, dtype: str | None) -> Array:
    """The IR has no signs: what is unsigned has them back."""
    value = np.ascontiguousarray(value).reshape(value.shape)
    if dtype is None or ELEMENT_TYPES[dtype].family != "int":
        return value
    return value.view(tensors.numpy_dtype(dtype))


def _paired(own: dict[Key, Tensor], precise: dict[Key, Tensor]) -> tuple[Value, ...]:
    return tuple(
        Value(op=key[0], result=key[1], own=value, precise=precise.get(key))
        for key, value in own.items()
    )


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
